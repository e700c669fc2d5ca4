//! The training loop of an adapter: batches, gradients, optimizer, saved state.

mod images;
mod state;
mod step;

use std::collections::BTreeSet;
use std::time::Instant;

use burn::optim::{GradientsParams, ModuleOptimizer};
use inarch_core::Seed;
use inarch_core::data::Example;
use inarch_core::image::BadImage;
use inarch_peft::{Adapter, Parameters};

pub(crate) use self::images::{none_readable, training_views};
use crate::balance::{Imbalance, balanced_order};
use crate::companion::{Change, Companion};
use crate::error::{Error, Result};
use crate::gradient::{accumulate, by_rate, copied};
use crate::objective::Objective;
use crate::plan::{KEPT_BYTES, kept_bytes, stored_entry};
use crate::recipe::Recipe;
use crate::saved_run::{SAVE_SECONDS, SavedRun};
use crate::schedule::learning_rate;
use crate::session::Session;

/// The largest value of a trained tensor that can be meant; those of methods in closed form, sums over images, are far below.
const LARGEST: f32 = 1e12;

/// A run on its way.
pub(crate) struct Fitting<'a> {
    session: &'a Session<'a>,
    recipe: &'a Recipe,
    train: Vec<Example>,
    /// How many of the examples the epochs go through; those behind are rehearsed by the companion.
    fresh: usize,
    /// Positions of the examples that batches are made of: all but those whose image is known to be unreadable before the first
    /// step.
    readable: Vec<usize>,
    /// Positions of the examples whose image could not be read.
    unread: BTreeSet<usize>,
    companion: Option<&'a mut dyn Companion>,
    objective: Objective<'a>,
    /// Whether activations are too many to be kept for the way back.
    recompute: bool,
    adapter: Adapter,
    optimizer: ModuleOptimizer,
    seed: Seed,
    step: usize,
    pub(crate) steps: usize,
    steps_per_epoch: usize,
    pub(crate) losses: Vec<f32>,
    pub(crate) skipped: Vec<String>,
    /// The running average of the epochs, where the method asks for one.
    average: Parameters,
    saved: Instant,
    began: Instant,
    /// Seconds of work that is done once.
    encode: f64,
    /// Seconds of training before it was interrupted.
    pub(crate) before: f64,
}

/// What a finished run leaves.
pub(crate) struct Fitted {
    pub(crate) adapter: Adapter,
    /// The examples that it was trained on.
    pub(crate) train: Vec<Example>,
    /// The loss of each step.
    pub(crate) losses: Vec<f32>,
    /// Images that could not be read.
    pub(crate) skipped: Vec<String>,
}

impl<'a> Fitting<'a> {
    pub(crate) fn new(
        session: &'a Session<'a>,
        recipe: &'a Recipe,
        train: Vec<Example>,
        objective: Objective<'a>,
        adapter: Adapter,
    ) -> Self {
        let (steps, steps_per_epoch) = recipe.steps(train.len());
        // A method without trained values is done when it is made, whatever the recipe allows it.
        let steps = match adapter.trainable() {
            0 => 0,
            _ => steps,
        };
        let kept = kept_bytes(session.backbone, &adapter, &objective, recipe, recipe.train.batch.min(train.len()));
        Self {
            session,
            recipe,
            recompute: kept > KEPT_BYTES,
            fresh: train.len(),
            readable: (0..train.len()).collect(),
            unread: BTreeSet::new(),
            train,
            companion: None,
            objective,
            adapter,
            optimizer: recipe.train.optimizer.build(),
            seed: Seed::new(recipe.seed),
            step: 0,
            steps,
            steps_per_epoch,
            losses: Vec::new(),
            skipped: Vec::new(),
            average: Parameters::new(),
            saved: Instant::now(),
            began: Instant::now(),
            encode: 0.0,
            before: 0.0,
        }
    }

    /// Lets a companion take part, with examples that it may add to batches.
    pub(crate) fn with_companion(mut self, companion: &'a mut dyn Companion, rehearsal: Vec<Example>) -> Self {
        self.train.extend(rehearsal);
        self.readable = (0..self.train.len()).collect();
        self.companion = Some(companion);
        self
    }

    /// Trains to the end; returns the seconds that went into work that is done once.
    pub(crate) fn run(&mut self, run: &SavedRun) -> Result<f64> {
        if self.step == self.steps {
            return Ok(0.0);
        }
        let encode = match stored_entry(self.session.backbone, &self.adapter, self.recipe, self.train.len()) {
            Some(entry) => self.run_stored(entry, run),
            None => self.run_images(run),
        }?;
        self.check_bounds()?;
        Ok(encode)
    }

    /// Refuses what no training means to give. A loss over normalised scores stays finite however far values run away, so it
    /// does not tell.
    fn check_bounds(&self) -> Result<()> {
        let within = |value: &f32| value.is_finite() && value.abs() <= LARGEST;
        for (name, tensor) in self.adapter.parameters() {
            if let Some(value) = tensor.data.iter().find(|value| !within(value)) {
                return Err(Error::Unbounded { name, value: *value });
            }
        }
        Ok(())
    }

    /// The trained adapter, as plain values.
    pub(crate) fn finish(self) -> Result<Fitted> {
        let adapter = self.adapter.without_autodiff();
        let adapter = if self.average.is_empty() {
            adapter
        } else {
            let device = self.session.backbone.device();
            let average = self.average;
            adapter
                .with_parameters(average, device)
                .map_err(|reason| inarch_core::Error::invalid("average over epochs", reason))?
        };
        let read = |(position, example): (usize, Example)| (!self.unread.contains(&position)).then_some(example);
        let train = self.train.into_iter().enumerate().filter_map(read).collect();
        Ok(Fitted { adapter, train, losses: self.losses, skipped: self.skipped })
    }

    /// The examples of each step of an epoch, from the current step on; those that are rehearsed come last.
    fn batches(&self, epoch: usize) -> Vec<Vec<usize>> {
        let seed = self.seed.split("order").split(epoch);
        let fresh = self.readable_fresh();
        let order = if self.recipe.train.imbalance == Imbalance::BalancedSampling {
            let labels: Vec<usize> = fresh.iter().map(|position| self.train[*position].label).collect();
            balanced_order(&labels, seed)
        } else {
            seed.order(fresh.len())
        };
        let batch = self.recipe.train.batch.min(fresh.len());
        let rehearsed = |step: usize| {
            let positions = self.companion.as_ref().map(|companion| companion.rehearse(step)).unwrap_or_default();
            let positions = positions.into_iter().map(|position| self.fresh + position);
            positions.filter(|position| self.readable.binary_search(position).is_ok())
        };
        order
            .chunks_exact(batch)
            .take(self.steps_per_epoch)
            .skip(self.step % self.steps_per_epoch)
            .take(self.steps - self.step)
            .zip(self.step..)
            .map(|(batch, step)| batch.iter().map(|place| fresh[*place]).chain(rehearsed(step)).collect())
            .collect()
    }

    /// Those of the examples that batches are made of which the epochs go through.
    fn readable_fresh(&self) -> &[usize] {
        &self.readable[..self.readable.partition_point(|position| *position < self.fresh)]
    }

    /// Names images that could not be read, each once.
    fn name_unread(&mut self, bad: &[BadImage]) {
        for bad in bad {
            let name = bad.path.display().to_string();
            if !self.skipped.contains(&name) {
                self.skipped.push(name);
            }
        }
    }

    /// The learning rate of the current step.
    fn lr(&self) -> f64 {
        let train = &self.recipe.train;
        let lr = learning_rate(train.schedule, train.optimizer.lr(), self.step, self.steps, self.steps_per_epoch);
        let backbone = self.session.backbone;
        // Scores of pairs are no cosines, whose gradients grow with their factor.
        if backbone.crosses() { lr } else { lr * train.optimizer.scale_factor(backbone.logit_scale()) }
    }

    /// Takes the optimizer's step, reports, and saves when it is time.
    fn apply(&mut self, gradients: GradientsParams, loss: f32, run: &SavedRun) -> Result<()> {
        if !loss.is_finite() {
            return Err(Error::Diverged { step: self.step, loss });
        }
        let lr = self.lr();
        let watched = self.companion.as_ref().is_some_and(|companion| companion.watches());
        let (before, gradients) = if watched {
            let (copy, gradients) = copied(&self.adapter, gradients);
            (Some((self.adapter.parameters(), copy)), gradients)
        } else {
            (None, gradients)
        };
        let companion = self.companion.as_deref();
        self.adapter = moved(&mut self.optimizer, self.adapter.clone(), gradients, lr, companion);
        if let (Some((before, gradients)), Some(companion)) = (before, &mut self.companion) {
            companion.stepped(&Change { before: &before, gradients: &gradients, after: &self.adapter.parameters() });
        }
        self.losses.push(loss);
        self.advance(&format!("loss {loss:.3}"));
        let control = self.session.control;
        let stop = control.stopped();
        if stop || self.saved.elapsed().as_secs() >= SAVE_SECONDS {
            self.keep(run)?;
            self.saved = Instant::now();
        }
        if stop { Err(Error::Interrupted { step: self.step, steps: self.steps }) } else { Ok(()) }
    }

    /// Ends a step: one that was taken, or one of which no image can be read.
    fn advance(&mut self, note: &str) {
        self.step += 1;
        self.average_epoch();
        self.enter_stages(self.step - 1);
        self.session.control.progress.advance(1, note);
    }

    /// At the end of an epoch, adds it to the average.
    fn average_epoch(&mut self) {
        let Some(averaging) = self.adapter.learner().averaging() else { return };
        if !self.step.is_multiple_of(self.steps_per_epoch) && self.step != self.steps {
            return;
        }
        let weights = averaging.weights(self.steps.div_ceil(self.steps_per_epoch));
        let epoch = (self.step - 1) / self.steps_per_epoch;
        accumulate(&mut self.average, &self.adapter.parameters(), weights[epoch]);
    }

    /// Begins the stages that the run has come to since step `since`.
    fn enter_stages(&mut self, since: usize) {
        let begins = |fraction: &f64| (fraction * self.steps as f64).round() as usize;
        for (stage, fraction) in self.adapter.learner().stages().iter().enumerate() {
            if (since + 1..=self.step).contains(&begins(fraction)) {
                self.adapter.learner_mut().enter_stage(stage + 1);
            }
        }
    }
}

/// An adapter after a step on some gradients.
fn moved(
    optimizer: &mut ModuleOptimizer,
    adapter: Adapter,
    gradients: GradientsParams,
    lr: f64,
    companion: Option<&dyn Companion>,
) -> Adapter {
    let beside = |parameter: &str| companion.map_or(1.0, |companion| companion.rate(parameter));
    let groups = by_rate(&adapter, gradients, &beside);
    groups.into_iter().fold(adapter, |adapter, (factor, gradients)| optimizer.step(lr * factor, adapter, gradients))
}
