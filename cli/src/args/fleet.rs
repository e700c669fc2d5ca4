//! Keys, remotes, channels and the agent.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::DeviceArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make an ed25519 key: FILE for the secret half, FILE.pub for the public one
    Generate {
        /// The file, which must not exist
        file: PathBuf,
    },
    /// Use and take in only what trusted keys have signed, this one among them
    Trust {
        /// A key file; the public half suffices
        file: PathBuf,
        /// How many trusted keys must have signed
        #[arg(long, value_name = "N")]
        threshold: Option<usize>,
    },
    /// Trust a key no longer; without trusted keys, unsigned adapters are used again
    Distrust {
        /// A key file
        file: PathBuf,
    },
    /// The trusted keys
    List,
}

#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// NAME, NAME@ALIAS, NAME@VERSION or a digest; an alias becomes a tag there
    #[arg(value_name = "REFERENCE")]
    pub(crate) reference: String,
    /// `oci://HOST[:PORT]/PATH`, `s3://BUCKET/PATH` or a folder
    #[arg(value_name = "REMOTE")]
    pub(crate) remote: String,
    /// Do not offer the difference to the version before
    #[arg(long)]
    pub(crate) without_delta: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// NAME, NAME@TAG, NAME@VERSION or NAME@sha256:..
    #[arg(value_name = "REFERENCE")]
    pub(crate) reference: String,
    /// `oci://HOST[:PORT]/PATH`, `s3://BUCKET/PATH` or a folder
    #[arg(value_name = "REMOTE")]
    pub(crate) remote: String,
    /// Point this alias at it here
    #[arg(long, value_name = "ALIAS")]
    pub(crate) alias: Option<String>,
}

/// A channel and the keys that sign for it.
#[derive(Debug, Args)]
pub(crate) struct ChannelArgs {
    /// REMOTE#NAME, e.g. `oci://registry.clinic/adapters#stable` or `./mirror#stable`
    #[arg(value_name = "CHANNEL")]
    pub(crate) channel: String,
    /// Secret key that says what is offered; given several times, where several must sign
    #[arg(long, required = true, value_name = "FILE")]
    pub(crate) key: Vec<PathBuf>,
    /// Days after which devices stop believing that nothing is new
    #[arg(long, default_value_t = 30, value_name = "DAYS", value_parser = clap::value_parser!(i64).range(1..=3650))]
    pub(crate) fresh_days: i64,
}

/// The keys that may change all keys.
#[derive(Debug, Args)]
pub(crate) struct RootKeyArgs {
    /// Secret root key; keep it off the network
    #[arg(long, required = true, value_name = "FILE")]
    pub(crate) root_key: Vec<PathBuf>,
    /// How many root keys must sign
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) root_threshold: u64,
    /// How many of the other keys must sign
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) threshold: u64,
    /// Where the root file is written, which devices must be given
    #[arg(short = 'o', long, default_value = "root.json", value_name = "FILE")]
    pub(crate) output: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ChannelCommand {
    /// Make a channel
    Create {
        #[command(flatten)]
        channel: ChannelArgs,
        #[command(flatten)]
        roots: RootKeyArgs,
    },
    /// Change the keys; as many old root keys as must sign are needed besides the new ones
    Rotate {
        #[command(flatten)]
        channel: ChannelArgs,
        #[command(flatten)]
        roots: RootKeyArgs,
        /// Secret root key of before
        #[arg(long, value_name = "FILE")]
        old_root_key: Vec<PathBuf>,
    },
    /// Offer a version, which is pushed first, to a share of the devices
    Offer {
        /// NAME, NAME@ALIAS, NAME@VERSION or a digest
        #[arg(value_name = "REFERENCE")]
        reference: String,
        #[command(flatten)]
        channel: ChannelArgs,
        /// Share of the devices, in per cent; a share that grows only adds devices
        #[arg(long, default_value_t = 100.0, value_name = "PERCENT")]
        share: f64,
    },
    /// Offer a version no longer: devices that have it go back
    Withdraw {
        /// NAME@VERSION
        #[arg(value_name = "NAME@VERSION")]
        reference: String,
        #[command(flatten)]
        channel: ChannelArgs,
    },
    /// Sign again, so that devices go on believing; do it more often than every `--fresh-days`
    Refresh {
        #[command(flatten)]
        channel: ChannelArgs,
    },
    /// What is offered
    Show {
        /// REMOTE#NAME
        channel: String,
    },
    /// Decide from the devices' reports whether a rollout goes on; exit code 3 says stop
    Decide {
        /// NAME@VERSION
        #[arg(value_name = "NAME@VERSION")]
        reference: String,
        /// Reports of devices: files or folders of them, one JSON object a line, as `agent --json` prints
        #[arg(required = true, value_name = "REPORTS")]
        reports: Vec<PathBuf>,
        /// How many devices must have reported before it goes on
        #[arg(long, default_value_t = 5, value_name = "N")]
        least_reports: usize,
        /// Share of failures, in per cent, at which it stops
        #[arg(long, default_value_t = 5.0, value_name = "PERCENT")]
        failures: f64,
    },
}

#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    /// REMOTE#NAME, e.g. `oci://registry.clinic/adapters#stable`, or `/media/usb/mirror#stable` without a network
    #[arg(value_name = "CHANNEL")]
    pub(crate) channel: String,
    /// Backbone for the self-test
    #[arg(short = 'b', long, value_name = "BACKBONE")]
    pub(crate) backbone: String,
    /// The channel's root file; needed the first time
    #[arg(long, value_name = "root.json")]
    pub(crate) root: Option<PathBuf>,
    /// Name of this device, which decides its place in staged rollouts; the machine's own when absent
    #[arg(long = "name", value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// The alias that says what is in use: serve NAME@ALIAS
    #[arg(long, default_value = "active", value_name = "ALIAS")]
    pub(crate) alias: String,
    /// One step, then end
    #[arg(long)]
    pub(crate) once: bool,
    /// Seconds between two steps, give or take a fifth
    #[arg(long, default_value_t = 300, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) interval: u64,
    /// How many health checks in a row a new version must pass
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub(crate) checks: u32,
    /// Program whose success says that the version in use works, given NAME and NUMBER; the self-test when absent
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) health: Option<PathBuf>,
    /// Most seconds that this program may take; then it counts as failed
    #[arg(long, default_value_t = 60, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) health_s: u64,
    /// The most bytes of one version
    #[arg(long, default_value_t = 1 << 30, value_name = "BYTES")]
    pub(crate) max_bytes: u64,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}
