//! TENT: gains and offsets of the image tower's normalisations follow the entropy of the stream (Wang et al., ICLR 2021,
//! arXiv 2006.10726), here of layer normalisations.
//!
//! For each batch: the answers, then one step of SGD (momentum 0.9) down the mean entropy of their probabilities over the
//! changes of all gains and offsets `[width]`, which start at zero. The values stay from batch to batch. Trained: two
//! widths for each normalisation of the image tower. The batch is `batch` of the common settings.

use inarch_core::backbone::{Backbone, Entry, values};
use serde::{Deserialize, Serialize};

use super::episode::{Answer, Episode};
use super::method::{Adapt, MethodSettings, MethodState, Needs, within};
use super::norm_tuning::{NormTuning, gradient};
use super::objective::row_entropies;
use super::world::World;
use crate::error::Result;

/// Settings of TENT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TentConfig {
    /// Learning rate.
    pub lr: f64,
}

impl Default for TentConfig {
    fn default() -> Self {
        Self { lr: 1e-3 }
    }
}

impl MethodSettings for TentConfig {
    fn needs(&self, _backbone: Option<&Backbone>) -> Needs {
        Needs { entry: Entry::Tokens, online: true, ..Needs::CENTRE }
    }

    fn check(&self) -> std::result::Result<(), String> {
        within("lr", self.lr, 0.0..=10.0)
    }

    fn begin(&self, world: &World<'_>, _length: Option<usize>) -> Result<Box<dyn Adapt>> {
        Ok(Box::new(Tent { lr: self.lr, norms: NormTuning::new(world, true)? }))
    }
}

struct Tent {
    lr: f64,
    norms: NormTuning,
}

impl Adapt for Tent {
    fn adapt(&mut self, world: &World<'_>, episodes: &[Episode]) -> Result<Vec<Answer>> {
        if episodes.is_empty() {
            return Ok(Vec::new());
        }
        let (scores, adapter) = self.norms.scores(world, episodes, None)?;
        let loss = row_entropies(scores.clone()).mean();
        self.norms.step(self.lr, &gradient(&adapter, &loss));
        let rows = values(scores);
        Ok(rows.chunks(world.classes).map(|row| Answer::scores(row.to_vec())).collect())
    }

    fn reset(&mut self) {
        self.norms.reset();
    }

    fn state(&self) -> MethodState {
        self.norms.state()
    }

    fn restore(&mut self, state: MethodState) -> std::result::Result<(), String> {
        self.norms.restore(state)
    }

    fn bytes(&self) -> usize {
        self.norms.bytes()
    }
}
