//! The one error type of this crate.

use std::path::{Path, PathBuf};

/// Result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong between a file and a feature.
///
/// Each variant carries what was expected and what was found; the command line adds suggestions.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to read or write a file.
    #[error("cannot {action} `{path}`: {source}")]
    Io {
        /// What was tried, as a verb: `read`, `write`, `list`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file was read but its content is not what its format asks for.
    #[error("`{path}` is not a valid {format}: {reason}")]
    Malformed {
        /// What the file should have been, e.g. `CLIP checkpoint`.
        format: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// One image could not be decoded.
    #[error("image `{path}` cannot be decoded: {reason}")]
    BadImage {
        /// The image, or the place it came from.
        path: PathBuf,
        /// The decoder's words.
        reason: String,
    },
    /// A tensor of a checkpoint is missing or has the wrong shape.
    #[error("tensor `{name}` of `{path}`: expected {expected}, found {found}")]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name in the file.
        name: String,
        /// The shape or presence that was expected.
        expected: String,
        /// What was found.
        found: String,
    },
    /// Two things that must agree do not.
    #[error("{what}: expected {expected}, found {found}")]
    Mismatch {
        /// What was compared.
        what: String,
        /// The expected value.
        expected: String,
        /// The found value.
        found: String,
    },
    /// A name is not one of the known ones.
    #[error("unknown {kind}: `{name}`")]
    Unknown {
        /// What kind of name, e.g. `class`, `device`.
        kind: &'static str,
        /// The name as given.
        name: String,
        /// All that could have been meant.
        candidates: Vec<String>,
    },
    /// A value is outside its domain.
    #[error("{what}: {reason}")]
    Invalid {
        /// The setting or input.
        what: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The identity of two artefacts differs, so using them together would give wrong answers.
    #[error("refused: {what}: expected {expected}, found {found}")]
    Refused {
        /// What was compared.
        what: String,
        /// The expected identity.
        expected: String,
        /// The found identity.
        found: String,
    },
    /// What belongs together is learned from and measured on, so that the measure would be too good.
    #[error("refused: `{path}`: group `{group}` is in {splits} ({parted} of {groups} groups are in several splits)")]
    Leak {
        /// The data set.
        path: PathBuf,
        /// One such group.
        group: String,
        /// Its splits.
        splits: String,
        /// How many there are.
        parted: usize,
        /// Of how many.
        groups: usize,
    },
    /// The user asked to stop; what was done so far is saved.
    #[error("interrupted: {saved}")]
    Interrupted {
        /// Where the state is and how to continue.
        saved: String,
    },
}

impl Error {
    /// A closure for `map_err` that adds the path to an operating-system error.
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    /// A malformed file.
    pub fn malformed(format: &'static str, path: &Path, reason: impl ToString) -> Self {
        Self::Malformed { format, path: path.to_path_buf(), reason: reason.to_string() }
    }

    /// A value outside its domain.
    pub fn invalid(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), reason: reason.into() }
    }

    /// Two things that must agree.
    pub fn mismatch(what: impl Into<String>, expected: impl ToString, found: impl ToString) -> Self {
        Self::Mismatch { what: what.into(), expected: expected.to_string(), found: found.to_string() }
    }
}
