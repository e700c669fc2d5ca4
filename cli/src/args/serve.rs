//! What may stand behind `inarch serve`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::args::DeviceArgs;

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Backbone: a folder, a checkpoint, a hub id (ORG/NAME[@REVISION]) or a name (see `inarch backbone list`)
    #[arg(short = 'b', long, value_name = "BACKBONE")]
    pub(crate) backbone: String,
    /// Adapter to keep in memory from the start: a folder, `NAME=FOLDER`, or a name of the registry; given several times
    #[arg(short = 'a', long, value_name = "ADAPTER")]
    pub(crate) adapter: Vec<String>,
    /// Address to listen on; other machines reach the server only if it is not a loopback address
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    pub(crate) host: IpAddr,
    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 8080, value_name = "PORT")]
    pub(crate) port: u16,
    /// Folder below which requests may load adapters by path; without it they may not
    #[arg(long, value_name = "FOLDER")]
    pub(crate) adapter_root: Option<PathBuf>,
    /// File of bearer tokens; without it everyone may do everything
    #[arg(long, value_name = "TOKENS.toml")]
    pub(crate) tokens: Option<PathBuf>,
    /// Certificate chain, PEM; with it the server speaks HTTPS
    #[arg(long, value_name = "CERTIFICATE.pem", requires = "tls_key")]
    pub(crate) tls_certificate: Option<PathBuf>,
    /// Private key of the certificate, PEM
    #[arg(long, value_name = "KEY.pem", requires = "tls_certificate")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Origin whose pages may call this server; given several times
    #[arg(long, value_name = "ORIGIN")]
    pub(crate) cors_origin: Vec<String>,
    /// Most images of one pass through the backbone
    #[arg(long, default_value_t = 32, value_name = "N")]
    pub(crate) batch: usize,
    /// Milliseconds that a batch waits for more images once it has one
    #[arg(long, default_value_t = 0, value_name = "MS")]
    pub(crate) batch_wait_ms: u64,
    /// Most images that wait; more are answered with 429
    #[arg(long, default_value_t = 1024, value_name = "N")]
    pub(crate) queue: usize,
    /// Threads that run the backbone
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) workers: usize,
    /// Seconds within which a request is answered or given up
    #[arg(long, default_value_t = 30, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) timeout_s: u64,
    /// MiB of adapters kept in memory
    #[arg(long, default_value_t = 1024, value_name = "MIB")]
    pub(crate) adapter_memory_mib: u64,
    /// MiB of the largest request
    #[arg(long, default_value_t = 32, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) body_mib: u32,
    /// Never write an adapter that has the machine to itself into a copy of the weights
    #[arg(long)]
    pub(crate) no_fold: bool,
    /// How requests are logged on stderr
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub(crate) log: LogFormat,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people
    Text,
    /// One JSON object a line
    Json,
    /// Nothing
    Off,
}

#[cfg(feature = "remote")]
#[derive(Debug, Args)]
pub(crate) struct LendArgs {
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// Address and port to listen on; the traffic is not encrypted, so beyond this machine it belongs into a trusted network
    /// or a tunnel. Who borrows needs the token in INARCH_DEVICE_TOKEN; without one there a token is drawn and printed
    #[arg(long, default_value = "127.0.0.1:3000", value_name = "ADDRESS:PORT")]
    pub(crate) listen: std::net::SocketAddr,
}

/// Of a binary that cannot lend: what was asked for is taken, so that the answer names the feature.
#[cfg(not(feature = "remote"))]
#[derive(Debug, Args)]
pub(crate) struct LendArgs {
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    _rest: Vec<String>,
}
