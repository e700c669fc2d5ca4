//! The one error type of this crate.

use std::path::PathBuf;

/// Result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong between a stream and a version.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A fault below: files, images, backbones, data.
    #[error(transparent)]
    Core(#[from] inarch_core::Error),
    /// A fault of a method or an artifact.
    #[error(transparent)]
    Peft(#[from] inarch_peft::Error),
    /// A fault of a training or a recipe.
    #[error(transparent)]
    Recipe(#[from] inarch_recipes::Error),
    /// Latents of another backbone or image preparation.
    #[error("refused: {what} holds latents of {expected}, this is {found}: latents of one mean nothing to the other")]
    Stale {
        /// The memory or statistics.
        what: String,
        /// What they were made with.
        expected: String,
        /// What is at hand.
        found: String,
    },
    /// A memory or statistics that are encrypted, and no key or the wrong one.
    #[error("`{path}` is encrypted: {reason}", path = path.display())]
    Sealed {
        /// The file.
        path: PathBuf,
        /// What is wrong with the key.
        reason: String,
    },
    /// Samples that cannot be taken out exactly.
    #[error("refused: {reason}")]
    CannotForget {
        /// Why, with the way out.
        reason: String,
    },
    /// A memory that holds other samples than its owner.
    #[error("database of the memory `{path}`: {source}", path = path.display())]
    Database {
        /// Its folder.
        path: PathBuf,
        /// The cause.
        source: sled::Error,
    },
    /// A place for a version that cannot take one.
    #[error("target `{target}`: {reason}")]
    Target {
        /// What was named.
        target: String,
        /// Why not, with the way out.
        reason: String,
    },
    /// What the keeper of the versions refuses: a signature, a check, a target that was moved meanwhile.
    #[error("{0}")]
    Refused(String),
    /// A training that was stopped and whose state could not be kept.
    #[error("stopped at step {step} of {steps}; nothing was kept, and the same command begins anew")]
    Stopped {
        /// The steps that were done.
        step: usize,
        /// The steps of the whole training.
        steps: usize,
    },
    /// The gate said no.
    #[error("refused by the gate: {0}")]
    Gate(String),
}

impl Error {
    /// A setting outside its domain.
    pub(crate) fn setting(what: impl Into<String>, reason: impl Into<String>) -> Self {
        inarch_core::Error::invalid(what, reason).into()
    }
}
