//! MaPLe: text prompts, and image prompts that are linear maps of them, in the first blocks of both towers (Khattak et al.,
//! CVPR 2023, arXiv 2210.03117).
//!
//! In block `i` the text prompts `P_i` `[n, text width]` take the positions after the start token, and
//! `P_i W_i + b_i` `[n, image width]` stand behind the patches. Only the first text prompt starts as words, and the maps are
//! drawn, so a fresh adapter is not zero-shot. Count: `depth * (n * text width + (text width + 1) * image width)`. Site: tokens
//! of both towers.

use burn::module::Module;
use burn::tensor::Tensor;
use inarch_core::backbone::{Backbone, BlockSite, Entry, Mode, Pass, Sites, Tower};
use inarch_core::text::Template;
use serde::{Deserialize, Serialize};

use super::context::Context;
use super::deep::DeepPrompts;
use super::place::behind_patches;
use crate::affine::Affine;
use crate::error::Result;
use crate::learner::Learner;
use crate::method::{Method, Stacking, Start};

/// Settings of MaPLe; the defaults are the paper's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MapleConfig {
    /// Words before the class name; the first text prompts take the place of their first tokens.
    pub words: String,
    /// Prompts in a block of each tower.
    pub tokens: usize,
    /// Blocks with prompts, from the first; at most those of the shorter tower.
    pub depth: usize,
}

impl Default for MapleConfig {
    fn default() -> Self {
        Self { words: "a photo of a".into(), tokens: 2, depth: 9 }
    }
}

impl MapleConfig {
    /// Coupled blocks: both towers must have them.
    fn depth(&self, backbone: &Backbone) -> usize {
        self.depth.min(backbone.depth(Tower::Image)).min(backbone.depth(Tower::Text))
    }
}

/// Coupled prompts of both towers.
#[derive(Module, Debug)]
pub struct Maple {
    text: DeepPrompts,
    maps: Vec<Affine>,
}

impl Method for MapleConfig {
    type Adapter = Maple;

    /// [`Error::Setting`](crate::Error::Setting) for numbers of tokens or blocks that do not fit.
    fn init(&self, start: &Start<'_>) -> Result<Maple> {
        let backbone = start.backbone;
        let text = DeepPrompts::text(start, &self.words, self.tokens, self.depth(backbone))?;
        let shape = [backbone.width(Tower::Text), backbone.width(Tower::Image)];
        let map = |block| Affine::new(shape, start.seed.split("map").split(block), start.device);
        Ok(Maple { maps: (0..text.depth()).map(map).collect(), text })
    }

    fn image_blocks(&self) -> bool {
        true
    }

    fn trainable(&self, backbone: &Backbone, _classes: usize, _images: usize) -> usize {
        let (text, image) = (backbone.width(Tower::Text), backbone.width(Tower::Image));
        self.depth(backbone) * (self.tokens * text + Affine::count([text, image]))
    }

    fn starts_as_zero_shot(&self) -> bool {
        false
    }

    fn templates(&self) -> Result<Vec<Template>> {
        Ok(vec![Context::new(&self.words, 0).template()?])
    }

    fn stacking(&self) -> Stacking {
        Stacking::AddsImageTokens
    }
}

impl Learner for Maple {}

impl Sites for Maple {
    fn entry(&self, _tower: Tower) -> Entry {
        Entry::Tokens
    }

    fn shares_beginnings(&self, _mode: Mode) -> bool {
        true
    }

    fn tokens(&self, at: BlockSite, tokens: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        match (at.tower, self.text.get(at.block), self.maps.get(at.block)) {
            (Tower::Text, _, _) => self.text.insert(at, tokens, pass),
            (Tower::Image, Some(prompt), Some(map)) => behind_patches(at.block, tokens, map.forward(prompt)),
            (Tower::Image, _, _) => tokens,
        }
    }
}
