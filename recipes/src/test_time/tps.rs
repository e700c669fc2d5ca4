//! TPS: a shift of each class feature, adapted to each image (Sui et al., 2024, arXiv 2403.12952).
//!
//! `t_c + s_c`, normalised, with shifts `s` `[classes, dim]` from zero. One AdamW step lowers the entropy of the mean
//! probability of the surest tenth of the views; the centre view is scored with the shifted features. Trained:
//! `classes * dim` values, reset for each image. No tower runs again.

use burn::tensor::Tensor;
use inarch_core::backbone::{Backbone, normalise, values};
use serde::{Deserialize, Serialize};

use super::adamw::{AdamW, Moments};
use super::confidence::confident;
use super::episode::{Answer, Episode};
use super::method::{Adapt, MethodSettings, Needs, within};
use super::objective::{gradient_of, marginal_entropy, views_of};
use super::world::World;
use crate::error::Result;

/// Settings of TPS.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TpsConfig {
    /// Learning rate; the authors take 0.005 for ImageNet and its variants.
    pub lr: f64,
    /// Steps.
    pub steps: usize,
    /// Share of the views that are sure enough.
    pub keep: f64,
}

impl Default for TpsConfig {
    fn default() -> Self {
        Self { lr: 1e-3, steps: 1, keep: 0.1 }
    }
}

impl MethodSettings for TpsConfig {
    fn needs(&self, _backbone: Option<&Backbone>) -> Needs {
        Needs::VIEWS
    }

    fn check(&self) -> std::result::Result<(), String> {
        within("lr", self.lr, 0.0..=10.0)?;
        within("steps", self.steps as f64, 1.0..=100.0)?;
        within("keep", self.keep, 0.0..=1.0)
    }

    fn begin(&self, _world: &World<'_>, _length: Option<usize>) -> Result<Box<dyn Adapt>> {
        Ok(Box::new(Tps(self.clone())))
    }
}

struct Tps(TpsConfig);

impl Tps {
    fn answer(&self, world: &World<'_>, episode: &Episode) -> Answer {
        let text = episode.text.tensor(world.device);
        let views = views_of(episode, &confident(&episode.logits, self.0.keep), world.device);
        let optimizer = AdamW::new(self.0.lr);
        let mut moments = Moments::new();
        let mut shift: Tensor<2> = text.zeros_like();
        for _ in 0..self.0.steps {
            let leaf = shift.clone().autodiff().require_grad();
            let loss = marginal_entropy(world.score.logits(&views, &normalise(text.clone() + leaf.clone())));
            let Some(gradient) = gradient_of(&leaf, &loss) else { break };
            shift = moments.step(&optimizer, shift, gradient);
        }
        let centre = views_of(episode, &[0], world.device);
        Answer::scores(values(world.score.logits(&centre, &normalise(text + shift))))
    }
}

impl Adapt for Tps {
    fn adapt(&mut self, world: &World<'_>, episodes: &[Episode]) -> Result<Vec<Answer>> {
        Ok(episodes.iter().map(|episode| self.answer(world, episode)).collect())
    }
}
