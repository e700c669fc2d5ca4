//! The shape of a text tower.

use serde::{Deserialize, Serialize};

use super::is_default;
use super::transformer::TransformerSpec;
use crate::error::{Error, Result};

/// What a token of a text sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextAttention {
    /// The tokens before it.
    #[default]
    Causal,
    /// All tokens of its text.
    Both,
}

/// How the tokens of a text become one feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextPool {
    /// The last token of the text.
    #[default]
    End,
    /// The first token.
    First,
    /// The last token, padding included.
    Last,
    /// The mean of all tokens of the text.
    Mean,
}

/// How a text's pooled token gets to the shared space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextProjection {
    /// A matrix.
    #[default]
    Plain,
    /// A matrix and an offset.
    Offset,
    /// A matrix to the mean of both widths, GELU, a matrix (OpenCLIP beside a BERT).
    Hidden,
    /// Not at all: a feature is as wide as a token.
    None,
}

/// The text tower.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextSpec {
    /// Longest text in tokens.
    pub context: usize,
    /// Rows of the token embedding; 0 without a tower.
    pub vocabulary: usize,
    /// The transformer.
    pub transformer: TransformerSpec,
    /// How the tower differs from CLIP's.
    #[serde(default, skip_serializing_if = "is_default")]
    pub style: TextStyle,
}

/// How a text tower differs from CLIP's causal transformer, which is the default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TextStyle {
    /// Whether a text begins with a special token, before its words.
    pub begins: bool,
    /// What a token sees.
    pub attention: TextAttention,
    /// The token that fills every text up to the whole context and takes part in attention, where the tower was trained so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fill: Option<u32>,
    /// Whether embedded tokens are normalised.
    pub embedding_norm: bool,
    /// Whether tokens are normalised after the last block.
    pub final_norm: bool,
    /// How tokens become a feature.
    pub pool: TextPool,
    /// The way into the shared space.
    pub projection: TextProjection,
}

impl Default for TextStyle {
    fn default() -> Self {
        Self {
            begins: true,
            attention: TextAttention::Causal,
            fill: None,
            embedding_norm: false,
            final_norm: true,
            pool: TextPool::End,
            projection: TextProjection::Plain,
        }
    }
}

impl TextSpec {
    /// A causal transformer as in CLIP.
    pub fn new(context: usize, vocabulary: usize, transformer: TransformerSpec) -> Self {
        Self { context, vocabulary, transformer, style: TextStyle::default() }
    }

    /// No tower.
    pub fn none() -> Self {
        Self::new(0, 0, TransformerSpec::none())
    }

    /// Whether a token sees those before it only.
    pub fn is_causal(&self) -> bool {
        self.style.attention == TextAttention::Causal
    }

    pub(super) fn check(&self, dim: usize) -> Result<()> {
        self.transformer.check("text_config")?;
        if self.context < 2 || self.context > 1 << 16 {
            return Err(Error::mismatch("text_config.max_position_embeddings", "2 to 65536", self.context));
        }
        if self.vocabulary < 3 || self.vocabulary > 1 << 24 {
            return Err(Error::mismatch("text_config.vocab_size", "3 to 16777216", self.vocabulary));
        }
        if let Some(fill) = self.style.fill.filter(|fill| *fill as usize >= self.vocabulary) {
            let expected = format!("a token below {}", self.vocabulary);
            return Err(Error::mismatch("padding token of the text tower", expected, fill));
        }
        if self.style.projection == TextProjection::None && dim != self.transformer.width {
            return Err(Error::mismatch("width of a feature", self.transformer.width, dim));
        }
        Ok(())
    }
}
