//! GEM: a step works against no past experience (Lopez-Paz and Ranzato, 2017, arXiv 1706.08840).
//!
//! With the gradient `t` of the cross entropy of what arrives and `g_k` of the samples in the memory of each past experience `k`:
//! where some `t . g_k < 0`, the step takes `t + sum_k v_k g_k`, where `v >= margin` makes it shortest
//! ([`Correction::Cone`]). With margin 0 that is the gradient closest to `t` with all products at least 0.
//!
//! An experience is what came at one time. Departure: with many samples of an experience, `replay` of them are drawn in each step,
//! where the authors go through all. A step costs a pass more for each past experience.

use std::collections::BTreeMap;

use inarch_core::Seed;
use inarch_peft::{Correction, Guide, Loss, cross_entropy};
use inarch_recipes::Moment;

use super::{Episode, Rehearsal, Strategy};
use crate::error::Result;
use crate::memory::{Memory, drawn};

/// Gradient episodic memory.
pub(super) struct Gem {
    rows: usize,
    margin: f64,
    /// Positions in the memory of each past experience, in the order of their time.
    past: Vec<Vec<usize>>,
}

impl Gem {
    pub(super) fn new(rows: usize, margin: f64) -> Self {
        Self { rows, margin, past: Vec::new() }
    }

    /// How many rows of each past experience a step has, in their order.
    fn counts(&self) -> impl Iterator<Item = usize> {
        self.past.iter().map(|positions| positions.len().min(self.rows))
    }
}

/// Positions of the samples of past experiences by the time they came.
fn by_time(episode: &Episode<'_>) -> Vec<Vec<usize>> {
    let mut past: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (position, sample) in episode.past() {
        past.entry(sample.time).or_default().push(position);
    }
    past.into_values().collect()
}

impl Strategy for Gem {
    fn rehearsal(&self) -> Option<Rehearsal> {
        Some(Rehearsal { rows: self.rows, draws: 1 })
    }

    fn rehearse(&self, _memory: &Memory, draws: Seed) -> Vec<usize> {
        let of = |(at, (positions, count)): (usize, (&Vec<usize>, usize))| {
            let drawn = drawn(positions.len(), count, draws.split(at));
            drawn.into_iter().map(|place| positions[place]).collect::<Vec<_>>()
        };
        self.past.iter().zip(self.counts()).enumerate().flat_map(of).collect()
    }

    fn begin(&mut self, episode: &Episode<'_>) -> Result<()> {
        self.past = by_time(episode);
        Ok(())
    }

    fn loss(&self, moment: &Moment<'_>, _episode: &Episode<'_>) -> Loss {
        let (step, fresh, learner) = (moment.step, moment.fresh, moment.adapter.learner());
        if fresh == moment.examples.len() {
            return learner.loss(step);
        }
        let own: Vec<usize> = (0..fresh).collect();
        let Loss { task, .. } = step.with_rows(&own, |step| learner.loss(step));
        let mut from = fresh;
        let mut losses = Vec::with_capacity(self.past.len());
        for count in self.counts() {
            let rows = step.logits.clone().narrow(0, from, count);
            losses.push(cross_entropy(rows, &step.labels[from..from + count]));
            from += count;
        }
        Loss { task, guide: Some(Guide { losses, correction: Correction::Cone { margin: self.margin } }) }
    }
}
