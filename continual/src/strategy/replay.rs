//! Strategies that rehearse: ER, ER-ACE, DER, DER++ and A-GEM.
//!
//! With rows of the batch `b` and of the memory `m`, scores `z` and remembered scores `z0`:
//! ER `CE(b, m)`; ER-ACE `CE(b among the classes of b) + CE(m)`; DER `CE(b) + alpha |z_m - z0_m|^2`; DER++ adds
//! `beta CE(m')` of a second draw; A-GEM `CE(b)`, its gradient corrected by that of `CE(m)` of past experiences. `CE(b)` comes with
//! what the method adds to its loss, and all of them are weighed as the run says (`train.imbalance`).
//!
//! What ER-ACE rehearses holds what arrives too, as in the authors' code (Caccia et al., 2022, arXiv 2104.05025), where each batch
//! enters the memory before the next one: in `CE(m)` alone new classes compete with old ones. Here the memory is offered the whole
//! experience before it is trained on, under the same budget; before the second experience there is nothing to tell apart, and
//! `CE(b)` is all. The classes of `b` are those of the experience, not of one batch.
//!
//! Departures. Scores are remembered at the end of an experience and in evaluation mode (as in Avalanche), and compared over
//! the classes known then. Before they are compared they are brought to a logit scale of 10: alpha belongs to the logits of a
//! network without a scale, whose size is about that. So are those of a `linear-head`, which have none: there the paper's alpha is
//! the one that is given times `(10 / scale)^2`. A sample of several views has the scores of its centre view, whichever is drawn.

use burn::tensor::{Tensor, TensorData};
use inarch_core::Seed;
use inarch_peft::{Correction, Guide, Loss};
use inarch_recipes::Moment;

use super::among::{classes_of, own_loss};
use super::{Episode, Rehearsal, Strategy};
use crate::error::Result;
use crate::memory::{Memory, drawn};

/// The logit scale that weights of squared score differences belong to.
const SCALE: f64 = 10.0;

/// What is done with rehearsed rows.
#[derive(Clone, Copy)]
pub(super) enum ReplayLoss {
    /// One mean over all rows.
    Mixed,
    /// New rows among their own classes, and again among all where they are drawn.
    Asymmetric,
    /// Remembered scores, and with `beta` a second draw.
    Scores {
        /// Weight of the squared difference.
        alpha: f64,
        /// Weight of the second draw's cross entropy.
        beta: Option<f64>,
    },
    /// A reference for the gradient.
    Guide,
}

/// Rehearsal.
pub(super) struct Replay {
    rows: usize,
    loss: ReplayLoss,
    /// Remembered scores by position in the memory.
    scores: Vec<Vec<f32>>,
    /// Positions in the memory of the samples of past experiences.
    past: Vec<usize>,
    /// Whether a class is among those of the experience.
    current: Vec<bool>,
}

impl Replay {
    pub(super) fn new(rows: usize, loss: ReplayLoss) -> Self {
        Self { rows, loss, scores: Vec::new(), past: Vec::new(), current: Vec::new() }
    }

    /// `mean (z - z0)^2` over the remembered scores of rows.
    fn difference(&self, logits: &Tensor<2>, positions: &[usize], scale: f32) -> Tensor<1> {
        let [rows, columns] = logits.dims();
        let (mut targets, mut mask, mut count) = (vec![0.0f32; rows * columns], vec![0.0f32; rows * columns], 0.0);
        for (row, position) in positions.iter().enumerate() {
            let remembered = self.scores.get(*position).map_or(&[][..], Vec::as_slice);
            for (column, score) in remembered.iter().take(columns).enumerate() {
                targets[row * columns + column] = *score;
                mask[row * columns + column] = 1.0;
                count += 1.0;
            }
        }
        let device = logits.device().without_autodiff();
        let tensor = |data: Vec<f32>| Tensor::<2>::from_data(TensorData::new(data, [rows, columns]), &device);
        let apart = (logits.clone() - tensor(targets)) * tensor(mask) * (SCALE / f64::from(scale));
        (apart.clone() * apart).sum() / f64::max(count, 1.0)
    }
}

impl Strategy for Replay {
    fn rehearsal(&self) -> Option<Rehearsal> {
        let draws = if matches!(self.loss, ReplayLoss::Scores { beta: Some(_), .. }) { 2 } else { 1 };
        Some(Rehearsal { rows: self.rows, draws })
    }

    fn rehearse(&self, memory: &Memory, draws: Seed) -> Vec<usize> {
        let Some(Rehearsal { rows, draws: count }) = self.rehearsal() else { return Vec::new() };
        if matches!(self.loss, ReplayLoss::Guide) {
            // The reference is of past experiences, also where this one comes in chunks.
            return drawn(self.past.len(), rows, draws.split(0)).into_iter().map(|place| self.past[place]).collect();
        }
        (0..count).flat_map(|draw| memory.draw(rows, draws.split(draw))).collect()
    }

    fn rehearses_arrival(&self) -> bool {
        matches!(self.loss, ReplayLoss::Asymmetric)
    }

    fn holds_scores(&self) -> bool {
        matches!(self.loss, ReplayLoss::Scores { .. })
    }

    fn begin(&mut self, episode: &Episode<'_>) -> Result<()> {
        self.scores = episode.memory.iter().flat_map(|m| m.samples()).map(|sample| sample.scores.clone()).collect();
        self.past = episode.past().map(|(position, _)| position).collect();
        self.current = classes_of(episode);
        Ok(())
    }

    fn loss(&self, moment: &Moment<'_>, episode: &Episode<'_>) -> Loss {
        let own = || moment.adapter.learner().loss(moment.step);
        let (fresh, all) = (moment.fresh, moment.examples.len());
        if fresh == all {
            return own();
        }
        let (step, learner) = (moment.step, moment.adapter.learner());
        let arrived: Vec<usize> = (0..fresh).collect();
        // What is rehearsed is judged as what arrives, without what a method adds to the loss of a step.
        let entropy = |from: usize, to: usize| {
            let rows: Vec<usize> = (from..to).collect();
            step.with_rows(&rows, |step| step.cross_entropy())
        };
        match self.loss {
            ReplayLoss::Mixed => own(),
            ReplayLoss::Asymmetric => {
                let Loss { task, guide } =
                    step.with_rows(&arrived, |step| own_loss(moment.adapter, step, &self.current));
                Loss { task: task + entropy(fresh, all), guide }
            }
            ReplayLoss::Scores { alpha, beta } => {
                let first = if beta.is_some() { fresh + (all - fresh) / 2 } else { all };
                // The scores of a sample are those of its centre view, in whichever it is seen.
                let samples = episode.rehearsal.len().max(1);
                let position = |example: &usize| (example - episode.train.len()) % samples;
                let positions: Vec<usize> = moment.examples[fresh..first].iter().map(position).collect();
                let Loss { mut task, guide } = step.with_rows(&arrived, |step| learner.loss(step));
                let rehearsed = step.logits.clone().narrow(0, fresh, first - fresh);
                task = task + self.difference(&rehearsed, &positions, step.scale) * alpha;
                if let Some(beta) = beta {
                    task = task + entropy(first, all) * beta;
                }
                Loss { task, guide }
            }
            ReplayLoss::Guide => {
                let correction = Correction::Whole { strength: 1.0 };
                let guide = Guide { losses: vec![entropy(fresh, all)], correction };
                let Loss { task, .. } = step.with_rows(&arrived, |step| learner.loss(step));
                Loss { task, guide: Some(guide) }
            }
        }
    }
}
