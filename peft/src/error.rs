//! The one error type of this crate.

/// Result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong between a config and an adapted classifier.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A fault below: files, backbones, texts.
    #[error(transparent)]
    Core(#[from] inarch_core::Error),
    /// A target pattern selects no site.
    #[error("target `{pattern}` matches no linear site of this backbone; one of its sites is `{example}`")]
    NoTarget {
        /// The pattern.
        pattern: String,
        /// A site that exists.
        example: String,
    },
    /// An adapter that has its own row for each class was asked about another class.
    #[error("class `{class}` is not among the {known} classes this `{method}` adapter was trained for")]
    UnknownClass {
        /// The class asked for.
        class: String,
        /// The adapter's method.
        method: &'static str,
        /// How many classes it knows.
        known: usize,
        /// Their names.
        candidates: Vec<String>,
    },
    /// A setting of a method is outside its domain.
    #[error("method setting `{setting}`: {reason}")]
    Setting {
        /// The setting's name.
        setting: &'static str,
        /// What is wrong and what to do.
        reason: String,
    },
    /// An artifact gives other outputs than when it was saved.
    #[error("self-test of `{artifact}` failed: expected {expected}, found {found} (tolerance {tolerance})")]
    SelfTest {
        /// The artifact.
        artifact: String,
        /// The stored output.
        expected: f32,
        /// The output now.
        found: f32,
        /// The allowed difference.
        tolerance: f32,
    },
}
