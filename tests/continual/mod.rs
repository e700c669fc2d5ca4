//! Laws of learning in parts: what is measured, and that parts, merges and removals are exact.

mod branches;
mod exact;
mod mtil;
mod prompts;
mod strategies;
