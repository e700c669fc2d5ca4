//! DualPrompt: keys and values that all images share in the first blocks, and in those behind them some that an image asks for by its
//! own frozen feature (Wang et al., ECCV 2022, arXiv 2204.04799).
//!
//! In the blocks of the general part `K = [G_k; k]`, `V = [G_v; v]` with `G` `[general_length, width]`; in those of the expert part
//! `K = [E_k(j); k]`, `V = [E_v(j); v]` with `E` `[pool, expert_length, width]` and the expert `j` of greatest `cos(q, key_j)` for the
//! normalised frozen feature `q` `[dim]`, keys `[pool, dim]`. The loss is the task's less `pull * cos(q, key_j)`, mean over images.
//!
//! Departure: the authors train expert `t` in task `t` and choose by key in tests only; here an image chooses in training as well, so
//! that no task has to be told or counted. What it chooses depends on no other image of its batch. Drawn from N(0, 0.02), keys
//! uniform within 1, so a fresh adapter is not zero-shot. Count: `pool * dim + 2 width * (general * general_length + expert * pool *
//! expert_length)` for blocks that exist. Site: the key and value projections of the image tower.

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor, TensorData};
use inarch_core::Seed;
use inarch_core::backbone::{
    Backbone, BlockSite, Entry, LinearBase, LinearSite, Pass, Projection, Sites, Tower, normalise,
};
use serde::{Deserialize, Serialize};

use super::deep::MOST_TOKENS;
use crate::error::{Error, Result};
use crate::learner::{Learner, Loss, Step};
use crate::method::{Method, Stacking, Start, Words};

/// Standard deviation of random keys and values.
const DEVIATION: f32 = 0.02;

/// Settings of DualPrompt; the defaults are the paper's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DualPromptConfig {
    /// Blocks of the general part, from the first.
    pub general: usize,
    /// Keys and values in each of them.
    pub general_length: usize,
    /// Blocks of the expert part, behind those.
    pub expert: usize,
    /// Keys and values of an expert.
    pub expert_length: usize,
    /// Experts.
    pub pool: usize,
    /// Weight of the keys' nearness to the images that choose them.
    pub pull: f64,
}

impl Default for DualPromptConfig {
    fn default() -> Self {
        Self { general: 2, general_length: 5, expert: 3, expert_length: 20, pool: 10, pull: 1.0 }
    }
}

/// Keys and values of one block, `[choices, length, width]` each.
#[derive(Module, Debug)]
struct Prefix {
    key: Param<Tensor<3>>,
    value: Param<Tensor<3>>,
}

impl Prefix {
    fn new(shape: [usize; 3], seed: Seed, device: &Device) -> Self {
        let draw = |name: &str| {
            let values = seed.split(name).normals(shape.iter().product(), DEVIATION);
            Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), device))
        };
        Self { key: draw("key"), value: draw("value") }
    }
}

/// Shared and chosen keys and values.
#[derive(Module, Debug)]
pub struct DualPrompt {
    general: Vec<Prefix>,
    expert: Vec<Prefix>,
    /// `[pool, dim]`.
    keys: Param<Tensor<2>>,
    pull: f64,
}

impl DualPromptConfig {
    /// Blocks of the general and of the expert part in a tower that may have fewer.
    fn blocks(&self, backbone: &Backbone) -> [usize; 2] {
        let depth = backbone.depth(Tower::Image);
        let general = self.general.min(depth);
        [general, self.expert.min(depth - general)]
    }
}

impl Method for DualPromptConfig {
    type Adapter = DualPrompt;

    /// [`Error::Setting`] for no or too many experts, keys or values, or no block for an expert.
    fn init(&self, start: &Start<'_>) -> Result<DualPrompt> {
        let Self { general_length, expert_length, pool, .. } = *self;
        for (setting, value) in [("general_length", general_length), ("expert_length", expert_length), ("pool", pool)] {
            if value == 0 || value > MOST_TOKENS {
                return Err(Error::Setting { setting, reason: format!("must be 1 to {MOST_TOKENS}, found {value}") });
            }
        }
        let [general, expert] = self.blocks(start.backbone);
        if expert == 0 {
            let depth = start.backbone.depth(Tower::Image);
            let reason =
                format!("no block is left for an expert: the tower has {depth}, the general part takes {general}");
            return Err(Error::Setting { setting: "expert", reason });
        }
        let (dim, width) = (start.backbone.spec().dim, start.backbone.attention_width(Tower::Image));
        let part = |name: &str, blocks: usize, shape: [usize; 3]| -> Vec<Prefix> {
            let seed = start.seed.split(name);
            (0..blocks).map(|block| Prefix::new(shape, seed.split(block), start.device)).collect()
        };
        let keys = TensorData::new(start.seed.split("keys").uniforms(pool * dim, 1.0), [pool, dim]);
        Ok(DualPrompt {
            general: part("general", general, [1, general_length, width]),
            expert: part("expert", expert, [pool, expert_length, width]),
            keys: Param::from_tensor(Tensor::from_data(keys, start.device)),
            pull: self.pull,
        })
    }

    fn words(&self) -> Words {
        Words::Unneeded
    }

    fn image_blocks(&self) -> bool {
        true
    }

    fn trainable(&self, backbone: &Backbone, _classes: usize, _images: usize) -> usize {
        let [general, expert] = self.blocks(backbone);
        let rows = general * self.general_length + expert * self.pool * self.expert_length;
        self.pool * backbone.spec().dim + 2 * backbone.attention_width(Tower::Image) * rows
    }

    fn starts_as_zero_shot(&self) -> bool {
        false
    }

    fn stacking(&self) -> Stacking {
        Stacking::AddsKeys
    }
}

impl DualPrompt {
    /// Cosines `[images, pool]` of normalised queries and keys.
    fn cosines(&self, query: &Tensor<2>) -> Tensor<2> {
        query.clone().matmul(normalise(self.keys.val()).transpose())
    }

    /// The nearest key of each image, `[images, 1]`.
    fn chosen(cosines: &Tensor<2>) -> Tensor<2, Int> {
        cosines.clone().without_autodiff().argsort_descending(1).narrow(1, 0, 1)
    }

    /// What stands before the keys or values of a block, `[images, length, width]`.
    fn prefix(&self, block: usize, projection: Projection, images: usize, pass: &Pass<'_>) -> Option<Tensor<3>> {
        let of = |prefix: &Prefix| match projection {
            Projection::Key => Some(prefix.key.val()),
            Projection::Value => Some(prefix.value.val()),
            _ => None,
        };
        if let Some(general) = self.general.get(block) {
            let [_, length, width] = general.key.val().dims();
            return Some(of(general)?.expand([images, length, width]));
        }
        let experts = of(self.expert.get(block - self.general.len())?)?;
        let chosen = Self::chosen(&self.cosines(pass.query?)).reshape([images]);
        Some(experts.select(0, chosen))
    }
}

impl Learner for DualPrompt {
    fn loss(&self, step: &Step<'_>) -> Loss {
        let task = step.cross_entropy();
        let Some(frozen) = &step.frozen_image else { return Loss::plain(task) };
        let cosines = self.cosines(&normalise(frozen.clone()));
        let near = cosines.clone().gather(1, Self::chosen(&cosines)).mean();
        Loss::plain(task - near * self.pull)
    }

    fn needs_frozen_image(&self) -> bool {
        true
    }
}

impl Sites for DualPrompt {
    fn entry(&self, tower: Tower) -> Entry {
        match tower {
            Tower::Image => Entry::Block(0),
            Tower::Text => Entry::Never,
        }
    }

    fn queries_image(&self) -> bool {
        true
    }

    fn linear(&self, base: LinearBase<'_>, input: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        let output = base.forward(input);
        let LinearSite::Block(BlockSite { tower: Tower::Image, block }, projection) = base.at else { return output };
        let [images, _, _] = output.dims();
        match self.prefix(block, projection, images, pass) {
            Some(prefix) => Tensor::cat(vec![prefix, output], 1),
            None => output,
        }
    }
}
