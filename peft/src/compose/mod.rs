//! Several adapters as one.

mod stack;

pub use stack::{Stack, StackConfig};
