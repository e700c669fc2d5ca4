//! Laws of learning in parts: what is measured, and that parts, merges and removals are exact.

mod ageing;
mod branches;
mod exact;
mod experts;
mod merging;
mod mtil;
mod prompt_pools;
mod prompts;
mod split_digits;
mod strategies;
mod turns;
mod views;
