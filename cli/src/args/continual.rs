//! What may stand on the command line of the commands that keep adapters up to date.

use std::path::PathBuf;

use clap::Args;

use super::{DeviceArgs, OnBadImageArg};

#[derive(Debug, Args)]
pub(crate) struct StreamArgs {
    /// A recipe file; options override what it says
    pub(crate) recipe: Option<PathBuf>,
    /// Backbone: a folder, a checkpoint or a name (see `inarch backbone list`)
    #[arg(short = 'b', long, value_name = "BACKBONE")]
    pub(crate) backbone: Option<String>,
    /// Data set; several times for one experience each
    #[arg(short = 'd', long, value_name = "PATH")]
    pub(crate) data: Vec<PathBuf>,
    /// Folder that the paths of a split or manifest are relative to
    #[arg(long, value_name = "FOLDER")]
    pub(crate) root: Option<PathBuf>,
    /// Strategies, separated by commas, or `all`; a wrong name lists them
    #[arg(short = 's', long, value_delimiter = ',', value_name = "STRATEGY[,STRATEGY..]")]
    pub(crate) strategy: Vec<String>,
    /// Seeds, one run for each
    #[arg(long, value_delimiter = ',', value_name = "S[,S..]")]
    pub(crate) seeds: Vec<u64>,
    /// Override one setting of the recipe, e.g. `stream.experiences=10`
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// What to do about an image that cannot be read
    #[arg(long, value_enum, default_value = "fail", value_name = "POLICY")]
    pub(crate) on_bad_image: OnBadImageArg,
    /// Folder for the report and all runs; what it holds already is not done again
    #[arg(short = 'o', long, value_name = "FOLDER")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}
