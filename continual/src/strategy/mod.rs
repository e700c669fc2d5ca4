//! Strategies against forgetting for adapters that are trained by steps: what happens before and after an experience, and the
//! loss in between.

mod config;
mod distil;
mod importance;
mod replay;
mod weights;

use std::collections::BTreeMap;

use inarch_core::data::Example;
use inarch_peft::{Adapter, Loss, Parameters};
use inarch_recipes::{Change, Moment, Recipe, Session};

pub(crate) use config::GRADIENT_STRATEGIES;
pub use config::GradientConfig;

use crate::error::Result;
use crate::memory::Memory;

/// One training on one experience, as a strategy sees it.
pub struct Episode<'a> {
    /// Backbone and data.
    pub session: &'a Session<'a>,
    /// Method and optimisation.
    pub recipe: &'a Recipe,
    /// The experience's number, from 0.
    pub index: usize,
    /// All classes known now.
    pub classes: &'a [String],
    /// How many of them were known before.
    pub before: usize,
    /// The adapter that training starts from, with rows for all classes.
    pub start: &'a Adapter,
    /// The adapter as it was before, with rows for the classes known then.
    pub teacher: Option<&'a Adapter>,
    /// A fresh adapter with rows for all classes: where it all began.
    pub initial: &'a Adapter,
    /// The examples that the epochs go through.
    pub train: &'a [Example],
    /// What is remembered of earlier experiences.
    pub memory: Option<&'a Memory>,
}

/// What a training leaves.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What the next training starts from.
    pub trained: Adapter,
    /// What answers until then.
    pub answer: Adapter,
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

/// A strategy: two hooks and a loss that is returned. The defaults do nothing against forgetting.
pub trait Strategy {
    /// Rows of the memory that join each batch; `None` for a strategy without a memory.
    fn rehearsal(&self) -> Option<Rehearsal> {
        None
    }

    /// Whether samples in the memory carry the scores they had when they were learned.
    fn holds_scores(&self) -> bool {
        false
    }

    /// An experience begins.
    ///
    /// # Errors
    /// Whatever a look at the data meets.
    fn begin(&mut self, episode: &Episode<'_>) -> Result<()> {
        let _ = episode;
        Ok(())
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

    /// An experience is over; `adapter` is what it trained.
    ///
    /// # Errors
    /// Whatever a look at the data meets.
    fn end(&mut self, episode: &Episode<'_>, adapter: Adapter) -> Result<Outcome> {
        let _ = episode;
        Ok(Outcome { trained: adapter.clone(), answer: adapter })
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
