//! What can be wrong with a page.

use std::error::Error;

/// Why a page cannot be rendered. Each variant names the section by its title.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// A number that is NaN, infinite, or outside its domain.
    #[error("report section `{section}`: {what} must be {expected}, found: {found}")]
    Number {
        /// The section.
        section: String,
        /// Which number.
        what: String,
        /// Its domain.
        expected: &'static str,
        /// The number.
        found: f64,
    },
    /// Parts whose sizes do not agree.
    #[error("report section `{section}`: expected {expected} {what}, found: {found}")]
    Size {
        /// The section.
        section: String,
        /// What was counted.
        what: String,
        /// How many there must be.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// Curves without a point.
    #[error("report section `{section}`: curves need at least one point; leave the section out until there is one")]
    NoPoint {
        /// The section.
        section: String,
    },
    /// An image that would have to be loaded from elsewhere.
    #[error("report section `{section}`: image {item} must be embedded as `data:image/..`, found: `{found}`")]
    Image {
        /// The section.
        section: String,
        /// Which image, from 0.
        item: usize,
        /// How its address begins.
        found: String,
    },
    /// The plot could not be drawn.
    #[error("report section `{section}`: the plot could not be drawn")]
    Drawing {
        /// The section.
        section: String,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}
