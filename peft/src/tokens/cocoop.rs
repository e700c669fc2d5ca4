//! CoCoOp: context tokens moved by a small network of the image feature, so that every image has its own class texts
//! (Zhou et al., CVPR 2022, arXiv 2203.05557).
//!
//! `v_j(x) = v_j + relu(f D + d) U + u` with the normalised image feature `f` `[dim]`, `v` `[n, width]`, `D`
//! `[dim, dim / reduction]`, `U` `[dim / reduction, width]` and their biases. The network starts uniform within
//! `1 / sqrt(inputs)`, so a fresh adapter is near zero-shot, not equal to it. Count:
//! `n * width + (dim + 1) * h + (h + 1) * width` with `h = dim / reduction`. Site: the input tokens of the text tower, which
//! runs once for each image and class.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use inarch_core::backbone::{Backbone, BlockSite, Entry, Mode, Pass, Sites, Tower};
use inarch_core::text::Template;
use serde::{Deserialize, Serialize};

use super::context::Context;
use super::place::each_into_text;
use crate::affine::Affine;
use crate::error::{Error, Result};
use crate::learner::Learner;
use crate::method::{Method, Start};

/// Settings of CoCoOp; the defaults are the paper's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CoCoopConfig {
    /// Number of context tokens, used when `words` is empty.
    pub context: usize,
    /// Words whose embeddings the context starts from; empty for random values.
    pub words: String,
    /// Width of the features over the width of the network's hidden layer.
    pub reduction: usize,
}

impl Default for CoCoopConfig {
    fn default() -> Self {
        Self { context: 4, words: "a photo of a".into(), reduction: 16 }
    }
}

/// A learned context and the network that moves it.
#[derive(Module, Debug)]
pub struct CoCoop {
    context: Param<Tensor<2>>,
    down: Affine,
    up: Affine,
}

impl Method for CoCoopConfig {
    type Adapter = CoCoop;

    /// [`Error::Setting`] for a context without room or a reduction that leaves nothing.
    fn init(&self, start: &Start<'_>) -> Result<CoCoop> {
        let (dim, width) = (start.backbone.spec().dim, start.backbone.width(Tower::Text));
        if self.reduction == 0 || self.reduction > dim {
            let reason = format!("must be 1 to {dim}, found {}", self.reduction);
            return Err(Error::Setting { setting: "reduction", reason });
        }
        let hidden = dim / self.reduction;
        Ok(CoCoop {
            context: Param::from_tensor(Context::new(&self.words, self.context).values(start, 1)?),
            down: Affine::new([dim, hidden], start.seed.split("down"), start.device),
            up: Affine::new([hidden, width], start.seed.split("up"), start.device),
        })
    }

    fn trainable(&self, backbone: &Backbone, _classes: usize, _images: usize) -> usize {
        let (dim, width) = (backbone.spec().dim, backbone.width(Tower::Text));
        let hidden = dim / self.reduction.max(1);
        let tokens = Context::new(&self.words, self.context).tokens(backbone);
        tokens * width + (dim + 1) * hidden + (hidden + 1) * width
    }

    fn starts_as_zero_shot(&self) -> bool {
        false
    }

    fn templates(&self) -> Result<Vec<Template>> {
        Ok(vec![Context::new(&self.words, self.context).template()?])
    }
}

impl Learner for CoCoop {}

impl Sites for CoCoop {
    fn entry(&self, tower: Tower) -> Entry {
        match tower {
            Tower::Image => Entry::Never,
            Tower::Text => Entry::Tokens,
        }
    }

    fn shares_beginnings(&self, _mode: Mode) -> bool {
        true
    }

    fn conditions_text(&self) -> bool {
        true
    }

    fn tokens(&self, at: BlockSite, tokens: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        let (Some(image), Tower::Text, 0) = (pass.condition, at.tower, at.block) else { return tokens };
        let shift = self.up.forward(relu(self.down.forward(image.clone())));
        let ([images, width], [count, _]) = (shift.dims(), self.context.val().dims());
        let [texts, length, _] = tokens.dims();
        let contexts = self.context.val().unsqueeze::<3>() + shift.unsqueeze_dim::<3>(1);
        let contexts = contexts.unsqueeze_dim::<4>(1).expand([images, texts, count, width]);
        let tokens = tokens.unsqueeze::<4>().expand([images, texts, length, width]);
        let (tokens, contexts) =
            (tokens.reshape([images * texts, length, width]), contexts.reshape([images * texts, count, width]));
        each_into_text(tokens, contexts, pass)
    }
}
