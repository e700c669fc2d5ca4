//! What may stand behind `inarch combine`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use inarch_peft::Merge;

use super::DeviceArgs;

#[derive(Debug, Args)]
pub(crate) struct CombineArgs {
    /// Backbone: a folder, a checkpoint, a hub id (ORG/NAME[@REVISION]), a name (see `inarch backbone list`), or `embeddings:TEXTS.safetensors`
    #[arg(short = 'b', long, value_name = "BACKBONE")]
    pub(crate) backbone: String,
    /// Adapters: folders that `inarch fit` wrote, or names in the registry
    #[arg(required = true, value_name = "ADAPTER")]
    pub(crate) adapters: Vec<PathBuf>,
    /// One weight for each adapter; equal shares when absent
    #[arg(long, value_delimiter = ',', allow_negative_numbers = true, value_name = "W[,W..]")]
    pub(crate) weights: Vec<f64>,
    /// How their changes are merged
    #[arg(long, value_enum, default_value = "linear", value_name = "MERGE")]
    pub(crate) merge: MergeArg,
    /// Rank of the result; the smallest exact one when absent
    #[arg(long, value_name = "RANK")]
    pub(crate) rank: Option<usize>,
    /// Share of the entries that is kept, where some are dropped
    #[arg(long, default_value_t = 0.5, value_name = "SHARE")]
    pub(crate) density: f64,
    /// Decides which entries are kept at random
    #[arg(long, default_value_t = 1, value_name = "S")]
    pub(crate) seed: u64,
    /// Folder for the adapter
    #[arg(short = 'o', long, value_name = "FOLDER")]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum MergeArg {
    /// The weighted sum (the weighted mean of the parameters, for methods that are no change of weights)
    Linear,
    /// The weighted sum of the greatest entries of each
    MagnitudePrune,
    /// The greatest entries, with an elected sign
    Ties,
    /// The weighted sum of random entries of each, enlarged
    DareLinear,
    /// Random entries, enlarged, with an elected sign
    DareTies,
}

impl From<MergeArg> for Merge {
    fn from(arg: MergeArg) -> Self {
        match arg {
            MergeArg::Linear => Self::Linear,
            MergeArg::MagnitudePrune => Self::MagnitudePrune,
            MergeArg::Ties => Self::Ties,
            MergeArg::DareLinear => Self::DareLinear,
            MergeArg::DareTies => Self::DareTies,
        }
    }
}
