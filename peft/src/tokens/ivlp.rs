//! IVLP: independent prompts in the first blocks of both towers (Khattak et al., CVPR 2023, arXiv 2210.03117, and ICCV 2023,
//! arXiv 2307.06948).
//!
//! Text prompts `[n, text width]` take the places of the first words of a template and of the same positions in deeper
//! blocks; image prompts `[n, image width]` stand behind the patches. Only the first text prompt starts as words, so a fresh
//! adapter is not zero-shot. Count: `depth * n * width`, summed over the towers. Site: tokens of both towers.

use burn::module::Module;
use burn::tensor::Tensor;
use inarch_core::backbone::{Backbone, BlockSite, Entry, Mode, Pass, Sites, Tower};
use inarch_core::text::Template;
use serde::{Deserialize, Serialize};

use super::context::Context;
use super::deep::DeepPrompts;
use crate::error::Result;
use crate::learner::Learner;
use crate::method::{Method, Stacking, Start};

/// Settings of IVLP; the defaults are those of the PromptSRC code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IvlpConfig {
    /// Words before the class name; the first text prompts take the place of their first tokens.
    pub words: String,
    /// Prompts in a block of the text tower.
    pub text_tokens: usize,
    /// Prompts in a block of the image tower.
    pub image_tokens: usize,
    /// Blocks with prompts in each tower, from the first; at most those of the tower.
    pub depth: usize,
}

impl Default for IvlpConfig {
    fn default() -> Self {
        Self { words: "a photo of a".into(), text_tokens: 4, image_tokens: 4, depth: 9 }
    }
}

/// Independent prompts of both towers.
#[derive(Module, Debug)]
pub struct Ivlp {
    image: DeepPrompts,
    text: DeepPrompts,
}

impl Method for IvlpConfig {
    type Adapter = Ivlp;

    /// [`Error::Setting`](crate::Error::Setting) for numbers of tokens or blocks that do not fit.
    fn init(&self, start: &Start<'_>) -> Result<Ivlp> {
        Ok(Ivlp {
            image: DeepPrompts::image(start, self.image_tokens, self.depth)?,
            text: DeepPrompts::text(start, &self.words, self.text_tokens, self.depth)?,
        })
    }

    fn image_blocks(&self) -> bool {
        true
    }

    fn trainable(&self, backbone: &Backbone, _classes: usize, _images: usize) -> usize {
        let values = |tower, tokens| self.depth.min(backbone.depth(tower)) * tokens * backbone.width(tower);
        values(Tower::Image, self.image_tokens) + values(Tower::Text, self.text_tokens)
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

impl Learner for Ivlp {}

impl Sites for Ivlp {
    fn entry(&self, _tower: Tower) -> Entry {
        Entry::Tokens
    }

    fn shares_beginnings(&self, _mode: Mode) -> bool {
        true
    }

    fn tokens(&self, at: BlockSite, tokens: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        match at.tower {
            Tower::Image => self.image.insert(at, tokens, pass),
            Tower::Text => self.text.insert(at, tokens, pass),
        }
    }
}
