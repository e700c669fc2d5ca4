//! Methods that change a tower's tokens: learned prompts.

mod coop;

pub use coop::{Coop, CoopConfig};
