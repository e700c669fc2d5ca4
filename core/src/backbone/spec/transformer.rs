//! The shape of a transformer.

use serde::{Deserialize, Serialize};

use super::is_default;
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

    pub(super) fn check(&self, tower: &str) -> Result<()> {
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
        if !self.norm_epsilon.parse::<f64>().is_ok_and(|epsilon| epsilon.is_finite() && epsilon >= 0.0) {
            let what = format!("{tower}.layer_norm_eps");
            return Err(Error::mismatch(what, "a number of at least 0", &self.norm_epsilon));
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
