//! `inarch registry ..`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use inarch_registry::MetricBound;

use super::{ChannelCommand, DeviceArgs, KeysCommand, PullArgs, PushArgs};

#[derive(Debug, Args)]
pub(crate) struct RegistryArgs {
    #[command(subcommand)]
    pub(crate) command: RegistryCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RegistryCommand {
    /// What is there: adapters, or versions that match
    List(ListArgs),
    /// All about one version
    Show {
        /// NAME, NAME@ALIAS, NAME@VERSION or a digest
        #[arg(value_name = "REFERENCE")]
        reference: String,
    },
    /// Publish an adapter as the next version of a name
    Publish(PublishArgs),
    /// Point an alias at a version
    Tag(TagArgs),
    /// Delete an alias
    Untag {
        /// NAME@ALIAS
        #[arg(value_name = "NAME@ALIAS")]
        alias: String,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Point an alias at a version after its gate and its self-test said yes
    Promote(PromoteArgs),
    /// Point an alias back to where it was
    Rollback(RollbackArgs),
    /// What happened to an adapter, newest first
    Log {
        /// NAME
        name: String,
        /// The most entries
        #[arg(long, default_value_t = 50, value_name = "N")]
        limit: usize,
    },
    /// How two versions differ
    Diff {
        /// The one before
        before: String,
        /// The one after
        after: String,
    },
    /// Check every byte of a version, or of all
    Verify {
        /// NAME, NAME@ALIAS, NAME@VERSION or a digest; everything when absent
        reference: Option<String>,
    },
    /// Print a folder with the files of a version, for other programs; never change them
    Checkout {
        /// NAME, NAME@ALIAS, NAME@VERSION or a digest
        reference: String,
    },
    /// Keep a version whatever `gc --keep` says
    Pin {
        /// NAME@VERSION
        reference: String,
        /// No longer
        #[arg(long)]
        remove: bool,
    },
    /// Remove what nothing refers to, and old versions with --keep
    Gc {
        /// Keep the newest N versions of each name, and all that is aliased, pinned, in use, or rolled back to
        #[arg(long, value_name = "N")]
        keep: Option<usize>,
        /// Only say what would be removed
        #[arg(long)]
        dry_run: bool,
    },
    /// Write versions into one file, for machines without a network
    Export {
        /// NAME, NAME@ALIAS, NAME@VERSION or a digest
        #[arg(required = true, value_name = "REFERENCE")]
        references: Vec<String>,
        /// The file
        #[arg(short = 'o', long, value_name = "BUNDLE.tar")]
        output: PathBuf,
    },
    /// Take in the versions of a file that `export` wrote, or of any OCI image layout
    Import {
        /// The file or folder
        bundle: PathBuf,
        /// Set its aliases here, too
        #[arg(long)]
        aliases: bool,
    },
    /// Push a version with its signatures to a registry server, a bucket or a folder
    Push(PushArgs),
    /// Pull a version: what is missing here only, by difference where there is one
    Pull(PullArgs),
    /// Sign a version
    Sign {
        /// NAME, NAME@ALIAS, NAME@VERSION or a digest
        reference: String,
        /// Secret key file
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// Keys, and which of them are trusted
    Keys {
        #[command(subcommand)]
        command: KeysCommand,
    },
    /// What a fleet shall run
    Channel {
        #[command(subcommand)]
        command: ChannelCommand,
    },
    /// Make the search index and `index.json` again from the blobs
    Reindex,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Text in the name
    pub(crate) name: Option<String>,
    /// Method
    #[arg(short = 'm', long, value_name = "METHOD")]
    pub(crate) method: Option<String>,
    /// Backbone: its name, its digest or the beginning of that
    #[arg(short = 'b', long, value_name = "BACKBONE")]
    pub(crate) backbone: Option<String>,
    /// Digest of the training data, or its beginning
    #[arg(long, value_name = "DIGEST")]
    pub(crate) data: Option<String>,
    /// Label
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) label: Vec<(String, String)>,
    /// Bound on a metric, e.g. `accuracy>=0.9`
    #[arg(long = "where", value_name = "METRIC>=X")]
    pub(crate) bounds: Vec<MetricBound>,
    /// The most versions of each name, from the newest
    #[arg(short = 'n', long, default_value_t = 1, value_name = "N")]
    pub(crate) limit: usize,
}

#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    /// Folder that `inarch fit` wrote, or one of versions, of which the one in force is published
    #[arg(value_name = "FOLDER")]
    pub(crate) folder: PathBuf,
    /// Leave out what only an update needs: statistics, rehearsal memory, probe
    #[arg(long)]
    pub(crate) for_devices: bool,
    /// Name, with a semantic version where wanted: `chest` or `chest@1.4.0`
    #[arg(value_name = "NAME[@RELEASE]")]
    pub(crate) name: String,
    /// Version it was made from
    #[arg(long, value_name = "REFERENCE")]
    pub(crate) parent: Vec<String>,
    /// Label to be found by
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) label: Vec<(String, String)>,
    /// Run its self-test beside this backbone first
    #[arg(short = 'b', long, value_name = "BACKBONE")]
    pub(crate) backbone: Option<String>,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// How an alias is changed.
#[derive(Debug, Args)]
pub(crate) struct ChangeArgs {
    /// Only if it is at this version now, or `none`
    #[arg(long, value_name = "VERSION")]
    pub(crate) expect: Option<String>,
    /// Why, for the log
    #[arg(long, default_value = "", value_name = "TEXT")]
    pub(crate) why: String,
}

#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    /// NAME, NAME@ALIAS, NAME@VERSION or a digest
    #[arg(value_name = "REFERENCE")]
    pub(crate) reference: String,
    /// The alias, e.g. `prod`
    pub(crate) alias: String,
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PromoteArgs {
    /// NAME, NAME@ALIAS, NAME@VERSION or a digest
    #[arg(value_name = "REFERENCE")]
    pub(crate) reference: String,
    /// The alias, e.g. `prod`
    pub(crate) alias: String,
    /// Backbone for the self-test
    #[arg(short = 'b', long, value_name = "BACKBONE", required_unless_present = "without_self_test")]
    pub(crate) backbone: Option<String>,
    /// Promote without the self-test; whoever uses it runs it anyway
    #[arg(long, conflicts_with = "backbone")]
    pub(crate) without_self_test: bool,
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    /// NAME@ALIAS
    #[arg(value_name = "NAME@ALIAS")]
    pub(crate) alias: String,
    /// To this earlier version; the one before when absent
    #[arg(long, value_name = "VERSION")]
    pub(crate) to: Option<String>,
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    if key.is_empty() { Err("the key is empty".into()) } else { Ok((key.into(), value.into())) }
}
