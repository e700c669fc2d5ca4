//! Several adapters as one.

mod combine;
mod fusion;
mod stack;

pub use combine::{Combination, Merge};
pub use fusion::{Fusion, FusionConfig};
pub use stack::{Stack, StackConfig, stacked};
