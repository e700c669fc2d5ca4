//! What learns from a stream: in closed form, from its memory, or by gradient steps.

mod analytic;
mod carried;
mod config;
mod escort;
mod gradient;
mod head;
mod memory_head;
mod recall;

use std::path::Path;

use inarch_core::data::Example;
use inarch_core::text::Template;
use inarch_peft::Artifact;
use inarch_recipes::Session;

pub use analytic::AnalyticLearner;
pub(crate) use carried::Carried;
pub use config::LearnerConfig;
pub use gradient::GradientLearner;
pub(crate) use head::{empty_statistics, solve_head};
pub use memory_head::MemoryHeadLearner;

use crate::error::Result;

/// What a learner works in.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    /// Backbone and data.
    pub session: &'a Session<'a>,
    /// Templates of the class names.
    pub templates: &'a [Template],
    /// Decides every draw.
    pub seed: u64,
}

/// What has arrived.
#[derive(Clone, Copy)]
pub struct Arrival<'a> {
    /// Its number, from 0.
    pub index: usize,
    /// All classes known by now; labels are indices into it. Classes are only ever added at the end.
    pub classes: &'a [String],
    /// What is to be learned.
    pub train: &'a [Example],
    /// Everything that came before. For the upper bound that trains on all of it, and for nobody else.
    pub earlier: &'a [Example],
    /// Where it comes from, for people.
    pub source: &'a str,
    /// When it came, in seconds since 1970; in a benchmark its number.
    pub time: u64,
    /// In an online stream, the size of the chunks in which it comes.
    pub chunk: Option<usize>,
}

/// Learns arrival after arrival.
pub trait Learner {
    /// Learns what has arrived. `folder` holds the state of a long training, which is continued when it is there.
    ///
    /// # Errors
    /// Images that cannot be read, a training that diverges or is stopped.
    fn learn(&mut self, arrival: &Arrival<'_>, setting: &Setting<'_>, folder: &Path) -> Result<()>;

    /// The adapter as it is now, over all classes known.
    ///
    /// # Errors
    /// Nothing learned yet.
    fn artifact(&self, setting: &Setting<'_>) -> Result<Artifact>;

    /// Writes everything that [`learn`](Self::learn) needs to go on.
    ///
    /// # Errors
    /// An I/O error naming the file.
    fn save(&self, folder: &Path) -> Result<()>;

    /// Reads it again.
    ///
    /// # Errors
    /// A file that is missing, damaged or of other settings.
    fn load(&mut self, folder: &Path, setting: &Setting<'_>) -> Result<()>;

    /// Bytes that are carried on to the next arrival: the adapter, statistics, memory.
    fn bytes(&self) -> u64;
}
