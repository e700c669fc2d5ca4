//! The shape of an image tower.

use serde::{Deserialize, Serialize};

use super::super::trunk::TrunkSpec;
use super::is_default;
use super::transformer::TransformerSpec;
use crate::error::{Error, Result};

/// How the tokens of an image become one feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImagePool {
    /// The first token.
    #[default]
    Class,
    /// A trained query attends to all tokens, and an MLP follows (SigLIP: Zhai et al., 2023, arXiv 2303.15343).
    Attention,
    /// The first token attends to all (CLIP's ResNets).
    Query,
    /// Not at all: every token meets the text ([`Crossing`](super::Crossing)).
    Tokens,
}

/// The image tower.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageSpec {
    /// Side of the square input, in pixels; 0 without a tower.
    pub size: usize,
    /// Side of a square patch, in pixels.
    pub patch: usize,
    /// The transformer.
    pub transformer: TransformerSpec,
    /// How the tower differs from CLIP's.
    #[serde(default, skip_serializing_if = "is_default")]
    pub style: ImageStyle,
}

/// How an image tower differs from CLIP's vision transformer, which is the default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImageStyle {
    /// Channels of the pixels: 3, or 1 for the mean of red, green and blue.
    pub channels: usize,
    /// Trained tokens before the patches; the first of them is the class token.
    pub class_tokens: usize,
    /// Whether the patch embedding has an offset.
    pub patch_bias: bool,
    /// Whether tokens are normalised before the first block.
    pub pre_norm: bool,
    /// How tokens become a feature.
    pub pool: ImagePool,
    /// What stands in place of patches: a convolutional trunk, whose stride is the patch size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trunk: Option<TrunkSpec>,
    /// Whether a projection into a shared space follows; else a feature is as wide as a token.
    pub projection: bool,
}

impl Default for ImageStyle {
    fn default() -> Self {
        Self {
            channels: 3,
            class_tokens: 1,
            patch_bias: false,
            pre_norm: true,
            pool: ImagePool::Class,
            trunk: None,
            projection: true,
        }
    }
}

impl ImageSpec {
    /// A vision transformer as in CLIP.
    pub fn new(size: usize, patch: usize, transformer: TransformerSpec) -> Self {
        Self { size, patch, transformer, style: ImageStyle::default() }
    }

    /// No tower.
    pub fn none() -> Self {
        Self::new(0, 0, TransformerSpec::none())
    }

    /// Patches along one side; 0 without a tower.
    pub fn grid(&self) -> usize {
        self.size.checked_div(self.patch).unwrap_or(0)
    }

    /// Tokens of one image: class tokens and patches, or the one that a trunk gives.
    pub fn tokens(&self) -> usize {
        if self.style.trunk.as_ref().is_some_and(TrunkSpec::pools) {
            return 1;
        }
        self.grid() * self.grid() + self.style.class_tokens
    }

    /// Values of one patch.
    pub fn patch_values(&self) -> usize {
        self.style.channels * self.patch * self.patch
    }

    /// Tokens that go on to a text, or 1 for a pooled feature.
    pub fn pooled_tokens(&self) -> usize {
        if self.style.pool == ImagePool::Tokens { self.tokens() } else { 1 }
    }

    pub(super) fn check(&self, dim: usize) -> Result<()> {
        let Self { size, patch, style, transformer } = self;
        match &style.trunk {
            // One stream of both has all blocks on the text's side.
            None if style.pool == ImagePool::Tokens && transformer.depth == 0 => {
                TransformerSpec { depth: 1, ..transformer.clone() }.check("vision_config")?;
            }
            None => transformer.check("vision_config")?,
            Some(_) if style.pool == ImagePool::Attention => {
                return Err(Error::mismatch("pool behind a trunk", "one without an MLP", "attention"));
            }
            Some(trunk) => trunk.check(*patch, transformer)?,
        }
        // A trunk that pools its map takes images of any size.
        let pools = style.trunk.as_ref().is_some_and(TrunkSpec::pools);
        if *patch == 0 || *size == 0 || *size > 1 << 14 || (!pools && !size.is_multiple_of(*patch)) {
            return Err(Error::mismatch("vision_config.image_size", format!("a multiple of patch_size {patch}"), size));
        }
        if ![1, 3].contains(&style.channels) {
            return Err(Error::mismatch("vision_config.num_channels", "3 (RGB) or 1 (grey)", style.channels));
        }
        if style.class_tokens > 2 || (style.class_tokens == 0 && style.pool == ImagePool::Class) {
            return Err(Error::mismatch("class tokens of the image tower", "1 or 2", style.class_tokens));
        }
        if !style.projection && dim != self.transformer.width {
            return Err(Error::mismatch("width of a feature", self.transformer.width, dim));
        }
        Ok(())
    }
}
