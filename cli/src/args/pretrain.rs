//! What may stand behind `inarch pretrain`.

use std::path::PathBuf;

use clap::Args;

use super::DeviceArgs;

#[derive(Debug, Args)]
pub(crate) struct PretrainArgs {
    /// The recipe of a backbone to be trained from scratch, or beside `-b` that of an adapter
    #[arg(required_unless_present = "backbone")]
    pub(crate) recipe: Option<PathBuf>,
    /// Adapt this backbone instead, with an adapter
    #[arg(short = 'b', long, value_name = "BACKBONE")]
    pub(crate) backbone: Option<String>,
    /// Method of the adapter; a recipe names its own
    #[arg(
        short = 'm',
        long,
        value_name = "METHOD",
        default_value = "lora",
        requires = "backbone",
        conflicts_with = "recipe"
    )]
    pub(crate) method: String,
    /// Pairs: a CSV or JSONL manifest `path,caption[,label]`, or labelled images with a recipe's captions
    #[arg(short = 'd', long, value_name = "PATH")]
    pub(crate) data: PathBuf,
    /// Folder that the paths of a manifest are relative to
    #[arg(long, value_name = "FOLDER")]
    pub(crate) root: Option<PathBuf>,
    /// The tokenizer of a new backbone
    #[arg(long, value_name = "TOKENIZER.json", required_unless_present = "backbone")]
    pub(crate) tokenizer: Option<PathBuf>,
    /// Override one setting of the recipe, e.g. `train.epochs=2`
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Folder for the result
    #[arg(short = 'o', long, value_name = "FOLDER")]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}
