//! The shape of a backbone: two towers, or one.
//!
//! What a family of models does in another way than CLIP is a field whose default is CLIP's way. A default is not written,
//! so a backbone of CLIP has the same specification, and the same digest, whatever families are known.

mod image;
mod text;
mod transformer;

use serde::{Deserialize, Serialize};

pub use self::image::{ImagePool, ImageSpec, ImageStyle};
pub use self::text::{TextAttention, TextPool, TextProjection, TextSpec, TextStyle};
pub use self::transformer::{Activation, NormOrder, TransformerSpec};
use super::place::Tower;
use crate::error::{Error, Result};

/// How images and texts meet before there is a score. A score then belongs to a pair; neither side has a feature of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Crossing {
    /// Where they meet.
    pub meeting: Meeting,
    /// Whether a head tells how well a text fits an image.
    pub matches: bool,
    /// Whether a head tells words apart.
    pub words: bool,
    /// The token that every text begins with, in place of the tokenizer's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<u32>,
    /// The token that hides a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<u32>,
}

/// Where images and texts meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Meeting {
    /// Every block of the text tower looks at the image's tokens (BLIP: Li et al., 2022, arXiv 2201.12086).
    Attention,
    /// The image's tokens stand behind those of the text, in one stream (ViLT: Kim et al., 2021, arXiv 2102.03334).
    Stream,
}

/// A dual encoder, or one of its two towers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackboneSpec {
    /// Width of the shared space.
    pub dim: usize,
    /// The image tower.
    pub image: ImageSpec,
    /// The text tower.
    pub text: TextSpec,
    /// Whether scores have a trained offset (SigLIP: Zhai et al., 2023, arXiv 2303.15343).
    #[serde(default, skip_serializing_if = "is_default")]
    pub logit_bias: bool,
    /// How images and texts meet, where that is before the score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crossing: Option<Crossing>,
}

impl BackboneSpec {
    /// Two towers that meet before the score; a feature is a token of an image.
    pub fn crossing(image: ImageSpec, text: TextSpec, crossing: Crossing) -> Self {
        Self { crossing: Some(crossing), ..Self::new(image.transformer.width, image, text) }
    }

    /// Two towers and a temperature.
    pub fn new(dim: usize, image: ImageSpec, text: TextSpec) -> Self {
        Self { dim, image, text, logit_bias: false, crossing: None }
    }

    /// The shape of a backbone whose features come from elsewhere: a width, and towers without blocks.
    pub fn without_towers(dim: usize) -> Self {
        Self::new(dim, ImageSpec::none(), TextSpec::none())
    }

    /// Whether there is such a tower.
    pub fn has(&self, tower: Tower) -> bool {
        match tower {
            Tower::Image => self.image.size > 0,
            Tower::Text => self.text.vocabulary > 0,
        }
    }

    /// Checks that the sizes fit together.
    ///
    /// # Errors
    /// [`Error::Mismatch`] naming the size.
    pub fn check(&self) -> Result<()> {
        if self.dim == 0 || self.dim > 1 << 16 {
            return Err(Error::mismatch("projection_dim", "1 to 65536", self.dim));
        }
        if !self.has(Tower::Image) && !self.has(Tower::Text) {
            return Err(Error::mismatch("towers of a backbone", "at least one", 0));
        }
        if self.has(Tower::Image) {
            self.image.check(self.dim)?;
        }
        if self.has(Tower::Text) {
            self.text.check(if self.crossing.is_some() { self.text.transformer.width } else { self.dim })?;
        }
        match &self.crossing {
            Some(crossing) => self.check_crossing(crossing),
            None if self.image.style.pool == ImagePool::Tokens => {
                Err(Error::mismatch("pool of the image tower", "one that makes a feature", "its tokens"))
            }
            None => Ok(()),
        }
    }

    /// Checks that the towers can meet.
    fn check_crossing(&self, crossing: &Crossing) -> Result<()> {
        if !self.has(Tower::Image) || !self.has(Tower::Text) || self.image.style.pool != ImagePool::Tokens {
            let expected = "an image tower that ends in tokens, and a text tower";
            return Err(Error::mismatch("towers that meet", expected, format!("{:?}", self.image.style.pool)));
        }
        let (width, own) = (self.image.transformer.width, self.text.transformer.width);
        if crossing.meeting == Meeting::Stream && (width != own || self.text.is_causal()) {
            let expected = format!("one width and texts whose tokens see all, for a width of {own}");
            return Err(Error::mismatch("towers of one stream", expected, width));
        }
        if !crossing.matches && !crossing.words {
            return Err(Error::mismatch("heads of a model whose towers meet", "at least one", 0));
        }
        for (what, token) in
            [("text_config.bos_token_id", crossing.start), ("mask token of the text tower", crossing.mask)]
        {
            if let Some(token) = token.filter(|token| *token as usize >= self.text.vocabulary) {
                return Err(Error::mismatch(what, format!("a token below {}", self.text.vocabulary), token));
            }
        }
        Ok(())
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
