//! The one error type of this crate.

use std::path::{Path, PathBuf};

use crate::digest::Digest;

/// Result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong between a trained adapter and a device that uses it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to read or write.
    #[error("cannot {action} `{path}`: {source}")]
    Io {
        /// What was tried, as a verb: `read`, `write`, `list`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Content that is not what its format asks for.
    #[error("{what} is not a valid {format}: {reason}")]
    Malformed {
        /// What the content should have been.
        format: &'static str,
        /// Where it came from: a path, a digest, an address.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// A name, version, alias or reference that is not written as one.
    #[error("`{text}` is not a valid {kind}: {reason}")]
    Reference {
        /// What it should have been: `name`, `version`, `alias`, `reference`.
        kind: &'static str,
        /// What was given.
        text: String,
        /// The rule that it breaks.
        reason: String,
    },
    /// Something that does not exist.
    #[error("no {kind} `{name}`{place}")]
    Unknown {
        /// What was looked for: `adapter`, `version`, `alias`, `blob`.
        kind: &'static str,
        /// What was given.
        name: String,
        /// Where it was looked for, e.g. ` of adapter `chest``; may be empty.
        place: String,
        /// What there is instead.
        candidates: Vec<String>,
    },
    /// Somebody else was first: the state is not the expected one.
    #[error("{what}: expected {expected}, found {found}")]
    Conflict {
        /// What was compared.
        what: String,
        /// The expected value.
        expected: String,
        /// The value found.
        found: String,
    },
    /// Content that does not have the identity it goes by.
    #[error("{what} is damaged: expected {expected}, found {found}")]
    Damaged {
        /// The blob, file or address.
        what: String,
        /// The digest or size that was expected.
        expected: String,
        /// What was found.
        found: String,
    },
    /// A gate, a signature or a compatibility check said no.
    #[error("{what}: {reason}")]
    Refused {
        /// What was asked for.
        what: String,
        /// Why it is refused.
        reason: String,
    },
    /// Content over a bound that protects memory, disk or time.
    #[error("{what} is too large: at most {limit} {unit} are taken, found {found}")]
    TooLarge {
        /// The file, blob or list.
        what: String,
        /// What is counted: `bytes`, `layers`, `entries`.
        unit: &'static str,
        /// The bound.
        limit: u64,
        /// What was found.
        found: u64,
    },
    /// Another process holds the lock.
    #[error("registry `{path}` is being changed by another process ({holder}) for over {seconds} s")]
    Busy {
        /// The registry.
        path: PathBuf,
        /// What is known about the holder.
        holder: String,
        /// How long was waited.
        seconds: u64,
    },
    /// A registry server, bucket or folder could not be reached or did not do what was asked.
    #[error("cannot {action} `{address}`: {reason}")]
    Remote {
        /// What was tried, as a verb.
        action: &'static str,
        /// The address.
        address: String,
        /// The cause.
        reason: String,
        /// Whether another attempt may succeed.
        transient: bool,
    },
    /// A key, signature or trust file is missing or wrong.
    #[error("{what} is not trusted: {reason}")]
    Untrusted {
        /// The manifest, file or channel.
        what: String,
        /// Why.
        reason: String,
    },
}

impl Error {
    /// Wraps an I/O error with the path it happened at.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }

    pub(crate) fn malformed(format: &'static str, what: impl ToString, reason: impl ToString) -> Self {
        Self::Malformed { format, what: what.to_string(), reason: reason.to_string() }
    }

    pub(crate) fn reference(kind: &'static str, text: &str, reason: impl ToString) -> Self {
        // What is shown of hostile input is bounded.
        let text = text.chars().take(80).collect();
        Self::Reference { kind, text, reason: reason.to_string() }
    }

    pub(crate) fn unknown(kind: &'static str, name: impl ToString, place: impl ToString) -> Self {
        Self::Unknown { kind, name: name.to_string(), place: place.to_string(), candidates: Vec::new() }
    }

    pub(crate) fn damaged(what: impl ToString, expected: &Digest, found: &Digest) -> Self {
        Self::Damaged { what: what.to_string(), expected: expected.to_string(), found: found.to_string() }
    }

    pub(crate) fn refused(what: impl ToString, reason: impl ToString) -> Self {
        Self::Refused { what: what.to_string(), reason: reason.to_string() }
    }

    /// Whether the file or thing simply is not there.
    pub fn is_missing(&self) -> bool {
        match self {
            Self::Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
            Self::Unknown { .. } => true,
            _ => false,
        }
    }
}
