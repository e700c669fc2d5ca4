//! CODA-Prompt: image prompts that are sums of components, weighted by how near a part of the image's own frozen feature is to
//! each component's key (Smith et al., CVPR 2023, arXiv 2211.13218).
//!
//! With the normalised frozen feature `q` `[dim]`, attention vectors `A` and keys `K` `[components, dim]` and components `P`
//! `[components, length, width]` in each of the first `depth` blocks: `p = sum_m cos(q * A_m, K_m) P_m`, behind the patches of
//! that image. Nothing is chosen, so every component learns from every image. The loss adds
//! `ortho * sum over blocks of |B B^T - I|^2` of the flattened `K`, `A` and `P`, as a mean over entries. Prompts stand as tokens, as
//! in [`vpt`](super::vpt), where the authors extend keys and values; components are all there from the start, as the number of
//! tasks need not be known. Drawn from N(0, 0.02), keys and attention from N(0, 1), so a fresh adapter is not zero-shot. Count:
//! `depth * components * (2 dim + length * width)`. Site: tokens of the image tower.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use inarch_core::Seed;
use inarch_core::backbone::{Backbone, BlockSite, Entry, Pass, Sites, Tower, normalise};
use serde::{Deserialize, Serialize};

use super::deep::{MOST_TOKENS, clamped};
use super::place::each_behind_patches;
use crate::error::{Error, Result};
use crate::learner::{Learner, Loss, Step};
use crate::method::{Method, Stacking, Start, Words};

/// Settings of CODA-Prompt; the defaults are the paper's, and as many components as the small backbones have room for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CodaPromptConfig {
    /// Components of each block.
    pub components: usize,
    /// Tokens of a prompt.
    pub length: usize,
    /// Blocks with prompts, from the first; at most those of the tower.
    pub depth: usize,
    /// Weight of the penalty that keeps components apart.
    pub ortho: f64,
}

impl Default for CodaPromptConfig {
    fn default() -> Self {
        Self { components: 100, length: 8, depth: 5, ortho: 0.1 }
    }
}

/// The components of one block.
#[derive(Module, Debug)]
struct Components {
    /// `[components, dim]`.
    attention: Param<Tensor<2>>,
    /// `[components, dim]`.
    keys: Param<Tensor<2>>,
    /// `[components, length, width]`.
    prompts: Param<Tensor<3>>,
}

/// Weighted components in the first blocks.
#[derive(Module, Debug)]
pub struct CodaPrompt {
    blocks: Vec<Components>,
    ortho: f64,
}

impl Method for CodaPromptConfig {
    type Adapter = CodaPrompt;

    /// [`Error::Setting`] for no or too many components or tokens, or no block.
    fn init(&self, start: &Start<'_>) -> Result<CodaPrompt> {
        for (setting, value) in [("components", self.components), ("length", self.length)] {
            if value == 0 || value > MOST_TOKENS {
                return Err(Error::Setting { setting, reason: format!("must be 1 to {MOST_TOKENS}, found {value}") });
            }
        }
        let depth = clamped(start.backbone, Tower::Image, self.depth)?;
        let (dim, width) = (start.backbone.spec().dim, start.backbone.width(Tower::Image));
        let shape = [self.components, self.length, width];
        let blocks = (0..depth).map(|block| Components::new(dim, shape, start.seed.split(block), start.device));
        Ok(CodaPrompt { blocks: blocks.collect(), ortho: self.ortho })
    }

    fn words(&self) -> Words {
        Words::Unneeded
    }

    fn image_blocks(&self) -> bool {
        true
    }

    fn trainable(&self, backbone: &Backbone, _classes: usize, _images: usize) -> usize {
        let row = 2 * backbone.spec().dim + self.length * backbone.width(Tower::Image);
        self.depth.min(backbone.depth(Tower::Image)) * self.components * row
    }

    fn starts_as_zero_shot(&self) -> bool {
        false
    }

    fn stacking(&self) -> Stacking {
        Stacking::AddsImageTokens
    }
}

impl Components {
    fn new(dim: usize, [components, length, width]: [usize; 3], seed: Seed, device: &Device) -> Self {
        let draw = |name: &str, columns: usize, deviation: f32| {
            TensorData::new(seed.split(name).normals(components * columns, deviation), [components, columns])
        };
        let prompts = draw("prompts", length * width, 0.02);
        let prompts: Tensor<2> = Tensor::from_data(prompts, device);
        Self {
            attention: Param::from_tensor(Tensor::from_data(draw("attention", dim, 1.0), device)),
            keys: Param::from_tensor(Tensor::from_data(draw("keys", dim, 1.0), device)),
            prompts: Param::from_tensor(prompts.reshape([components, length, width])),
        }
    }

    /// The prompt of each image, `[images, length, width]`, for normalised queries `[images, dim]`.
    fn prompts(&self, query: &Tensor<2>) -> Tensor<3> {
        let ([images, dim], [components, length, width]) = (query.dims(), self.prompts.val().dims());
        let attended: Tensor<3> = query.clone().unsqueeze_dim::<3>(1) * self.attention.val().unsqueeze::<3>();
        let attended = normalise(attended.reshape([images * components, dim])).reshape([images, components, dim]);
        let keys = normalise(self.keys.val()).unsqueeze::<3>();
        let weights: Tensor<2> = (attended * keys).sum_dim(2).squeeze_dim(2);
        let flat = self.prompts.val().reshape([components, length * width]);
        weights.matmul(flat).reshape([images, length, width])
    }

    /// How far from orthonormal the rows of keys, attention and prompts are, `[1]`.
    fn overlap(&self) -> Tensor<1> {
        let [components, length, width] = self.prompts.val().dims();
        let apart = |rows: Tensor<2>| {
            let device = rows.device().without_autodiff();
            (rows.clone().matmul(rows.transpose()) - Tensor::<2>::eye(components, &device)).powf_scalar(2.0).mean()
        };
        let prompts = self.prompts.val().reshape([components, length * width]);
        apart(self.keys.val()) + apart(self.attention.val()) + apart(prompts)
    }
}

impl Learner for CodaPrompt {
    fn loss(&self, step: &Step<'_>) -> Loss {
        let task = step.cross_entropy();
        if self.ortho == 0.0 {
            return Loss::plain(task);
        }
        Loss::plain(self.blocks.iter().fold(task, |loss, block| loss + block.overlap() * self.ortho))
    }

    fn needs_frozen_image(&self) -> bool {
        true
    }
}

impl Sites for CodaPrompt {
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
        let (Some(query), Tower::Image, Some(block)) = (pass.query, at.tower, self.blocks.get(at.block)) else {
            return tokens;
        };
        each_behind_patches(at.block, tokens, block.prompts(query))
    }
}
