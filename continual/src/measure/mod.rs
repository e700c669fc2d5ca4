//! What a stream is judged by.

mod flips;
mod matrix;

pub use flips::{negative_flips, positive_flips};
pub use matrix::{AccuracyMatrix, Measures};
