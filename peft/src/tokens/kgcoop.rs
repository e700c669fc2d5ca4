//! KgCoOp: a learned context whose class features stay near those of hand-written prompts (Yao et al., CVPR 2023, arXiv
//! 2303.13283).
//!
//! CoOp's context, with the loss `cross entropy + weight * (1 - mean_c cos(t_c, t0_c))` over the classes, where `t_c` `[dim]`
//! is the class feature and `t0_c` the frozen one under the run's templates. Count: `n * width`. Site: the input tokens of
//! the text tower.

use burn::module::Module;
use burn::tensor::Tensor;
use inarch_core::backbone::{Backbone, BlockSite, Entry, Mode, Pass, Sites, Tower};
use inarch_core::text::Template;
use serde::{Deserialize, Serialize};

use super::context::Context;
use super::coop::Coop;
use crate::error::Result;
use crate::learner::{Learner, Loss, Step};
use crate::linear::check_finite;
use crate::method::{Method, Prior, Start};

/// Settings of KgCoOp; the defaults are the paper's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KgCoopConfig {
    /// Number of context tokens, used when `words` is empty.
    pub context: usize,
    /// Words whose embeddings the context starts from; empty for random values.
    pub words: String,
    /// Weight of the distance to the frozen class features.
    pub weight: f64,
}

impl Default for KgCoopConfig {
    fn default() -> Self {
        Self { context: 4, words: "a photo of a".into(), weight: 8.0 }
    }
}

/// A learned context that is held to the frozen features.
#[derive(Module, Debug)]
pub struct KgCoop {
    prompt: Coop,
    weight: f64,
}

impl Method for KgCoopConfig {
    type Adapter = KgCoop;

    /// [`Error::Setting`](crate::Error::Setting) for a context without room or a weight that is no number.
    fn init(&self, start: &Start<'_>) -> Result<KgCoop> {
        check_finite("weight", self.weight)?;
        let prompt = Coop::shared(start, Context::new(&self.words, self.context))?;
        Ok(KgCoop { prompt, weight: self.weight })
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

impl Learner for KgCoop {
    fn loss(&self, step: &Step<'_>) -> Loss {
        Loss::plain(step.cross_entropy() + step.text_drift() * self.weight)
    }
}

impl Sites for KgCoop {
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
