//! VPT: learned tokens behind the patches of the image tower (Jia et al., ECCV 2022, arXiv 2203.12119).
//!
//! Shallow: `n` tokens `[n, width]` enter before the first block. Deep: each of the first `depth` blocks has its own, which
//! take the place of what the block before made of them. All are drawn from N(0, 0.02), so a fresh adapter is not zero-shot.
//! Count: `depth * n * width`. Site: tokens of the image tower.

use burn::module::Module;
use burn::tensor::Tensor;
use inarch_core::backbone::{Backbone, BlockSite, Entry, Pass, Sites, Tower};
use serde::{Deserialize, Serialize};

use super::deep::DeepPrompts;
use crate::error::Result;
use crate::learner::Learner;
use crate::method::{Method, Stacking, Start, Words};

/// Settings of shallow VPT; the default is eight tokens, as the CoOp family uses it on CLIP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VptShallowConfig {
    /// Number of tokens.
    pub tokens: usize,
}

impl Default for VptShallowConfig {
    fn default() -> Self {
        Self { tokens: 8 }
    }
}

/// Settings of deep VPT; the default is eight tokens in every block of up to twelve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VptDeepConfig {
    /// Number of tokens in each block.
    pub tokens: usize,
    /// Blocks with tokens of their own, from the first; at most those of the tower.
    pub depth: usize,
}

impl Default for VptDeepConfig {
    fn default() -> Self {
        Self { tokens: 8, depth: 12 }
    }
}

/// Learned tokens of the image tower.
#[derive(Module, Debug)]
pub struct Vpt {
    image: DeepPrompts,
}

impl Method for VptShallowConfig {
    type Adapter = Vpt;

    /// [`Error::Setting`](crate::Error::Setting) for no tokens or too many.
    fn init(&self, start: &Start<'_>) -> Result<Vpt> {
        Ok(Vpt { image: DeepPrompts::image(start, self.tokens, 1)? })
    }

    fn words(&self) -> Words {
        Words::Unneeded
    }

    fn image_blocks(&self) -> bool {
        true
    }

    fn crosses(&self) -> bool {
        true
    }

    fn trainable(&self, backbone: &Backbone, _classes: usize, _images: usize) -> usize {
        self.tokens * backbone.width(Tower::Image)
    }

    fn starts_as_zero_shot(&self) -> bool {
        false
    }

    fn stacking(&self) -> Stacking {
        Stacking::AddsImageTokens
    }
}

impl Method for VptDeepConfig {
    type Adapter = Vpt;

    /// [`Error::Setting`](crate::Error::Setting) for no tokens, too many, or no block.
    fn init(&self, start: &Start<'_>) -> Result<Vpt> {
        Ok(Vpt { image: DeepPrompts::image(start, self.tokens, self.depth)? })
    }

    fn words(&self) -> Words {
        Words::Unneeded
    }

    fn image_blocks(&self) -> bool {
        true
    }

    fn crosses(&self) -> bool {
        true
    }

    fn trainable(&self, backbone: &Backbone, _classes: usize, _images: usize) -> usize {
        self.depth.min(backbone.depth(Tower::Image)) * self.tokens * backbone.width(Tower::Image)
    }

    fn starts_as_zero_shot(&self) -> bool {
        false
    }

    fn stacking(&self) -> Stacking {
        Stacking::AddsImageTokens
    }
}

impl Learner for Vpt {}

impl Sites for Vpt {
    fn entry(&self, tower: Tower) -> Entry {
        match tower {
            Tower::Image => Entry::Tokens,
            Tower::Text => Entry::Never,
        }
    }

    fn tokens(&self, at: BlockSite, tokens: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        match at.tower {
            Tower::Image => self.image.insert(at, tokens, pass),
            Tower::Text => tokens,
        }
    }
}
