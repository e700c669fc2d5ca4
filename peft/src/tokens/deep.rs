//! Prompts of several blocks of a tower: what VPT, IVLP, PromptSRC and MaPLe share.
//!
//! Image prompts stand behind the patches, text prompts in the positions after the start token. From block 1 on a block's own
//! prompts take the place of what the block before made of its prompts; a block without its own goes on with those.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use inarch_core::Seed;
use inarch_core::backbone::{Backbone, BlockSite, Pass, Tower};

use super::context::Context;
use super::place::{behind_patches, into_text};
use crate::error::{Error, Result};
use crate::method::Start;

/// Standard deviation of random prompts.
pub(super) const DEVIATION: f32 = 0.02;
/// More image prompts than anyone trains; a manifest must not ask for all memory.
pub(super) const MOST_TOKENS: usize = 1024;

/// The prompts of the first blocks of one tower, `[n, width]` each.
#[derive(Module, Debug)]
pub(super) struct DeepPrompts {
    blocks: Vec<Param<Tensor<2>>>,
}

impl DeepPrompts {
    /// Prompts of the image tower, all drawn.
    ///
    /// # Errors
    /// [`Error::Setting`] for no tokens or too many, or no block.
    pub(super) fn image(start: &Start<'_>, tokens: usize, depth: usize) -> Result<Self> {
        if tokens == 0 || tokens > MOST_TOKENS {
            let reason = format!("must be 1 to {MOST_TOKENS}, found {tokens}");
            return Err(Error::Setting { setting: "tokens", reason });
        }
        let depth = clamped(start.backbone, Tower::Image, depth)?;
        let shape = [tokens, start.backbone.width(Tower::Image)];
        let draw = |block| Param::from_tensor(drawn(shape, start.seed.split("image").split(block), start.device));
        Ok(Self { blocks: (0..depth).map(draw).collect() })
    }

    /// Prompts of the text tower: those of the input take the place of the first `tokens` tokens of `words`, the deeper
    /// ones are drawn.
    ///
    /// # Errors
    /// [`Error::Setting`] for more tokens than the words have, or no block.
    pub(super) fn text(start: &Start<'_>, words: &str, tokens: usize, depth: usize) -> Result<Self> {
        let depth = clamped(start.backbone, Tower::Text, depth)?;
        let context = Context::new(words, 0).values(start, 1)?;
        let [available, width] = context.dims();
        if tokens == 0 || tokens > available {
            let reason = format!("must be 1 to the {available} tokens of `{words}`, found {tokens}");
            return Err(Error::Setting { setting: "tokens", reason });
        }
        let prompt = |block: usize| match block {
            0 => Param::from_tensor(Tensor::from_data(context.clone().narrow(0, 0, tokens).into_data(), start.device)),
            _ => Param::from_tensor(drawn([tokens, width], start.seed.split("text").split(block), start.device)),
        };
        Ok(Self { blocks: (0..depth).map(prompt).collect() })
    }

    /// Number of blocks with prompts.
    pub(super) fn depth(&self) -> usize {
        self.blocks.len()
    }

    /// The prompt of a block, `[n, width]`.
    pub(super) fn get(&self, block: usize) -> Option<Tensor<2>> {
        self.blocks.get(block).map(Param::val)
    }

    /// The stream with this block's prompts in it.
    pub(super) fn insert(&self, at: BlockSite, tokens: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        match (self.get(at.block), at.tower) {
            (None, _) => tokens,
            (Some(prompt), Tower::Text) => into_text(tokens, prompt, pass),
            (Some(prompt), Tower::Image) => behind_patches(at.block, tokens, prompt),
        }
    }
}

/// Blocks with prompts when `depth` are asked for: a tower may have fewer.
pub(super) fn clamped(backbone: &Backbone, tower: Tower, depth: usize) -> Result<usize> {
    match depth.min(backbone.depth(tower)) {
        0 => Err(Error::Setting { setting: "depth", reason: "must be at least 1 block".into() }),
        depth => Ok(depth),
    }
}

fn drawn(shape: [usize; 2], seed: Seed, device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(seed.normals(shape[0] * shape[1], DEVIATION), shape), device)
}
