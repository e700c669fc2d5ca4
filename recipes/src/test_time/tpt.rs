//! TPT: the context of the prompt is adapted to each image, so that its sure views agree (Shu et al., 2022, arXiv
//! 2209.07511); C-TPT, the same with texts kept apart, for calibration (Yoon et al., 2024, arXiv 2403.14119).
//!
//! Of 64 views `[views, classes]`, the tenth of least entropy counts. One AdamW step lowers the entropy of their mean
//! probability over the context `[tokens, width]`, which starts as the template's words or as an adapter's context, and the
//! centre view is scored with it. Context and optimizer are reset for each image. C-TPT subtracts
//! `lambda mean_c |t_c - mean t|` of the normalised class features. Trained: `tokens * width`. With fresh moments the step
//! is the rate times the gradient's sign.
//!
//! The images of a batch have their contexts in one forward and backward pass; image features are those of
//! [`Episode`](super::episode::Episode), computed once.

use inarch_core::backbone::{Backbone, normalise};
use serde::{Deserialize, Serialize};

use super::adamw::AdamW;
use super::confidence::confident;
use super::episode::{Answer, Episode};
use super::method::{Adapt, MethodSettings, Needs, within};
use super::objective::{dispersion, marginal_entropy};
use super::prompt::Prompt;
use super::tuner::Tuner;
use super::world::World;
use crate::error::Result;

/// Settings of TPT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TptConfig {
    /// Learning rate.
    pub lr: f64,
    /// Steps.
    pub steps: usize,
    /// Share of the views that are sure enough.
    pub keep: f64,
}

impl Default for TptConfig {
    fn default() -> Self {
        Self { lr: 5e-3, steps: 1, keep: 0.1 }
    }
}

/// Settings of C-TPT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CTptConfig {
    /// Learning rate.
    pub lr: f64,
    /// Steps.
    pub steps: usize,
    /// Share of the views that are sure enough.
    pub keep: f64,
    /// Weight of the texts' distances; the authors take 20 for ImageNet's variants.
    pub lambda: f64,
}

impl Default for CTptConfig {
    fn default() -> Self {
        let TptConfig { lr, steps, keep } = TptConfig::default();
        Self { lr, steps, keep, lambda: 50.0 }
    }
}

/// What all settings of prompt tuning have in common.
pub(super) const PROMPT_NEEDS: Needs = Needs { text_tower: true, ..Needs::VIEWS };

/// Checks what all settings of prompt tuning have in common.
pub(super) fn check(lr: f64, steps: usize, keep: f64) -> std::result::Result<(), String> {
    within("lr", lr, 0.0..=10.0)?;
    within("steps", steps as f64, 1.0..=100.0)?;
    within("keep", keep, 0.0..=1.0)
}

impl MethodSettings for TptConfig {
    fn needs(&self, _backbone: Option<&Backbone>) -> Needs {
        PROMPT_NEEDS
    }

    fn check(&self) -> std::result::Result<(), String> {
        check(self.lr, self.steps, self.keep)
    }

    fn begin(&self, world: &World<'_>, length: Option<usize>) -> Result<Box<dyn Adapt>> {
        let Self { lr, steps, keep } = *self;
        CTptConfig { lr, steps, keep, lambda: 0.0 }.begin(world, length)
    }
}

impl MethodSettings for CTptConfig {
    fn needs(&self, _backbone: Option<&Backbone>) -> Needs {
        PROMPT_NEEDS
    }

    fn check(&self) -> std::result::Result<(), String> {
        check(self.lr, self.steps, self.keep)?;
        within("lambda", self.lambda, 0.0..=1e6)
    }

    fn begin(&self, _world: &World<'_>, _length: Option<usize>) -> Result<Box<dyn Adapt>> {
        Ok(Box::new(CTpt { config: self.clone(), prompt: None }))
    }
}

struct CTpt {
    config: CTptConfig,
    prompt: Option<Prompt>,
}

impl Adapt for CTpt {
    fn adapt(&mut self, world: &World<'_>, episodes: &[Episode]) -> Result<Vec<Answer>> {
        let CTptConfig { lr, steps, keep, lambda } = self.config;
        let tuner = Tuner {
            optimizer: AdamW::new(lr),
            steps,
            select: &|episode| confident(&episode.logits, keep),
            loss: &|_, _, logits, text| {
                let loss = marginal_entropy(logits);
                if lambda == 0.0 { loss } else { loss - dispersion(normalise(text)) * lambda }
            },
        };
        tuner.answers(world, &mut self.prompt, episodes)
    }
}
