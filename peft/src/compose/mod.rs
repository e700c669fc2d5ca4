//! Several adapters as one.

mod combine;
mod fusion;
mod reading;
mod stack;

pub use combine::{Combination, Merge};
pub use fusion::{Fusion, FusionConfig};
pub use reading::CommonReading;
pub use stack::{Stack, StackConfig, stacked};
