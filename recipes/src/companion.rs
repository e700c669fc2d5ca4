//! What may accompany a training: rehearsal beside each batch, a loss of its own, a look at each step.

use std::path::Path;

use inarch_peft::{Adapter, Loss, Parameters, Step};

use crate::error::Result;

/// Takes part in a training from outside. The defaults leave it alone.
pub trait Companion {
    /// Positions among the [`Task::rehearsal`](crate::Task::rehearsal) examples that go with the batch of a step; the same number in every
    /// step of a run. It must depend on the step and on nothing that changes, so that a run can be continued.
    fn rehearse(&self, step: usize) -> Vec<usize> {
        let _ = step;
        Vec::new()
    }

    /// Whether each step that rehearses is to be preceded by a virtual one, whose effect [`Moment::foresight`] tells: the step
    /// that the optimizer would take on the loss without foresight.
    fn foresees(&self) -> bool {
        false
    }

    /// Factor on the learning rate of a parameter beside the method's own, by its path; with 0 it stands still.
    fn rate(&self, parameter: &str) -> f64 {
        let _ = parameter;
        1.0
    }

    /// The loss of a step.
    fn loss(&self, moment: &Moment<'_>) -> Loss {
        moment.adapter.learner().loss(moment.step)
    }

    /// Whether [`stepped`](Self::stepped) is wanted, which costs a copy of all parameters in each step.
    fn watches(&self) -> bool {
        false
    }

    /// A step was taken.
    fn stepped(&mut self, change: &Change<'_>) {
        let _ = change;
    }

    /// Writes what [`stepped`](Self::stepped) gathered.
    ///
    /// # Errors
    /// An I/O error naming the file.
    fn save(&self, folder: &Path) -> Result<()> {
        let _ = folder;
        Ok(())
    }

    /// Reads what was gathered up to a saved step.
    ///
    /// # Errors
    /// A file that is missing or damaged.
    fn load(&mut self, folder: &Path) -> Result<()> {
        let _ = folder;
        Ok(())
    }
}

/// No companion.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Companion for Alone {}

/// A step on its way.
pub struct Moment<'a> {
    /// The adapter in training.
    pub adapter: &'a Adapter,
    /// What is known in the step. Its rows are those of [`examples`](Self::examples).
    pub step: &'a Step<'a>,
    /// Which examples its rows are: first positions in [`Task::train`](crate::Task::train), then, from
    /// [`fresh`](Self::fresh) on, those that were rehearsed.
    pub examples: &'a [usize],
    /// Number of rows that are not rehearsed.
    pub fresh: usize,
    /// What a virtual step would change, where the companion [foresees](Companion::foresees); `None` asks for the loss of that
    /// virtual step.
    pub foresight: Option<&'a Foresight>,
}

/// Scores of a step's rows before and after a virtual step, `[rows, classes]`, row-major.
pub struct Foresight {
    /// As the adapter is.
    pub before: Vec<f32>,
    /// As the virtual step would make it.
    pub after: Vec<f32>,
}

/// What a step changed. Gradients are those that the optimizer was given.
pub struct Change<'a> {
    /// Parameters before.
    pub before: &'a Parameters,
    /// Gradients, by parameter.
    pub gradients: &'a Parameters,
    /// Parameters after.
    pub after: &'a Parameters,
}
