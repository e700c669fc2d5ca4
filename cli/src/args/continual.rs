//! What may stand on the command line of the commands that keep adapters up to date.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{ClipArgs, DeviceArgs, OnBadImageArg, ReadingArgs, ShownArgs};

#[derive(Debug, Args)]
pub(crate) struct StreamArgs {
    /// A recipe file, whose paths lead from its folder; options override what it says
    pub(crate) recipe: Option<PathBuf>,
    /// Backbone: a folder, a checkpoint, a hub id (ORG/NAME[@REVISION]) or a name (see `inarch backbone list`)
    #[arg(short = 'b', long, value_name = "BACKBONE")]
    pub(crate) backbone: Option<String>,
    /// Data set, images or a features file; several times for one experience each
    #[arg(short = 'd', long, value_name = "PATH")]
    pub(crate) data: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) reading: ReadingArgs,
    /// Method whose adapter learns, in place of the recipe's; for strategies that train one by steps
    #[arg(short = 'm', long, value_name = "METHOD")]
    pub(crate) method: Option<String>,
    /// Strategies, separated by commas, or `all` that can train the method; a wrong name lists them
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

/// What every command that changes versions is given.
#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// Backbone: a folder, a checkpoint, a hub id (ORG/NAME[@REVISION]) or a name (see `inarch backbone list`)
    #[arg(short = 'b', long, value_name = "BACKBONE", default_value = "pocket")]
    pub(crate) backbone: String,
    /// Key file under which memory, held-out samples and statistics are encrypted; the adapter is not
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct UpdateArgs {
    /// What is to be updated: a folder of versions or an adapter
    pub(crate) target: String,
    /// New data: its training and validation images are learned, its test images are held out to judge by
    #[arg(short = 'd', long, value_name = "PATH")]
    pub(crate) data: PathBuf,
    #[command(flatten)]
    pub(crate) reading: ReadingArgs,
    #[command(flatten)]
    pub(crate) clips: ClipArgs,
    /// Start the first version, with this method
    #[arg(long, value_name = "METHOD")]
    pub(crate) init: Option<String>,
    /// Settings: memory, gate, strategy
    #[arg(long, value_name = "RECIPE.toml")]
    pub(crate) recipe: Option<PathBuf>,
    /// Override one setting, e.g. `gate.class_drop=0.1`
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Data whose test images the update is judged by as well
    #[arg(long, value_name = "PATH")]
    pub(crate) probe: Vec<PathBuf>,
    /// Data of other classes on which zero-shot must not fall
    #[arg(long, value_name = "PATH")]
    pub(crate) zero_shot: Vec<PathBuf>,
    /// Do nothing unless the new data has drifted from what is remembered
    #[arg(long)]
    pub(crate) if_drift: bool,
    /// State of the drift tests that is carried from update to update, as by `memory drift`; made when there is none
    #[arg(long, visible_alias = "drift-state", value_name = "STATE.json")]
    pub(crate) state: Option<PathBuf>,
    /// What to do about an image that cannot be read
    #[arg(long, value_enum, default_value = "fail", value_name = "POLICY")]
    pub(crate) on_bad_image: OnBadImageArg,
    /// Folder of versions for the result; the target itself when absent
    #[arg(short = 'o', long, value_name = "FOLDER")]
    pub(crate) output: Option<String>,
    #[command(flatten)]
    pub(crate) version: VersionArgs,
}

#[derive(Debug, Args)]
pub(crate) struct MergeArgs {
    /// Versions that were updated apart
    #[arg(required = true, value_name = "VERSION")]
    pub(crate) versions: Vec<String>,
    /// The version that all of them started from
    #[arg(long, value_name = "VERSION")]
    pub(crate) base: Option<String>,
    /// A version that learned all the data in one place; what merging lost against it is shown
    #[arg(long, value_name = "VERSION")]
    pub(crate) pooled: Option<String>,
    /// How methods without statistics are merged
    #[arg(long, value_enum, default_value = "linear", value_name = "MERGE")]
    pub(crate) merge: super::MergeArg,
    /// One weight for each version, for those methods; equal shares when absent
    #[arg(long, value_delimiter = ',', allow_negative_numbers = true, value_name = "W[,W..]")]
    pub(crate) weights: Vec<f64>,
    /// Folder of versions for the result
    #[arg(short = 'o', long, value_name = "FOLDER")]
    pub(crate) output: String,
    #[command(flatten)]
    pub(crate) version: VersionArgs,
}

#[derive(Debug, Args)]
pub(crate) struct MemoryArgs {
    #[command(subcommand)]
    pub(crate) command: MemoryCommand,
}

/// A memory: a snapshot file, a version, or the name of a memory at work under `INARCH_HOME`.
#[derive(Debug, Args)]
pub(crate) struct MemoryTarget {
    /// A snapshot file, a folder of versions, an adapter of the registry, or the name of a memory at work
    pub(crate) memory: String,
    /// Key file, where it is encrypted
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MemoryCommand {
    /// What a memory holds
    Show {
        #[command(flatten)]
        target: MemoryTarget,
        /// List the samples
        #[arg(long)]
        samples: bool,
    },
    /// Take samples out, and their influence on the adapter where that is exact
    Forget(ForgetArgs),
    /// Write an exact snapshot
    Export {
        #[command(flatten)]
        target: MemoryTarget,
        /// The snapshot to write
        file: PathBuf,
        /// Encrypt it under this key
        #[arg(long, value_name = "FILE")]
        seal: Option<PathBuf>,
    },
    /// Put a snapshot to work, or join it with a memory at work
    Import {
        /// The snapshot
        file: PathBuf,
        /// Name of the memory at work
        name: String,
        /// Key file of the snapshot, where it is encrypted
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// Encrypt the memory at work under this key
        #[arg(long, value_name = "FILE")]
        seal: Option<PathBuf>,
    },
    /// Remember the training images of a data set
    Add(AddArgs),
    /// Drop what has been in a memory at work for longer than its `most_days`
    Expire {
        /// Name of the memory at work
        name: String,
        /// Key file, where it is encrypted
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
    /// Check a memory, against a backbone where one is given
    Verify {
        #[command(flatten)]
        target: MemoryTarget,
        /// Check that its latents are of this backbone
        #[arg(short = 'b', long, value_name = "BACKBONE")]
        backbone: Option<String>,
        #[command(flatten)]
        device: DeviceArgs,
    },
    /// Compare new images with what is remembered
    Drift(DriftArgs),
    /// Make a key file
    Key {
        /// The file to write
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ForgetArgs {
    /// A folder of versions, an adapter of the registry as in `chest@prod`, or the name of a memory at work
    pub(crate) target: String,
    /// Ids, in full or without the hash behind `#`
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<String>,
    /// The samples themselves, where the memory does not hold them any more
    #[arg(short = 'd', long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) shown: ShownArgs,
    /// What to do about an image of `-d` that cannot be read
    #[arg(long, value_enum, default_value = "fail", value_name = "POLICY", requires = "data")]
    pub(crate) on_bad_image: OnBadImageArg,
    /// Remove older versions that know the samples as well; in a registry retention does that
    #[arg(long)]
    pub(crate) purge: bool,
    /// Leave the adapter as it is
    #[arg(long)]
    pub(crate) memory_only: bool,
    #[command(flatten)]
    pub(crate) version: VersionArgs,
}

#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// Name of the memory at work; made when there is none
    pub(crate) name: String,
    /// The data
    #[arg(short = 'd', long, value_name = "PATH")]
    pub(crate) data: PathBuf,
    #[command(flatten)]
    pub(crate) reading: ReadingArgs,
    /// Override one setting of a new memory, e.g. `budget_bytes=65536`
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// What to do about an image that cannot be read
    #[arg(long, value_enum, default_value = "fail", value_name = "POLICY")]
    pub(crate) on_bad_image: OnBadImageArg,
    #[command(flatten)]
    pub(crate) version: VersionArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DriftArgs {
    #[command(flatten)]
    pub(crate) target: MemoryTarget,
    /// New images
    #[arg(short = 'd', long, value_name = "PATH")]
    pub(crate) data: PathBuf,
    #[command(flatten)]
    pub(crate) shown: ShownArgs,
    /// What to do about an image that cannot be read
    #[arg(long, value_enum, default_value = "fail", value_name = "POLICY")]
    pub(crate) on_bad_image: OnBadImageArg,
    /// Backbone: a folder, a checkpoint or a name
    #[arg(short = 'b', long, value_name = "BACKBONE", default_value = "pocket")]
    pub(crate) backbone: String,
    /// State that is carried from batch to batch; made when there is none
    #[arg(long, value_name = "STATE.json")]
    pub(crate) state: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}
