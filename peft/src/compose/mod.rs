//! Several adapters as one.

mod combine;
mod stack;

pub use combine::{Combination, Merge};
pub use stack::{Stack, StackConfig};
