//! One pre-norm transformer block, the part that both towers share.

use burn::module::Module;
use burn::nn::{LayerNorm, Linear};
use burn::tensor::activation::gelu;
use burn::tensor::{Device, Tensor};

use super::parameter;
use super::site::{Base, BlockSite, BranchSite, LinearSite, NormSite, Pass, Projection, Sites};
use super::spec::{Activation, TransformerSpec};
use super::stream::{Stream, behind};
use crate::kernel;

/// `x + attention(norm(x))`, then `x + mlp(norm(x))`.
#[derive(Module, Debug)]
pub struct Block {
    /// Before the attention.
    pub norm1: LayerNorm,
    /// Query projection.
    pub q_proj: Linear,
    /// Key projection.
    pub k_proj: Linear,
    /// Value projection.
    pub v_proj: Linear,
    /// Output projection.
    pub out_proj: Linear,
    /// Before the MLP.
    pub norm2: LayerNorm,
    /// First layer of the MLP.
    pub fc1: Linear,
    /// Second layer of the MLP.
    pub fc2: Linear,
}

/// What a block must know beside its weights.
#[derive(Clone, Copy)]
pub(super) struct BlockContext<'a> {
    pub(super) at: BlockSite,
    pub(super) spec: &'a TransformerSpec,
    pub(super) causal: bool,
    pub(super) sites: &'a dyn Sites,
    pub(super) pass: &'a Pass<'a>,
}

impl Block {
    /// A block of zeros, to be filled from a checkpoint or an initialiser.
    pub(super) fn zeros(spec: &TransformerSpec, device: &Device) -> Self {
        let width = spec.width;
        let square = || parameter::linear(width, width, true, device);
        Self {
            norm1: parameter::layer_norm(width, spec.epsilon(), device),
            q_proj: square(),
            k_proj: square(),
            v_proj: square(),
            out_proj: square(),
            norm2: parameter::layer_norm(width, spec.epsilon(), device),
            fc1: parameter::linear(width, spec.mlp, true, device),
            fc2: parameter::linear(spec.mlp, width, true, device),
        }
    }

    /// The linear layer of one projection.
    pub fn projection(&self, projection: Projection) -> &Linear {
        match projection {
            Projection::Query => &self.q_proj,
            Projection::Key => &self.k_proj,
            Projection::Value => &self.v_proj,
            Projection::Output => &self.out_proj,
            Projection::Up => &self.fc1,
            Projection::Down => &self.fc2,
        }
    }

    /// The linear layer of one projection, to be replaced.
    pub(super) fn projection_mut(&mut self, projection: Projection) -> &mut Linear {
        match projection {
            Projection::Query => &mut self.q_proj,
            Projection::Key => &mut self.k_proj,
            Projection::Value => &mut self.v_proj,
            Projection::Output => &mut self.out_proj,
            Projection::Up => &mut self.fc1,
            Projection::Down => &mut self.fc2,
        }
    }

    /// `[batch, tokens, width]` to the same; with `first_only`, to the first token alone, `[batch, 1, width]`.
    ///
    /// After the last block of the image tower only the class token is read, so there the queries, the MLP and the
    /// residual stream of all other tokens are not computed. This changes no value for adapters that treat tokens one by
    /// one; others say so with [`Sites::needs_all_tokens`].
    pub(super) fn forward(&self, stream: Tensor<3>, first_only: bool, context: BlockContext<'_>) -> Tensor<3> {
        let BlockContext { at, spec, sites, pass, .. } = context;
        let normed = norm(&self.norm1, NormSite::Attention(at), spec, stream.clone(), sites, pass);
        let (stream, query) = if first_only {
            (stream.narrow(1, 0, 1), normed.clone().narrow(1, 0, 1))
        } else {
            (stream, normed.clone())
        };
        let attended = self.attend(query, self.keys_and_values(normed, context), context);
        let attended = sites.branch(BranchSite::Attention(at), &stream, attended, pass);
        self.think(stream + attended, context)
    }

    /// As [`forward`](Self::forward) in a causal tower, for rows behind a beginning that they share. Where the beginning
    /// is `unread` afterwards, only its keys and values are computed.
    pub(super) fn forward_behind(
        &self,
        beginning: Tensor<3>,
        rest: Tensor<3>,
        unread: bool,
        context: BlockContext<'_>,
    ) -> Stream {
        let BlockContext { at, spec, sites, pass, .. } = context;
        let site = BranchSite::Attention(at);
        let normed = norm(&self.norm1, NormSite::Attention(at), spec, beginning.clone(), sites, pass);
        let before = self.keys_and_values(normed.clone(), context);
        let beginning = (!unread).then(|| {
            let attended = self.attend(normed, before.clone(), context);
            let attended = sites.branch(site, &beginning, attended, pass);
            self.think(beginning + attended, context)
        });
        let normed = norm(&self.norm1, NormSite::Attention(at), spec, rest.clone(), sites, pass);
        let [key, value] = self.keys_and_values(normed.clone(), context);
        let shared = before[0].dims()[1];
        let [key_before, value_before] = before;
        let seen = [behind(key_before, key), behind(value_before, value)];
        let attended = self.attend(normed, seen, context);
        let attended = sites.branch(site, &rest, attended, pass);
        Stream { beginning, shared, rest: self.think(rest + attended, context) }
    }

    /// The second half of the block.
    fn think(&self, stream: Tensor<3>, context: BlockContext<'_>) -> Tensor<3> {
        let BlockContext { at, spec, sites, pass, .. } = context;
        let normed = norm(&self.norm2, NormSite::Mlp(at), spec, stream.clone(), sites, pass);
        let hidden = self.project(Projection::Up, normed, context);
        let hidden = activate(hidden, spec.activation);
        let output = self.project(Projection::Down, hidden, context);
        let output = sites.branch(BranchSite::Mlp(at), &stream, output, pass);
        stream + output
    }

    fn keys_and_values(&self, normed: Tensor<3>, context: BlockContext<'_>) -> [Tensor<3>; 2] {
        let key = self.project(Projection::Key, normed.clone(), context);
        [key, self.project(Projection::Value, normed, context)]
    }

    fn attend(&self, query: Tensor<3>, [key, value]: [Tensor<3>; 2], context: BlockContext<'_>) -> Tensor<3> {
        let query = self.project(Projection::Query, query, context);
        let attended = kernel::attention(query, key, value, context.spec.heads, context.causal);
        self.project(Projection::Output, attended, context)
    }

    fn project(&self, projection: Projection, input: Tensor<3>, context: BlockContext<'_>) -> Tensor<3> {
        let site = LinearSite::Block(context.at, projection);
        linear(self.projection(projection), site, input, context.sites, context.pass)
    }
}

/// Runs a linear layer through its site.
pub(super) fn linear(
    layer: &Linear,
    at: LinearSite,
    input: Tensor<3>,
    sites: &dyn Sites,
    pass: &Pass<'_>,
) -> Tensor<3> {
    sites.linear(Base::new(at, layer, &|input| kernel::linear(layer, input)), input, pass)
}

/// Runs a normalisation through its site.
pub(super) fn norm(
    layer: &LayerNorm,
    at: NormSite,
    spec: &TransformerSpec,
    input: Tensor<3>,
    sites: &dyn Sites,
    pass: &Pass<'_>,
) -> Tensor<3> {
    sites.norm(Base::new(at, layer, &|input| kernel::layer_norm(layer, spec.epsilon(), input)), input, pass)
}

fn activate(hidden: Tensor<3>, activation: Activation) -> Tensor<3> {
    match activation {
        Activation::QuickGelu => kernel::quick_gelu(hidden),
        Activation::Gelu => gelu(hidden),
    }
}
