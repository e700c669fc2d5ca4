//! Pooling by attention, as SigLIP does it (Zhai et al., 2023, arXiv 2303.15343; Zhai et al., 2022, arXiv 2106.04560).
//!
//! `h = attention(p, x, x)` of a trained query `p` over all tokens `x`, then `h + mlp(norm(h))`.

use burn::module::{Module, Param};
use burn::nn::{LayerNorm, Linear};
use burn::tensor::{Device, Tensor};

use super::block::activate;
use super::parameter;
use super::spec::TransformerSpec;
use crate::kernel;

/// Tokens `[batch, tokens, width]` to one, `[batch, 1, width]`. It belongs to the frozen head of a tower: no site is in it.
#[derive(Module, Debug)]
pub struct AttentionPool {
    /// The query, `[width]`.
    pub probe: Param<Tensor<1>>,
    /// Query projection.
    pub q_proj: Linear,
    /// Key projection.
    pub k_proj: Linear,
    /// Value projection.
    pub v_proj: Linear,
    /// Output projection.
    pub out_proj: Linear,
    /// Before the MLP.
    pub norm: LayerNorm,
    /// First layer of the MLP.
    pub fc1: Linear,
    /// Second layer of the MLP.
    pub fc2: Linear,
}

impl AttentionPool {
    pub(super) fn zeros(spec: &TransformerSpec, device: &Device) -> Self {
        let width = spec.width;
        let square = || parameter::linear(width, width, true, device);
        Self {
            probe: parameter::zeros([width], device),
            q_proj: square(),
            k_proj: square(),
            v_proj: square(),
            out_proj: square(),
            norm: parameter::layer_norm(width, spec.epsilon(), device),
            fc1: parameter::linear(width, spec.mlp, true, device),
            fc2: parameter::linear(spec.mlp, width, true, device),
        }
    }

    pub(super) fn forward(&self, spec: &TransformerSpec, tokens: Tensor<3>) -> Tensor<3> {
        let [batch, _, width] = tokens.dims();
        let probe = self.probe.val().reshape([1, 1, width]).expand([batch, 1, width]);
        let query = kernel::linear(&self.q_proj, probe);
        let (key, value) = (kernel::linear(&self.k_proj, tokens.clone()), kernel::linear(&self.v_proj, tokens));
        let pooled = kernel::linear(&self.out_proj, kernel::attention(query, key, value, spec.heads, false));
        let normed = kernel::layer_norm(&self.norm, spec.epsilon(), pooled.clone());
        let hidden = activate(kernel::linear(&self.fc1, normed), spec.activation);
        pooled + kernel::linear(&self.fc2, hidden)
    }
}

/// Pooling by attention as CLIP's ResNets do it: the first token is the query, and what comes out is projected by the tower's own
/// projection.
#[derive(Module, Debug)]
pub struct QueryPool {
    /// Query projection.
    pub q_proj: Linear,
    /// Key projection.
    pub k_proj: Linear,
    /// Value projection.
    pub v_proj: Linear,
}

impl QueryPool {
    pub(super) fn zeros(width: usize, device: &Device) -> Self {
        let square = || parameter::linear(width, width, true, device);
        Self { q_proj: square(), k_proj: square(), v_proj: square() }
    }

    pub(super) fn forward(&self, heads: usize, tokens: Tensor<3>) -> Tensor<3> {
        let query = kernel::linear(&self.q_proj, tokens.clone().narrow(1, 0, 1));
        let (key, value) = (kernel::linear(&self.k_proj, tokens.clone()), kernel::linear(&self.v_proj, tokens));
        kernel::attention(query, key, value, heads, false)
    }
}

/// What makes one token of all.
#[derive(Module, Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one in a tower")]
pub enum Pool {
    /// With a query of its own.
    Attention(AttentionPool),
    /// With the first token as the query.
    Query(QueryPool),
}
