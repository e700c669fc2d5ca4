//! The shape of a backbone: two towers, or one.
//!
//! What a family of models does in another way than CLIP is a field whose default is CLIP's way. A default is not written,
//! so a backbone of CLIP has the same specification, and the same digest, whatever families are known.

use serde::{Deserialize, Serialize};

use super::site::Tower;
use super::trunk::TrunkSpec;
use crate::error::{Error, Result};

/// The MLP's non-linearity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x * sigmoid(1.702 x)`, OpenAI's CLIP.
    QuickGelu,
    /// The exact Gaussian error linear unit, most OpenCLIP models, ViT and BERT.
    Gelu,
    /// Its approximation by a hyperbolic tangent, SigLIP.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
}

/// Where a block normalises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormOrder {
    /// `x + f(norm(x))`.
    #[default]
    Before,
    /// `norm(x + f(x))`, BERT.
    After,
}

/// The widths and depths of a transformer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransformerSpec {
    /// Token width.
    pub width: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads.
    pub heads: usize,
    /// Hidden width of the MLP.
    pub mlp: usize,
    /// The MLP's non-linearity.
    pub activation: Activation,
    /// Layer-norm epsilon, kept as text so that the specification hashes exactly.
    pub norm_epsilon: String,
    /// Width of one head, where it is not the heads' share of the token width.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_width: Option<usize>,
    /// Whether queries, keys and values have no offset.
    #[serde(default, skip_serializing_if = "is_default")]
    pub plain_qkv: bool,
    /// Where a block normalises.
    #[serde(default, skip_serializing_if = "is_default")]
    pub order: NormOrder,
    /// Whether each branch is scaled by a trained vector before it is added (LayerScale: Touvron et al., 2021, arXiv
    /// 2103.17239).
    #[serde(default, skip_serializing_if = "is_default")]
    pub layer_scale: bool,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl TransformerSpec {
    /// A transformer as in CLIP.
    pub fn new(width: usize, depth: usize, heads: usize, mlp: usize, activation: Activation, epsilon: f64) -> Self {
        Self {
            width,
            depth,
            heads,
            mlp,
            activation,
            norm_epsilon: epsilon.to_string(),
            head_width: None,
            plain_qkv: false,
            order: NormOrder::Before,
            layer_scale: false,
        }
    }

    /// No transformer.
    pub fn none() -> Self {
        Self::new(0, 0, 0, 0, Activation::Gelu, 1e-5)
    }

    /// The layer-norm epsilon as a number.
    pub fn epsilon(&self) -> f64 {
        self.norm_epsilon.parse().unwrap_or(1e-5)
    }

    /// Width of all heads together: of queries, keys and values.
    pub fn attention_width(&self) -> usize {
        self.head_width.map_or(self.width, |head| head * self.heads)
    }

    fn check(&self, tower: &str) -> Result<()> {
        for (what, value, limit) in [
            ("hidden_size", self.width, 1 << 16),
            ("num_hidden_layers", self.depth, 1 << 10),
            ("num_attention_heads", self.heads, 1 << 10),
            ("intermediate_size", self.mlp, 1 << 20),
            ("head width", self.head_width.unwrap_or(1), 1 << 12),
        ] {
            if value == 0 || value > limit {
                return Err(Error::mismatch(format!("{tower}.{what}"), format!("1 to {limit}"), value));
            }
        }
        if self.head_width.is_none() && !self.width.is_multiple_of(self.heads) {
            return Err(Error::mismatch(
                format!("{tower}.hidden_size"),
                format!("a multiple of its {} heads", self.heads),
                self.width,
            ));
        }
        Ok(())
    }
}

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
    /// Not at all: every token meets the text ([`Crossing`]).
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

    fn check(&self, dim: usize) -> Result<()> {
        let Self { size, patch, style, transformer } = self;
        match &style.trunk {
            // One stream of both has all blocks on the text's side.
            None if style.pool == ImagePool::Tokens && transformer.depth == 0 => {
                TransformerSpec { depth: 1, ..transformer.clone() }.check("vision_config")?;
            }
            None => transformer.check("vision_config")?,
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

    fn check(&self, dim: usize) -> Result<()> {
        self.transformer.check("text_config")?;
        if self.context < 2 || self.context > 1 << 16 {
            return Err(Error::mismatch("text_config.max_position_embeddings", "2 to 65536", self.context));
        }
        if self.vocabulary < 3 || self.vocabulary > 1 << 24 {
            return Err(Error::mismatch("text_config.vocab_size", "3 to 16777216", self.vocabulary));
        }
        if self.style.projection == TextProjection::None && dim != self.transformer.width {
            return Err(Error::mismatch("width of a feature", self.transformer.width, dim));
        }
        Ok(())
    }
}

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
        if crossing.start.is_some_and(|start| start as usize >= self.text.vocabulary) {
            let expected = format!("a token below {}", self.text.vocabulary);
            return Err(Error::mismatch("text_config.bos_token_id", expected, format!("{:?}", crossing.start)));
        }
        Ok(())
    }
}
