//! What lets images and texts meet before there is a score: attention to an image, and the heads behind it.

use burn::module::Module;
use burn::nn::{LayerNorm, Linear};
use burn::tensor::{Device, Tensor};

use super::block::activate;
use super::parameter;
use super::spec::{Activation, TransformerSpec};
use crate::kernel;

/// The attention of a text's tokens to those of an image, with a normalisation of its own.
#[derive(Module, Debug)]
pub struct CrossAttention {
    /// Of the attention.
    pub norm: LayerNorm,
    /// Query projection, of the text.
    pub q_proj: Linear,
    /// Key projection, of the image.
    pub k_proj: Linear,
    /// Value projection, of the image.
    pub v_proj: Linear,
    /// Output projection.
    pub out_proj: Linear,
}

impl CrossAttention {
    pub(super) fn zeros(spec: &TransformerSpec, image_width: usize, device: &Device) -> Self {
        let (width, attention, offset) = (spec.width, spec.attention_width(), !spec.plain_qkv);
        Self {
            norm: parameter::layer_norm(width, spec.epsilon(), device),
            q_proj: parameter::linear(width, attention, offset, device),
            k_proj: parameter::linear(image_width, attention, offset, device),
            v_proj: parameter::linear(image_width, attention, offset, device),
            out_proj: parameter::linear(attention, width, true, device),
        }
    }
}

/// Whether a text says what an image shows: a score from the first token of the pair.
#[derive(Module, Debug)]
pub struct MatchHead {
    /// Before the hyperbolic tangent, `[width, width]`.
    pub pooler: Linear,
    /// `[width, 1]`.
    pub score: Linear,
}

impl MatchHead {
    pub(super) fn zeros(width: usize, device: &Device) -> Self {
        Self { pooler: parameter::linear(width, width, true, device), score: parameter::linear(width, 1, true, device) }
    }

    /// First tokens `[pairs, width]` to scores `[pairs, 1]`.
    pub(super) fn forward(&self, first: Tensor<2>) -> Tensor<2> {
        self.score.forward(self.pooler.forward(first).tanh())
    }
}

/// Which word stands at a place of a text (the head of BERT: Devlin et al., 2019, arXiv 1810.04805).
#[derive(Module, Debug)]
pub struct WordHead {
    /// `[width, width]`.
    pub dense: Linear,
    /// Behind the activation.
    pub norm: LayerNorm,
    /// `[width, vocabulary]`.
    pub decoder: Linear,
}

impl WordHead {
    pub(super) fn zeros(spec: &TransformerSpec, vocabulary: usize, device: &Device) -> Self {
        Self {
            dense: parameter::linear(spec.width, spec.width, true, device),
            norm: parameter::layer_norm(spec.width, spec.epsilon(), device),
            decoder: parameter::linear(spec.width, vocabulary, true, device),
        }
    }

    /// Tokens `[tokens, width]` to scores of words `[tokens, vocabulary]`.
    pub(super) fn forward(&self, activation: Activation, epsilon: f64, tokens: Tensor<2>) -> Tensor<2> {
        let hidden = activate(self.dense.forward(tokens).unsqueeze::<3>(), activation);
        let hidden = kernel::layer_norm(&self.norm, epsilon, hidden);
        kernel::linear(&self.decoder, hidden).squeeze_dim::<2>(0)
    }
}
