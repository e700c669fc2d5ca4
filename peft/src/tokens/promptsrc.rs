//! PromptSRC: prompts of both towers that regulate themselves (Khattak et al., ICCV 2023, arXiv 2307.06948).
//!
//! IVLP's prompts, with the loss
//! `CE + w_t mean|t - t0| + w_v mean|v - v0| + mean over images and classes of p0 (log p0 - log p)`:
//! text and image features `t`, `v` through the prompts and frozen ones `t0`, `v0`, all normalised, `t0` the mean over 60
//! templates; `p`, `p0` the softmax of the scores with and without prompts. The result is the average of the epochs' prompts with Gaussian weights. Count and sites: those of IVLP.

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::activation::log_softmax;
use inarch_core::backbone::{Backbone, BlockSite, Entry, Mode, Pass, Sites, Tower, normalise};
use inarch_core::text::{Template, TemplateSet};
use serde::{Deserialize, Serialize};

use super::ivlp::{Ivlp, IvlpConfig};
use crate::error::{Error, Result};
use crate::learner::{Averaging, Learner, Loss, Step};
use crate::linear::check_finite;
use crate::method::{Method, Prior, Stacking, Start};

/// The set of the first of them.
const FIRST: &str = "single";
/// The set of the others, from its start.
const ALL: &str = "openai-80";

/// Settings of PromptSRC; the defaults are those of its few-shot protocol.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PromptSrcConfig {
    /// Words before the class name; the first text prompts take the place of their first tokens.
    pub words: String,
    /// Prompts in a block of the text tower.
    pub text_tokens: usize,
    /// Prompts in a block of the image tower.
    pub image_tokens: usize,
    /// Blocks with prompts in each tower, from the first; at most those of the tower.
    pub depth: usize,
    /// How many templates the frozen text features are the mean of.
    pub templates: usize,
    /// Weight of the distance to the frozen text features.
    pub text_weight: f64,
    /// Weight of the distance to the frozen image features.
    pub image_weight: f64,
    /// The epoch with the greatest weight in the average.
    pub mean: f64,
    /// Standard deviation of the weights, in epochs.
    pub deviation: f64,
}

impl Default for PromptSrcConfig {
    fn default() -> Self {
        let IvlpConfig { words, text_tokens, image_tokens, depth } = IvlpConfig::default();
        Self {
            words,
            text_tokens,
            image_tokens,
            depth,
            templates: 60,
            text_weight: 25.0,
            image_weight: 10.0,
            mean: 30.0,
            deviation: 30.0,
        }
    }
}

impl PromptSrcConfig {
    fn prompts(&self) -> IvlpConfig {
        let Self { words, text_tokens, image_tokens, depth, .. } = self.clone();
        IvlpConfig { words, text_tokens, image_tokens, depth }
    }
}

/// Prompts of both towers, held to the frozen features.
#[derive(Module, Debug)]
pub struct PromptSrc {
    prompts: Ivlp,
    text_weight: f64,
    image_weight: f64,
    mean: f64,
    deviation: f64,
}

impl Method for PromptSrcConfig {
    type Adapter = PromptSrc;

    /// [`Error::Setting`] for numbers of tokens or blocks that do not fit, or a number that is none.
    fn init(&self, start: &Start<'_>) -> Result<PromptSrc> {
        check_finite("text_weight", self.text_weight)?;
        check_finite("image_weight", self.image_weight)?;
        check_finite("mean", self.mean)?;
        if !(self.deviation.is_finite() && self.deviation > 0.0) {
            let reason = format!("must be above 0, found {}", self.deviation);
            return Err(Error::Setting { setting: "deviation", reason });
        }
        if self.templates == 0 {
            return Err(Error::Setting { setting: "templates", reason: "must be at least 1".into() });
        }
        let Self { text_weight, image_weight, mean, deviation, .. } = *self;
        Ok(PromptSrc { prompts: self.prompts().init(start)?, text_weight, image_weight, mean, deviation })
    }

    fn image_blocks(&self) -> bool {
        true
    }

    fn trainable(&self, backbone: &Backbone, classes: usize, images: usize) -> usize {
        self.prompts().trainable(backbone, classes, images)
    }

    fn starts_as_zero_shot(&self) -> bool {
        false
    }

    fn templates(&self) -> Result<Vec<Template>> {
        self.prompts().templates()
    }

    /// `a photo of a {}.`, then the first of OpenAI's 80 templates, as the authors list them.
    fn prior(&self) -> Prior {
        let sets = [FIRST, ALL].into_iter().filter_map(|name| TemplateSet::named(name).ok());
        let mut own: Vec<Template> = Vec::new();
        for template in sets.flat_map(|set| set.templates().to_vec()) {
            if own.len() < self.templates && !own.contains(&template) {
                own.push(template);
            }
        }
        Prior::Own(own)
    }

    fn stacking(&self) -> Stacking {
        Stacking::AddsImageTokens
    }
}

impl Learner for PromptSrc {
    fn loss(&self, step: &Step<'_>) -> Loss {
        let mut loss = step.cross_entropy();
        if let Some(prior) = step.prior {
            let distance = normalise(step.text.clone()) - normalise(prior.clone());
            loss = loss + distance.abs().mean() * self.text_weight;
        }
        if let Some(frozen) = step.frozen_image.clone() {
            let distance = normalise(step.image.clone()) - normalise(frozen);
            loss = loss + distance.abs().mean() * self.image_weight;
        }
        if let Some(frozen) = step.frozen_logits() {
            let (frozen, own) = (log_softmax(frozen, 1), log_softmax(step.logits.clone(), 1));
            loss = loss + (frozen.clone().exp() * (frozen - own)).mean();
        }
        Loss::plain(loss)
    }

    fn needs_frozen_image(&self) -> bool {
        true
    }

    fn averaging(&self) -> Option<Averaging> {
        Some(Averaging::Gaussian { mean: self.mean, deviation: self.deviation })
    }
}

impl Sites for PromptSrc {
    fn entry(&self, tower: Tower) -> Entry {
        self.prompts.entry(tower)
    }

    fn shares_beginnings(&self, mode: Mode) -> bool {
        self.prompts.shares_beginnings(mode)
    }

    fn tokens(&self, at: BlockSite, tokens: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        self.prompts.tokens(at, tokens, pass)
    }
}
