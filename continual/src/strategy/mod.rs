//! Strategies against forgetting for adapters that are trained by steps: what happens before and after an experience, and the
//! loss in between.

mod among;
mod bic;
mod branches;
mod build;
mod coda_prompt;
mod config;
mod contexts;
mod defaults;
mod distil;
mod domains;
mod dual_prompt;
mod experts;
mod features;
mod gem;
mod gss;
mod icarl;
mod importance;
mod inflora;
mod k_means;
mod mir;
mod moe_adapters;
mod needs;
mod o_lora;
mod own_classes;
mod reconstruction;
mod replay;
mod s_prompts;
mod sd_lora;
mod slca;
mod subspace;
mod succession;
mod teacher;
mod weights;

use std::collections::BTreeMap;

use inarch_core::Seed;
use inarch_core::data::Example;
use inarch_peft::{Adapter, Loss, MethodConfig, Parameters};
use inarch_recipes::{Change, Moment, Recipe, Session};

pub(crate) use config::GRADIENT_STRATEGIES;
pub use config::GradientConfig;

use crate::error::Result;
use crate::memory::{Memory, MemoryConfig, Sample, Sampler};

/// One training on one experience, as a strategy sees it. An experience that comes in chunks has a training for each of them.
pub struct Episode<'a> {
    /// Backbone and data.
    pub session: &'a Session<'a>,
    /// Method and optimisation.
    pub recipe: &'a Recipe,
    /// The experience's number, from 0.
    pub index: usize,
    /// The training's number in the experience, from 0.
    pub training: usize,
    /// How many trainings the experience has.
    pub trainings: usize,
    /// When it came; samples of the memory that came at another time are of other experiences.
    pub time: u64,
    /// All classes known now.
    pub classes: &'a [String],
    /// How many of them were known before the experience.
    pub before: usize,
    /// The adapter that training starts from, with rows for all classes.
    pub start: &'a Adapter,
    /// The adapter as it was before the experience, with rows for the classes known then.
    pub teacher: Option<&'a Adapter>,
    /// A fresh adapter with rows for all classes: where it all began.
    pub initial: &'a Adapter,
    /// The examples that the epochs go through.
    pub train: &'a [Example],
    /// What is rehearsed from: samples of earlier experiences, and of this one where the strategy asks for them.
    pub memory: Option<&'a Memory>,
    /// Its samples as examples, in its order, in the centre view.
    pub rehearsal: &'a [Example],
    /// Its samples as examples in every view that it keeps: [`rehearsal`](Self::rehearsal), then all in the next view. Batches are
    /// joined by these.
    pub views: &'a [Example],
}

/// What stands before the id of a sample of the memory where it is an example.
pub(crate) const REMEMBERED: &str = "memory/";

/// The id in the memory of an example that is one of its samples, in the centre view.
pub(crate) fn remembered_id(example: &Example) -> &str {
    example.id.strip_prefix(REMEMBERED).unwrap_or(&example.id)
}

impl Episode<'_> {
    /// Whether an experience begins with this training.
    pub(crate) fn is_first(&self) -> bool {
        self.training == 0
    }

    /// Whether the experience is over with this training.
    pub(crate) fn is_last(&self) -> bool {
        self.training + 1 == self.trainings
    }

    /// Whether a sample of the memory is of an experience before: all are when one begins, whenever they came.
    fn is_past(&self, sample: &Sample) -> bool {
        self.is_first() || sample.time != self.time
    }

    /// The samples of experiences before, with their positions in the memory.
    pub(crate) fn past(&self) -> impl Iterator<Item = (usize, &Sample)> {
        let samples = self.memory.into_iter().flat_map(Memory::samples).enumerate();
        samples.filter(|(_, sample)| self.is_past(sample))
    }

    /// Everything that a batch may hold, in the order of [`Moment::examples`].
    pub(crate) fn seen(&self) -> Vec<Example> {
        [self.train, self.views].concat()
    }
}

/// What there is before a training, for a strategy that chooses what it starts from.
#[derive(Clone, Copy)]
pub struct Beginning<'a> {
    /// Backbone and data.
    pub session: &'a Session<'a>,
    /// Method and optimisation.
    pub recipe: &'a Recipe,
    /// All classes known now.
    pub classes: &'a [String],
    /// The adapter before, grown by new classes.
    pub grown: &'a Adapter,
    /// The examples that the epochs will go through.
    pub train: &'a [Example],
}

/// What a training leaves.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What the next training starts from.
    pub trained: Adapter,
    /// What answers until then.
    pub answer: Adapter,
    /// The answer's method, where it is not the one that is trained.
    pub method: Option<MethodConfig>,
}

impl Outcome {
    /// One adapter that answers and is trained further.
    pub fn of(adapter: Adapter) -> Self {
        Self { trained: adapter.clone(), answer: adapter, method: None }
    }
}

/// Samples on their way into the memory.
pub struct Offer<'a> {
    /// The adapter that has learned them.
    pub adapter: &'a Adapter,
    /// They as examples.
    pub examples: &'a [Example],
    /// They as samples, in the same order.
    pub samples: Vec<Sample>,
}

/// What a strategy trains on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// What has arrived.
    Arrival,
    /// Everything so far, from a fresh start: the upper bound.
    Everything,
    /// The memory alone, from a fresh start.
    Memory,
}

/// Rows that join each batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rehearsal {
    /// Samples in a draw.
    pub rows: usize,
    /// Independent draws, one behind the other.
    pub draws: usize,
}

/// A strategy: hooks around a training and a loss that is returned. The defaults do nothing against forgetting.
pub trait Strategy {
    /// Rows of the memory that join each batch; `None` for a strategy without a memory.
    fn rehearsal(&self) -> Option<Rehearsal> {
        None
    }

    /// Positions of the memory that join the batch of a step, by `draws` alone; the same number in every step of a training. In
    /// which of its views a sample is seen is drawn beside that.
    fn rehearse(&self, memory: &Memory, draws: Seed) -> Vec<usize> {
        let Some(Rehearsal { rows, draws: count }) = self.rehearsal() else { return Vec::new() };
        (0..count).flat_map(|draw| memory.draw(rows, draws.split(draw))).collect()
    }

    /// Whether what arrives is rehearsed as well: a training then draws from the memory as it is when that has been offered to it.
    fn rehearses_arrival(&self) -> bool {
        false
    }

    /// Which samples stay in the memory, where that is part of the strategy.
    fn sampler(&self) -> Option<Sampler> {
        None
    }

    /// Whether an example is kept out of every training, to judge by.
    fn withholds(&self, id: &str, memory: &MemoryConfig) -> bool {
        let _ = (id, memory);
        false
    }

    /// Whether samples in the memory carry the scores they had when they were learned.
    fn holds_scores(&self) -> bool {
        false
    }

    /// The method and the adapter that a training starts from, where that is more than the adapter before, grown by new classes. It
    /// must depend on nothing that changes, so that a run can be continued.
    ///
    /// # Errors
    /// A method that the strategy cannot train, and whatever a look at the data meets.
    fn start(&self, beginning: &Beginning<'_>) -> Result<Option<(MethodConfig, Adapter)>> {
        let _ = beginning;
        Ok(None)
    }

    /// A training begins. What is gathered over several trainings of one experience need not be part of the
    /// [`state`](Self::state): a run that is continued goes through all of them.
    ///
    /// # Errors
    /// Whatever a look at the data meets.
    fn begin(&mut self, episode: &Episode<'_>) -> Result<()> {
        let _ = episode;
        Ok(())
    }

    /// Whether each step that rehearses is preceded by a virtual one ([`Moment::foresight`]).
    fn foresees(&self) -> bool {
        false
    }

    /// Factor on the learning rate of a parameter of a method, by its path; with 0 it stands still.
    fn rate(&self, method: &MethodConfig, parameter: &str) -> f64 {
        let _ = (method, parameter);
        1.0
    }

    /// The loss of a step.
    fn loss(&self, moment: &Moment<'_>, episode: &Episode<'_>) -> Loss {
        let _ = episode;
        moment.adapter.learner().loss(moment.step)
    }

    /// Whether it looks at every step.
    fn watches(&self) -> bool {
        false
    }

    /// A step was taken.
    fn stepped(&mut self, change: &Change<'_>) {
        let _ = change;
    }

    /// A training is over; `adapter` is what it trained.
    ///
    /// # Errors
    /// Whatever a look at the data meets.
    fn end(&mut self, episode: &Episode<'_>, adapter: Adapter) -> Result<Outcome> {
        let _ = episode;
        Ok(Outcome::of(adapter))
    }

    /// Gives what was learned to the memory.
    ///
    /// # Errors
    /// As [`Memory::offer`], and whatever a look at the data meets.
    fn remember(&mut self, episode: &Episode<'_>, memory: &mut Memory, offer: Offer<'_>) -> Result<()> {
        let _ = episode;
        memory.offer(offer.samples)
    }

    /// The memory has taken in what came, and is the episode's now: a last look, for an answer that depends on it.
    ///
    /// # Errors
    /// Whatever a look at the data meets.
    fn settle(&mut self, episode: &Episode<'_>, outcome: Outcome) -> Result<Outcome> {
        let _ = episode;
        Ok(outcome)
    }

    /// What it must not forget, by name.
    fn state(&self) -> BTreeMap<String, Parameters> {
        BTreeMap::new()
    }

    /// Takes up a saved state.
    fn restore(&mut self, state: BTreeMap<String, Parameters>) {
        let _ = state;
    }
}

/// Nothing against forgetting: naive training, or training on everything.
pub(crate) struct Plain;

impl Strategy for Plain {}
