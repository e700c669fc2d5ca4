//! The one error type of this crate.

use std::path::PathBuf;

/// Result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong in a run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A fault below: files, images, backbones, texts.
    #[error(transparent)]
    Core(#[from] inarch_core::Error),
    /// A fault of a method or an artifact.
    #[error(transparent)]
    Peft(#[from] inarch_peft::Error),
    /// A report that cannot be drawn.
    #[error(transparent)]
    Report(#[from] crate::report::ReportError),
    /// A recipe that cannot be read.
    #[error("recipe `{origin}`: {reason}")]
    Recipe {
        /// The file or setting.
        origin: String,
        /// What is wrong, where, and what to do.
        reason: String,
    },
    /// A saved run that belongs to other settings or data.
    #[error("`{path}` holds an unfinished run of other {what}; finish it with its own settings or remove the folder", path = path.display())]
    OtherRun {
        /// The run's folder.
        path: PathBuf,
        /// What differs.
        what: &'static str,
    },
    /// The loss became NaN or infinite.
    #[error(
        "the loss is {loss} at step {step}: lower the learning rate (`--set train.optimizer.lr=..`; `train.lr` for a new backbone) or check the data"
    )]
    Diverged {
        /// The step, from 0.
        step: usize,
        /// The loss.
        loss: f32,
    },
    /// A trained value ran away, though the loss stayed finite.
    #[error(
        "`{name}` has a value of {value:e} after the last step: lower the learning rate (`--set train.optimizer.lr=..`) or check the data"
    )]
    Unbounded {
        /// The tensor.
        name: String,
        /// The value.
        value: f32,
    },
    /// The towers give other values in reduced precision.
    #[error(
        "the first loss is {reduced} in the recipe's `train.precision` and {full} in f32: this backbone needs all digits; leave it at f32"
    )]
    Precision {
        /// The loss in the precision of the recipe.
        reduced: f32,
        /// In single precision.
        full: f32,
    },
    /// The user asked to stop; what was done so far is saved.
    #[error("stopped at step {step} of {steps}; run the same command again to go on from there")]
    Interrupted {
        /// Steps done.
        step: usize,
        /// Steps planned.
        steps: usize,
    },
    /// The user asked to stop while images were encoded, which is not saved.
    #[error("stopped after {done} of {total} {what}; run the same command again")]
    Stopped {
        /// What was being worked through, in the plural.
        what: &'static str,
        /// How many were done.
        done: usize,
        /// How many there are.
        total: usize,
    },
}
