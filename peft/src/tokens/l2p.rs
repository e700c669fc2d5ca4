//! L2P: a pool of prompts for the image tower, from which each image takes those whose keys its own frozen feature is
//! nearest to (Wang et al., CVPR 2022, arXiv 2112.08654).
//!
//! With the normalised frozen feature `q` `[dim]`, keys `k` `[pool, dim]` and prompts `p` `[pool, length, width]`, the `top`
//! prompts of greatest `cos(q, k_j)` stand behind the patches of that image. The loss is the task's less
//! `pull * sum_j cos(q, k_j)` over the chosen ones, mean over images, which draws keys to the images that choose them. What an
//! image chooses depends on no other image of its batch; the authors' code let a batch vote. The pooled token is CLIP's
//! class token in place of the mean of the prompts. Keys and prompts are drawn uniform within 1, respectively from N(0, 0.02),
//! so a fresh adapter is not zero-shot. Count: `pool * (dim + length * width)`. Site: input tokens of the image tower.

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor, TensorData};
use inarch_core::backbone::{Backbone, BlockSite, Entry, Pass, Sites, Tower, normalise};
use serde::{Deserialize, Serialize};

use super::deep::MOST_TOKENS;
use super::place::each_behind_patches;
use crate::error::{Error, Result};
use crate::learner::{Learner, Loss, Step};
use crate::method::{Method, Stacking, Start, Words};

/// Settings of L2P; the defaults are those of the reimplementations that reproduce it (a pool of ten prompts of five tokens,
/// five of them for each image).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct L2pConfig {
    /// Prompts in the pool.
    pub pool: usize,
    /// Tokens of a prompt.
    pub length: usize,
    /// Prompts of an image.
    pub top: usize,
    /// Weight of the keys' nearness to the images that choose them.
    pub pull: f64,
}

impl Default for L2pConfig {
    fn default() -> Self {
        Self { pool: 10, length: 5, top: 5, pull: 0.1 }
    }
}

/// A pool of prompts with their keys.
#[derive(Module, Debug)]
pub struct L2p {
    /// `[pool, dim]`.
    keys: Param<Tensor<2>>,
    /// `[pool, length, width]`.
    prompts: Param<Tensor<3>>,
    top: usize,
    pull: f64,
}

impl Method for L2pConfig {
    type Adapter = L2p;

    /// [`Error::Setting`] for an empty pool, prompts without tokens, more prompts for an image than there are, or too
    /// many tokens.
    fn init(&self, start: &Start<'_>) -> Result<L2p> {
        let Self { pool, length, top, pull } = *self;
        if pool == 0 || pool > MOST_TOKENS {
            let reason = format!("must be 1 to {MOST_TOKENS}, found {pool}");
            return Err(Error::Setting { setting: "pool", reason });
        }
        if top == 0 || top > pool {
            return Err(Error::Setting {
                setting: "top",
                reason: format!("must be 1 to the pool's {pool}, found {top}"),
            });
        }
        if length == 0 || length > MOST_TOKENS / top {
            let reason = format!("must be 1 to {}, found {length}", MOST_TOKENS / top);
            return Err(Error::Setting { setting: "length", reason });
        }
        let (dim, width) = (start.backbone.spec().dim, start.backbone.width(Tower::Image));
        let keys = start.seed.split("keys").uniforms(pool * dim, 1.0);
        let prompts = start.seed.split("prompts").normals(pool * length * width, 0.02);
        Ok(L2p {
            keys: Param::from_tensor(Tensor::from_data(TensorData::new(keys, [pool, dim]), start.device)),
            prompts: Param::from_tensor(Tensor::from_data(
                TensorData::new(prompts, [pool, length, width]),
                start.device,
            )),
            top,
            pull,
        })
    }

    fn words(&self) -> Words {
        Words::Unneeded
    }

    fn image_blocks(&self) -> bool {
        true
    }

    fn trainable(&self, backbone: &Backbone, _classes: usize, _images: usize) -> usize {
        self.pool * (backbone.spec().dim + self.length * backbone.width(Tower::Image))
    }

    fn starts_as_zero_shot(&self) -> bool {
        false
    }

    fn stacking(&self) -> Stacking {
        Stacking::AddsImageTokens
    }
}

impl L2p {
    /// Cosines `[images, pool]` of normalised queries and keys.
    fn cosines(&self, query: &Tensor<2>) -> Tensor<2> {
        query.clone().matmul(normalise(self.keys.val()).transpose())
    }

    /// The nearest keys of each image, nearest first, `[images, top]`.
    fn chosen(&self, cosines: &Tensor<2>) -> Tensor<2, Int> {
        cosines.clone().without_autodiff().argsort_descending(1).narrow(1, 0, self.top)
    }
}

impl Learner for L2p {
    fn loss(&self, step: &Step<'_>) -> Loss {
        let task = step.cross_entropy();
        let Some(frozen) = &step.frozen_image else { return Loss::plain(task) };
        let cosines = self.cosines(&normalise(frozen.clone()));
        let near = cosines.clone().gather(1, self.chosen(&cosines)).sum_dim(1).mean();
        Loss::plain(task - near * self.pull)
    }

    fn needs_frozen_image(&self) -> bool {
        true
    }
}

impl Sites for L2p {
    fn entry(&self, tower: Tower) -> Entry {
        match tower {
            Tower::Image => Entry::Tokens,
            Tower::Text => Entry::Never,
        }
    }

    fn queries_image(&self) -> bool {
        true
    }

    fn tokens(&self, at: BlockSite, tokens: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        let (Some(query), Tower::Image, 0) = (pass.query, at.tower, at.block) else { return tokens };
        let ([images, _], [_, length, width]) = (query.dims(), self.prompts.val().dims());
        let chosen = self.chosen(&self.cosines(query)).reshape([images * self.top]);
        let prompts = self.prompts.val().select(0, chosen).reshape([images, self.top * length, width]);
        each_behind_patches(at.block, tokens, prompts)
    }
}
