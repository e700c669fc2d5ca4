//! TCP: class-aware prompts, made of each class's frozen text feature by a small network and put into a deeper block of
//! the text tower (Yao et al., CVPR 2024, arXiv 2311.18231).
//!
//! CoOp's context `[n, width]` at the input; at block `b` the positions 1 to `n` of class `c` are replaced by
//! `gelu(t0_c D + d) U + u`, `[n * width]`, with `t0_c` `[dim]` the normalised frozen feature under the run's templates, `D`
//! `[dim, dim / reduction]`, `U` `[dim / reduction, n * width]`; gelu is the quick one, `z sigmoid(1.702 z)`. The loss is
//! KgCoOp's. Count: `n * width + (dim + 1) * h + (h + 1) * n * width` with `h = dim / reduction`. The network is drawn, so a
//! fresh adapter is not zero-shot. Site: tokens of the text tower, at its input and at block `b`.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::activation::sigmoid;
use inarch_core::backbone::{Backbone, BlockSite, Entry, Pass, Sites, Tower, normalise};
use inarch_core::text::Template;
use serde::{Deserialize, Serialize};

use super::context::Context;
use super::place::{each_into_text, into_text};
use crate::affine::Affine;
use crate::error::{Error, Result};
use crate::learner::{Learner, Loss, Step};
use crate::linear::check_finite;
use crate::method::{Method, Prior, Start};

/// Settings of TCP; the defaults are those of its code, which enters block 8 of 12.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TcpConfig {
    /// Number of context tokens, used when `words` is empty.
    pub context: usize,
    /// Words whose embeddings the context starts from; empty for random values.
    pub words: String,
    /// Width of the features over the width of the network's hidden layer.
    pub reduction: usize,
    /// How far down the text tower the class-aware prompts enter, 0 to 1; rounded down to a block, the second at least.
    pub depth_share: f64,
    /// Weight of the distance to the frozen class features.
    pub weight: f64,
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self { context: 4, words: "a photo of a".into(), reduction: 4, depth_share: 2.0 / 3.0, weight: 8.0 }
    }
}

impl TcpConfig {
    fn start(&self) -> Context<'_> {
        Context::new(&self.words, self.context)
    }

    fn hidden(&self, backbone: &Backbone) -> usize {
        backbone.spec().dim / self.reduction.max(1)
    }
}

/// A context, and the network of the class-aware prompts.
#[derive(Module, Debug)]
pub struct Tcp {
    context: Param<Tensor<2>>,
    down: Affine,
    up: Affine,
    block: usize,
    weight: f64,
}

impl Method for TcpConfig {
    type Adapter = Tcp;

    /// [`Error::Setting`] for a context without room, a reduction that leaves nothing, a share outside 0 to 1, a weight that
    /// is no number, or a text tower of one block.
    fn init(&self, start: &Start<'_>) -> Result<Tcp> {
        let backbone = start.backbone;
        let (dim, depth) = (backbone.spec().dim, backbone.depth(Tower::Text));
        let fault = |setting, reason| Err(Error::Setting { setting, reason });
        check_finite("weight", self.weight)?;
        if self.reduction == 0 || self.reduction > dim {
            return fault("reduction", format!("must be 1 to {dim}, found {}", self.reduction));
        }
        if !(0.0..1.0).contains(&self.depth_share) || depth < 2 {
            let reason = format!("must be in [0, 1) over at least two blocks, found {} of {depth}", self.depth_share);
            return fault("depth_share", reason);
        }
        let context = self.start().values(start, 1)?;
        let [tokens, width] = context.dims();
        let hidden = self.hidden(backbone);
        Ok(Tcp {
            context: Param::from_tensor(context),
            down: Affine::new([dim, hidden], start.seed.split("down"), start.device),
            up: Affine::new([hidden, tokens * width], start.seed.split("up"), start.device),
            block: ((self.depth_share * depth as f64 + 1e-9) as usize).max(1),
            weight: self.weight,
        })
    }

    fn trainable(&self, backbone: &Backbone, _classes: usize, _images: usize) -> usize {
        let context = self.start().tokens(backbone) * backbone.width(Tower::Text);
        let (dim, hidden) = (backbone.spec().dim, self.hidden(backbone));
        context + Affine::count([dim, hidden]) + Affine::count([hidden, context])
    }

    fn starts_as_zero_shot(&self) -> bool {
        false
    }

    fn templates(&self) -> Result<Vec<Template>> {
        Ok(vec![self.start().template()?])
    }

    fn prior(&self) -> Prior {
        Prior::Run
    }
}

impl Learner for Tcp {
    fn loss(&self, step: &Step<'_>) -> Loss {
        Loss::plain(step.cross_entropy() + step.text_drift() * self.weight)
    }
}

impl Sites for Tcp {
    fn entry(&self, tower: Tower) -> Entry {
        match tower {
            Tower::Image => Entry::Never,
            Tower::Text => Entry::Tokens,
        }
    }

    fn tokens(&self, at: BlockSite, tokens: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        if at == BlockSite::new(Tower::Text, 0) {
            return into_text(tokens, self.context.val(), pass);
        }
        let Some(prior) = pass.prior.filter(|_| at == BlockSite::new(Tower::Text, self.block)) else { return tokens };
        let hidden = self.down.forward(normalise(prior.clone()));
        let prompts = self.up.forward(hidden.clone() * sigmoid(hidden * 1.702));
        let ([classes, _], [count, width]) = (prompts.dims(), self.context.val().dims());
        each_into_text(tokens, prompts.reshape([classes, count, width]), pass)
    }
}
