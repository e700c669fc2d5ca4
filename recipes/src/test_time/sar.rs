//! SAR: as TENT, but on reliable images only, towards flat minima, with a way back (Niu et al., ICLR 2023, arXiv 2302.12400).
//!
//! For each batch: the answers; the mean entropy of images below `0.4 ln C`; the values moved by `rho` along its gradient's
//! direction; there the mean entropy of those that are still below, whose gradient is stepped along from the old values
//! (SGD, momentum 0.9). A running mean of that entropy below 0.2 means collapse, and everything starts anew. The
//! normalisations of the last quarter of the blocks and the final one stand still, as the authors have it for transformers.
//! Trained: two widths for each of the others in the image tower.

use burn::tensor::Tensor;
use inarch_core::backbone::{Backbone, Entry, values};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::confidence::entropy;
use super::episode::{Answer, Episode};
use super::method::{Adapt, MethodSettings, MethodState, Needs, within};
use super::norm_tuning::{Gradient, NormTuning, gradient};
use super::objective::{row_entropies, vector};
use super::world::World;
use crate::error::Result;

/// Settings of SAR.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SarConfig {
    /// Learning rate.
    pub lr: f64,
    /// Entropy of a reliable image, as a part of `ln C`.
    pub reliable: f64,
    /// Length of the move towards the sharpest rise.
    pub rho: f64,
    /// Running mean of the entropy below which everything starts anew.
    pub recover: f64,
}

impl Default for SarConfig {
    fn default() -> Self {
        Self { lr: 1e-3, reliable: 0.4, rho: 0.05, recover: 0.2 }
    }
}

impl MethodSettings for SarConfig {
    fn needs(&self, _backbone: Option<&Backbone>) -> Needs {
        Needs { entry: Entry::Tokens, online: true, ..Needs::CENTRE }
    }

    fn check(&self) -> std::result::Result<(), String> {
        within("lr", self.lr, 0.0..=10.0)?;
        within("reliable", self.reliable, 0.0..=1.0)?;
        within("rho", self.rho, 0.0..=10.0)?;
        within("recover", self.recover, 0.0..=10.0)
    }

    fn begin(&self, world: &World<'_>, _length: Option<usize>) -> Result<Box<dyn Adapt>> {
        Ok(Box::new(Sar { config: self.clone(), norms: NormTuning::new(world, false)?, running: None }))
    }
}

struct Sar {
    config: SarConfig,
    norms: NormTuning,
    running: Option<f64>,
}

impl Sar {
    /// The gradient of the mean entropy of the images that `counted` marks.
    fn gradient(
        &self,
        world: &World<'_>,
        episodes: &[Episode],
        offset: Option<&Gradient>,
        counted: impl Fn(usize, f32) -> bool,
    ) -> Result<Pull> {
        let (scores, adapter) = self.norms.scores(world, episodes, offset)?;
        let rows: Vec<Vec<f32>> = values(scores.clone()).chunks(world.classes).map(<[f32]>::to_vec).collect();
        let entropies: Vec<f32> = rows.iter().map(|row| entropy(row)).collect();
        let counted: Vec<bool> =
            entropies.iter().enumerate().map(|(image, entropy)| counted(image, *entropy)).collect();
        let count = counted.iter().filter(|counted| **counted).count();
        let mean =
            entropies.iter().zip(&counted).filter(|(_, counted)| **counted).map(|(entropy, _)| f64::from(*entropy));
        let mean = (count > 0).then(|| mean.sum::<f64>() / count as f64);
        let weights = counted.iter().map(|counted| f32::from(u8::from(*counted)) / count.max(1) as f32).collect();
        let weights: Tensor<1> = vector(weights, world.device);
        let gradient = match count {
            0 => Gradient::new(),
            _ => gradient(&adapter, &(row_entropies(scores) * weights).sum()),
        };
        Ok(Pull { rows, counted, mean, gradient })
    }
}

/// One backward pass.
struct Pull {
    rows: Vec<Vec<f32>>,
    counted: Vec<bool>,
    mean: Option<f64>,
    gradient: Gradient,
}

impl Adapt for Sar {
    fn adapt(&mut self, world: &World<'_>, episodes: &[Episode]) -> Result<Vec<Answer>> {
        if episodes.is_empty() {
            return Ok(Vec::new());
        }
        let bound = (self.config.reliable * (world.classes as f64).ln()) as f32;
        let first = self.gradient(world, episodes, None, |_, entropy| entropy < bound)?;
        let answers = first.rows.into_iter().map(Answer::scores).collect();
        let length = first.gradient.values().flatten().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
        if length > 0.0 {
            let factor = (self.config.rho / (length + 1e-12)) as f32;
            let scaled =
                |(name, values): (String, Vec<f32>)| (name, values.iter().map(|value| factor * value).collect());
            let offset: Gradient = first.gradient.into_iter().map(scaled).collect();
            let second = self
                .gradient(world, episodes, Some(&offset), |image, entropy| first.counted[image] && entropy < bound)?;
            if let Some(mean) = second.mean {
                self.running = Some(self.running.map_or(mean, |running| 0.9 * running + 0.1 * mean));
            }
            self.norms.step(self.config.lr, &second.gradient);
        }
        if self.running.is_some_and(|running| running < self.config.recover) {
            self.reset();
        }
        Ok(answers)
    }

    fn reset(&mut self) {
        self.norms.reset();
        self.running = None;
    }

    fn state(&self) -> MethodState {
        let mut state = self.norms.state();
        // As bits, so that not a digit is lost.
        state.values.insert("running".into(), Value::from(self.running.map(f64::to_bits)));
        state
    }

    fn restore(&mut self, state: MethodState) -> std::result::Result<(), String> {
        let running = state.values.get("running").ok_or("`running` is missing")?.as_u64();
        self.norms.restore(MethodState { tensors: state.tensors, ..MethodState::default() })?;
        self.running = running.map(f64::from_bits);
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.norms.bytes()
    }
}
