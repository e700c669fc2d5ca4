//! ProGrad: a learned context whose gradient never works against what zero-shot knows (Zhu et al., ICCV 2023, arXiv
//! 2205.14865).
//!
//! CoOp's context. Beside the cross entropy a second loss compares the scores with zero-shot's,
//! `-mean_i sum_c p0_ic log p_ic`; where the two gradients of a parameter point apart, `strength` times the part of the
//! first along the second is taken out. Count: `n * width`. Site: the input tokens of the text tower.

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::activation::{log_softmax, softmax};
use inarch_core::backbone::{Backbone, BlockSite, Entry, Mode, Pass, Sites, Tower};
use inarch_core::text::Template;
use serde::{Deserialize, Serialize};

use super::context::Context;
use super::coop::Coop;
use crate::error::{Error, Result};
use crate::learner::{Correction, Guide, Learner, Loss, Step};
use crate::method::{Method, Prior, Start};

/// Settings of ProGrad; the defaults are those of its code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProGradConfig {
    /// Number of context tokens, used when `words` is empty.
    pub context: usize,
    /// Words whose embeddings the context starts from; empty for random values.
    pub words: String,
    /// How much of the conflicting part of a gradient is taken out, 0 to 1.
    pub strength: f64,
}

impl Default for ProGradConfig {
    fn default() -> Self {
        Self { context: 4, words: "a photo of a".into(), strength: 1.0 }
    }
}

/// A learned context that zero-shot guides.
#[derive(Module, Debug)]
pub struct ProGrad {
    prompt: Coop,
    strength: f64,
}

impl Method for ProGradConfig {
    type Adapter = ProGrad;

    /// [`Error::Setting`] for a context without room or a strength outside 0 to 1.
    fn init(&self, start: &Start<'_>) -> Result<ProGrad> {
        if !(0.0..=1.0).contains(&self.strength) {
            let reason = format!("must be 0 to 1, found {}", self.strength);
            return Err(Error::Setting { setting: "strength", reason });
        }
        let prompt = Coop::shared(start, Context::new(&self.words, self.context))?;
        Ok(ProGrad { prompt, strength: self.strength })
    }

    fn trainable(&self, backbone: &Backbone, _classes: usize, _images: usize) -> usize {
        Context::new(&self.words, self.context).tokens(backbone) * backbone.width(Tower::Text)
    }

    fn starts_as_zero_shot(&self) -> bool {
        Context::new(&self.words, self.context).is_words()
    }

    fn templates(&self) -> Result<Vec<Template>> {
        Ok(vec![Context::new(&self.words, self.context).template()?])
    }

    fn prior(&self) -> Prior {
        Prior::Run
    }
}

impl Learner for ProGrad {
    fn loss(&self, step: &Step<'_>) -> Loss {
        let guide = step.frozen_logits().map(|frozen| {
            let [rows, _] = frozen.dims();
            let loss = (softmax(frozen, 1) * log_softmax(step.logits.clone(), 1)).sum() / -(rows as f32);
            Guide { losses: vec![loss], correction: Correction::Each { strength: self.strength } }
        });
        Loss { task: step.cross_entropy(), guide }
    }
}

impl Sites for ProGrad {
    fn entry(&self, tower: Tower) -> Entry {
        self.prompt.entry(tower)
    }

    fn shares_beginnings(&self, mode: Mode) -> bool {
        self.prompt.shares_beginnings(mode)
    }

    fn tokens(&self, at: BlockSite, tokens: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        self.prompt.tokens(at, tokens, pass)
    }
}
