//! A benchmark: strategies over a stream, seed after seed, measured after every experience.

mod evaluate;
mod page;
mod progress;
mod recipe;
mod report;
mod run;

pub use recipe::{OneOrMore, Protocol, StreamRecipe};
pub(crate) use recipe::{check_fit, fit_recipe};
pub use report::{Failure, SeedResult, StrategyResult, StreamReport};
pub use run::run_stream;
