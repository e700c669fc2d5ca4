//! The one error type of this crate.

use std::path::PathBuf;
use std::sync::Arc;

/// Result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a server does not start, or an adapter is not served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A fault of files, backbones or texts.
    #[error(transparent)]
    Core(#[from] inarch_core::Error),
    /// A fault of an adapter.
    #[error(transparent)]
    Peft(#[from] inarch_peft::Error),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
    /// The certificate or its key cannot be used.
    #[error("cannot use certificate `{certificate}` with key `{key}`: {source}")]
    Tls {
        /// The certificate chain.
        certificate: PathBuf,
        /// The private key.
        key: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file of tokens cannot be used.
    #[error("`{path}` is no valid file of tokens: {reason}")]
    Tokens {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// No adapter goes by this name.
    #[error("no adapter `{reference}` is known")]
    UnknownModel {
        /// The name, with version or alias.
        reference: String,
        /// Names that are known.
        candidates: Vec<String>,
    },
    /// A name is taken by another version than the caller expects.
    #[error("adapter `{name}`: expected {expected}, found {found}")]
    Conflict {
        /// The name.
        name: String,
        /// The digest or absence that was expected.
        expected: String,
        /// What the name stands for.
        found: String,
    },
    /// An adapter does not fit into the memory that is set aside.
    #[error("adapter `{name}` needs {bytes} bytes, and {limit} are set aside for all adapters")]
    TooLarge {
        /// The name.
        name: String,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A folder's content is not what it was when its name was given.
    #[error("adapter `{name}`: the files in `{folder}` have changed since it was loaded; load it again")]
    Changed {
        /// The name.
        name: String,
        /// The folder.
        folder: PathBuf,
    },
    /// The gate of the registry said no, or nobody who is trusted has signed.
    #[error("{what}: {reason}")]
    Refused {
        /// What was asked for.
        what: String,
        /// Why not.
        reason: String,
    },
    /// The place that adapters come from cannot answer.
    #[error("the registry cannot be read: {reason}")]
    Source {
        /// Its words.
        reason: String,
    },
    /// One that others wait for as well.
    #[error("{0}")]
    Shared(Arc<Error>),
}
