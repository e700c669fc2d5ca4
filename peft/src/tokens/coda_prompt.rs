//! CODA-Prompt: image prompts that are sums of components, weighted by how near a part of the image's own frozen feature is to
//! each component's key (Smith et al., CVPR 2023, arXiv 2211.13218).
//!
//! With the normalised frozen feature `q` `[dim]`, attention vectors `A` and keys `K` `[components, dim]` and components `P`
//! `[components, length, width]` in each of the first `depth` blocks: `p = sum_m cos(q * A_m, K_m) P_m`, behind the patches of
//! that image. Nothing is chosen, so every component learns from every image. The loss adds
//! `ortho * sum over blocks of |B B^T - I|^2` of the flattened `K`, `A` and `P`, as a mean over entries. Prompts stand as tokens, as
//! in [`vpt`](super::vpt), where the authors extend keys and values. Drawn from N(0, 0.02), keys and attention from N(0, 1), so a fresh
//! adapter is not zero-shot. Count: `depth * components * (2 dim + length * width)`. Site: tokens of the image tower.
//!
//! With several `experiences` the components of those before stand still, and count in the sum and in the penalty. The strategy
//! `coda-prompt` of `inarch stream` adds one experience at a time; the authors divide one pool among a number of tasks that is known.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use inarch_core::Seed;
use inarch_core::backbone::{Backbone, BlockSite, Entry, Pass, Sites, Tower, normalise};
use serde::{Deserialize, Serialize};

use super::deep::{MOST_TOKENS, clamped};
use super::place::each_behind_patches;
use crate::error::{Error, Result};
use crate::fixed::Fixed;
use crate::learner::{Learner, Loss, Step};
use crate::method::{Method, Stacking, Start, Words};

/// Settings of CODA-Prompt; the defaults are the paper's, and as many components as the small backbones have room for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CodaPromptConfig {
    /// Experiences with components of their own; those of the last are trained.
    pub experiences: usize,
    /// Components of each block, for an experience.
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
        Self { experiences: 1, components: 100, length: 8, depth: 5, ortho: 0.1 }
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
    past: Option<Past>,
}

/// The components of one block from all experiences before, one behind the other.
#[derive(Module, Debug)]
struct Past {
    attention: Fixed<2>,
    keys: Fixed<2>,
    prompts: Fixed<3>,
}

/// Weighted components in the first blocks.
#[derive(Module, Debug)]
pub struct CodaPrompt {
    blocks: Vec<Components>,
    ortho: f64,
}

impl Method for CodaPromptConfig {
    type Adapter = CodaPrompt;

    /// [`Error::Setting`] for no or too many experiences, components or tokens, or no block.
    fn init(&self, start: &Start<'_>) -> Result<CodaPrompt> {
        let settings = [("experiences", self.experiences), ("components", self.components), ("length", self.length)];
        for (setting, value) in settings {
            if value == 0 || value > MOST_TOKENS {
                return Err(Error::Setting { setting, reason: format!("must be 1 to {MOST_TOKENS}, found {value}") });
            }
        }
        let depth = clamped(start.backbone, Tower::Image, self.depth)?;
        let (dim, width) = (start.backbone.spec().dim, start.backbone.width(Tower::Image));
        let shape = [self.components, self.length, width];
        let before = self.experiences - 1;
        let blocks = (0..depth).map(|block| Components::new(dim, shape, before, start.seed.split(block), start.device));
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
    fn new(dim: usize, [components, length, width]: [usize; 3], before: usize, seed: Seed, device: &Device) -> Self {
        let draw = |seed: Seed, device: &Device| {
            let rows = |name: &str, columns: usize, deviation: f32| {
                let values = seed.split(name).normals(components * columns, deviation);
                Tensor::<2>::from_data(TensorData::new(values, [components, columns]), device)
            };
            let prompts = rows("prompts", length * width, 0.02).reshape([components, length, width]);
            (rows("attention", dim, 1.0), rows("keys", dim, 1.0), prompts)
        };
        let plain = device.clone().without_autodiff();
        let past = (before > 0).then(|| {
            let (mut attention, mut keys, mut prompts) = (Vec::new(), Vec::new(), Vec::new());
            for experience in 0..before {
                let (its_attention, its_keys, its_prompts) = draw(seed.split("past").split(experience), &plain);
                attention.push(its_attention);
                keys.push(its_keys);
                prompts.push(its_prompts);
            }
            let [attention, keys] = [attention, keys].map(|parts| Fixed::new(Tensor::cat(parts, 0)));
            Past { attention, keys, prompts: Fixed::new(Tensor::cat(prompts, 0)) }
        });
        let (attention, keys, prompts) = draw(seed, device);
        Self {
            attention: Param::from_tensor(attention),
            keys: Param::from_tensor(keys),
            prompts: Param::from_tensor(prompts),
            past,
        }
    }

    /// Attention and keys `[components, dim]` and prompts `[components, length, width]` of all experiences, the last one's last.
    fn all(&self) -> (Tensor<2>, Tensor<2>, Tensor<3>) {
        let (attention, keys, prompts) = (self.attention.val(), self.keys.val(), self.prompts.val());
        let Some(past) = &self.past else { return (attention, keys, prompts) };
        (
            Tensor::cat(vec![past.attention.val(), attention], 0),
            Tensor::cat(vec![past.keys.val(), keys], 0),
            Tensor::cat(vec![past.prompts.val(), prompts], 0),
        )
    }

    /// The prompt of each image, `[images, length, width]`, for normalised queries `[images, dim]`.
    fn prompts(&self, query: &Tensor<2>) -> Tensor<3> {
        let (attention, keys, prompts) = self.all();
        let ([images, dim], [components, length, width]) = (query.dims(), prompts.dims());
        let attended: Tensor<3> = query.clone().unsqueeze_dim::<3>(1) * attention.unsqueeze::<3>();
        let attended = normalise(attended.reshape([images * components, dim])).reshape([images, components, dim]);
        let weights: Tensor<2> = (attended * normalise(keys).unsqueeze::<3>()).sum_dim(2).squeeze_dim(2);
        weights.matmul(prompts.reshape([components, length * width])).reshape([images, length, width])
    }

    /// How far from orthonormal the rows of keys, attention and prompts are, `[1]`.
    fn overlap(&self) -> Tensor<1> {
        let (attention, keys, prompts) = self.all();
        let [components, length, width] = prompts.dims();
        let apart = |rows: Tensor<2>| {
            let device = rows.device().without_autodiff();
            (rows.clone().matmul(rows.transpose()) - Tensor::<2>::eye(components, &device)).powf_scalar(2.0).mean()
        };
        apart(keys) + apart(attention) + apart(prompts.reshape([components, length * width]))
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
