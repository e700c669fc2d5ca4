//! One transformer block, the part that all towers share.

use burn::module::{Module, Param};
use burn::nn::{LayerNorm, Linear};
use burn::tensor::activation::{gelu_approximate, relu};
use burn::tensor::{Device, FloatDType, Tensor};

use super::cross::CrossAttention;
use super::parameter;
use super::pass::{Pass, Products};
use super::place::{BlockSite, BranchSite, LinearSite, NormSite, Projection};
use super::site::{Base, Sites};
use super::spec::{Activation, NormOrder, TransformerSpec};
use super::stream::{Stream, behind};
use super::sublayer::SublayerBase;
use crate::kernel;

/// `x + attention(norm(x))`, then `x + mlp(norm(x))`; or, in a tower that normalises afterwards, `norm(x + attention(x))`,
/// then `norm(x + mlp(x))`.
#[derive(Module, Debug)]
pub struct Block {
    /// Of the attention.
    pub norm1: LayerNorm,
    /// Query projection.
    pub q_proj: Linear,
    /// Key projection.
    pub k_proj: Linear,
    /// Value projection.
    pub v_proj: Linear,
    /// Output projection.
    pub out_proj: Linear,
    /// Of the MLP.
    pub norm2: LayerNorm,
    /// First layer of the MLP.
    pub fc1: Linear,
    /// Second layer of the MLP.
    pub fc2: Linear,
    /// Attention to an image, between the two halves.
    pub cross: Option<CrossAttention>,
    /// Scales the attention before it is added, `[width]`.
    pub scale1: Option<Param<Tensor<1>>>,
    /// Scales the MLP before it is added, `[width]`.
    pub scale2: Option<Param<Tensor<1>>>,
}

/// What a block must know beside its weights.
#[derive(Clone, Copy)]
pub(super) struct BlockContext<'a> {
    pub(super) at: BlockSite,
    pub(super) spec: &'a TransformerSpec,
    pub(super) seen: Seen<'a>,
    /// The tokens of the images that a cross attention looks at, `[images, tokens, width]`; rows of the stream are image-major.
    pub(super) images: Option<&'a Tensor<3>>,
    pub(super) sites: &'a dyn Sites,
    pub(super) pass: &'a Pass<'a>,
}

/// Which keys a token sees.
#[derive(Clone, Copy)]
pub(super) enum Seen<'a> {
    /// All of its row.
    All,
    /// Those up to its own place.
    Before,
    /// Those of its row that are marked 0; others are marked with a very small number, `[rows, 1, 1, tokens]`.
    Marked(&'a Tensor<4>),
}

impl Block {
    /// A block of zeros, to be filled from a checkpoint or an initialiser.
    pub(super) fn zeros(spec: &TransformerSpec, device: &Device) -> Self {
        let (width, attention) = (spec.width, spec.attention_width());
        let into_heads = || parameter::linear(width, attention, !spec.plain_qkv, device);
        let scale = || spec.layer_scale.then(|| parameter::ones(width, device));
        Self {
            norm1: parameter::layer_norm(width, spec.epsilon(), device),
            q_proj: into_heads(),
            k_proj: into_heads(),
            v_proj: into_heads(),
            out_proj: parameter::linear(attention, width, true, device),
            norm2: parameter::layer_norm(width, spec.epsilon(), device),
            fc1: parameter::linear(width, spec.mlp, true, device),
            fc2: parameter::linear(spec.mlp, width, true, device),
            cross: None,
            scale1: scale(),
            scale2: scale(),
        }
    }

    /// The same with an attention to images whose tokens have this width.
    pub(super) fn attending(self, spec: &TransformerSpec, image_width: usize, device: &Device) -> Self {
        Self { cross: Some(CrossAttention::zeros(spec, image_width, device)), ..self }
    }

    /// The linear layer of one projection; `None` for one of an attention to images that it does not have.
    pub fn projection(&self, projection: Projection) -> Option<&Linear> {
        let cross = self.cross.as_ref();
        match projection {
            Projection::Query => Some(&self.q_proj),
            Projection::Key => Some(&self.k_proj),
            Projection::Value => Some(&self.v_proj),
            Projection::Output => Some(&self.out_proj),
            Projection::CrossQuery => Some(&cross?.q_proj),
            Projection::CrossKey => Some(&cross?.k_proj),
            Projection::CrossValue => Some(&cross?.v_proj),
            Projection::CrossOutput => Some(&cross?.out_proj),
            Projection::Up => Some(&self.fc1),
            Projection::Down => Some(&self.fc2),
        }
    }

    /// The linear layer of one projection, to be replaced.
    pub(super) fn projection_mut(&mut self, projection: Projection) -> Option<&mut Linear> {
        let cross = self.cross.as_mut();
        match projection {
            Projection::Query => Some(&mut self.q_proj),
            Projection::Key => Some(&mut self.k_proj),
            Projection::Value => Some(&mut self.v_proj),
            Projection::Output => Some(&mut self.out_proj),
            Projection::CrossQuery => Some(&mut cross?.q_proj),
            Projection::CrossKey => Some(&mut cross?.k_proj),
            Projection::CrossValue => Some(&mut cross?.v_proj),
            Projection::CrossOutput => Some(&mut cross?.out_proj),
            Projection::Up => Some(&mut self.fc1),
            Projection::Down => Some(&mut self.fc2),
        }
    }

    /// `[batch, tokens, width]` to the same; with `first_only`, to the first token alone, `[batch, 1, width]`.
    ///
    /// After the last block of the image tower only the class token is read, so there the queries, the MLP and the
    /// residual stream of all other tokens are not computed. This changes no value for adapters that treat tokens one by
    /// one; others say so with [`Sites::needs_all_tokens`].
    pub(super) fn forward(&self, stream: Tensor<3>, first_only: bool, context: BlockContext<'_>) -> Tensor<3> {
        let stream = self.sublayer(BranchSite::Attention(context.at), stream, first_only, context);
        let stream = match (&self.cross, context.images) {
            (Some(_), Some(_)) => self.sublayer(BranchSite::Cross(context.at), stream, false, context),
            _ => stream,
        };
        self.sublayer(BranchSite::Mlp(context.at), stream, false, context)
    }

    /// A sublayer through its site.
    fn sublayer(&self, at: BranchSite, stream: Tensor<3>, first_only: bool, context: BlockContext<'_>) -> Tensor<3> {
        if !context.sites.wraps_sublayers(context.at.tower) {
            return self.advance(at, stream, first_only, context);
        }
        let base = SublayerBase::new(at, self, stream.dims()[0], first_only, context);
        context.sites.sublayer(base, stream, context.pass)
    }

    /// The stream before a sublayer to the stream behind it.
    pub(super) fn advance(
        &self,
        at: BranchSite,
        stream: Tensor<3>,
        first_only: bool,
        context: BlockContext<'_>,
    ) -> Tensor<3> {
        let read = self.read(at, stream.clone(), context);
        let output = self.layers(at, read, first_only, context);
        let stream = if first_only { stream.narrow(1, 0, 1) } else { stream };
        self.add(at, stream, output, context)
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
        let (attention, mlp) = (BranchSite::Attention(context.at), BranchSite::Mlp(context.at));
        let read = self.read(attention, beginning.clone(), context);
        let before = self.keys_and_values(read.clone(), context);
        let beginning = (!unread).then(|| {
            let attended = self.attend(read, before.clone(), context);
            self.advance(mlp, self.add(attention, beginning, attended, context), false, context)
        });
        let read = self.read(attention, rest.clone(), context);
        let [key, value] = self.keys_and_values(read.clone(), context);
        let shared = before[0].dims()[1];
        let [key_before, value_before] = before;
        let seen = [behind(key_before, key), behind(value_before, value)];
        let attended = self.attend(read, seen, context);
        let rest = self.advance(mlp, self.add(attention, rest, attended, context), false, context);
        Stream { beginning, shared, rest }
    }

    /// What a sublayer reads of the stream.
    pub(super) fn read(&self, at: BranchSite, stream: Tensor<3>, context: BlockContext<'_>) -> Tensor<3> {
        match context.spec.order {
            NormOrder::Before => self.norm(at, stream, context),
            NormOrder::After => stream,
        }
    }

    /// What the layers of a sublayer make of what it has read; an attention with `first_only` for the first token alone.
    pub(super) fn layers(
        &self,
        at: BranchSite,
        read: Tensor<3>,
        first_only: bool,
        context: BlockContext<'_>,
    ) -> Tensor<3> {
        match at {
            BranchSite::Attention(_) => {
                let asking = if first_only { read.clone().narrow(1, 0, 1) } else { read.clone() };
                self.attend(asking, self.keys_and_values(read, context), context)
            }
            BranchSite::Cross(_) => self.look(read, context),
            BranchSite::Mlp(_) => {
                let hidden = activate(self.project(Projection::Up, read, context), context.spec.activation);
                scaled(self.scale2.as_ref(), self.project(Projection::Down, hidden, context))
            }
        }
    }

    /// The attention to the images. An image's keys and values are made once for all its rows.
    fn look(&self, read: Tensor<3>, context: BlockContext<'_>) -> Tensor<3> {
        let (Some(cross), Some(images)) = (&self.cross, context.images) else {
            unreachable!("a block that looks at no image has no such sublayer")
        };
        let project = |layer: &Linear, projection: Projection, input: Tensor<3>| {
            linear(layer, LinearSite::Block(context.at, projection), input, context.sites, context.pass)
        };
        let query = project(&cross.q_proj, Projection::CrossQuery, read);
        let key = project(&cross.k_proj, Projection::CrossKey, images.clone());
        let value = project(&cross.v_proj, Projection::CrossValue, images.clone());
        let ([rows, tokens, width], [images, _, _]) = (query.dims(), key.dims());
        // Queries do not see each other, so that all rows of an image are one.
        let query = query.reshape([images, rows / images * tokens, width]);
        let attended = attention([query, key, value], Seen::All, context).reshape([rows, tokens, width]);
        project(&cross.out_proj, Projection::CrossOutput, attended)
    }

    /// What a sublayer has computed, added to the stream that it read.
    fn add(&self, at: BranchSite, stream: Tensor<3>, output: Tensor<3>, context: BlockContext<'_>) -> Tensor<3> {
        let output = context.sites.branch(at, &stream, output, context.pass);
        match context.spec.order {
            NormOrder::Before => stream + output,
            NormOrder::After => self.norm(at, stream + output, context),
        }
    }

    fn norm(&self, at: BranchSite, stream: Tensor<3>, context: BlockContext<'_>) -> Tensor<3> {
        let BlockContext { spec, sites, pass, .. } = context;
        match (at, &self.cross) {
            (BranchSite::Attention(at), _) => norm(&self.norm1, NormSite::Attention(at), spec, stream, sites, pass),
            (BranchSite::Cross(at), Some(cross)) => norm(&cross.norm, NormSite::Cross(at), spec, stream, sites, pass),
            (BranchSite::Cross(_), None) => stream,
            (BranchSite::Mlp(at), _) => norm(&self.norm2, NormSite::Mlp(at), spec, stream, sites, pass),
        }
    }

    fn keys_and_values(&self, normed: Tensor<3>, context: BlockContext<'_>) -> [Tensor<3>; 2] {
        let key = self.project(Projection::Key, normed.clone(), context);
        [key, self.project(Projection::Value, normed, context)]
    }

    fn attend(&self, query: Tensor<3>, [key, value]: [Tensor<3>; 2], context: BlockContext<'_>) -> Tensor<3> {
        let query = self.project(Projection::Query, query, context);
        let attended = attention([query, key, value], context.seen, context);
        scaled(self.scale1.as_ref(), self.project(Projection::Output, attended, context))
    }

    fn project(&self, projection: Projection, input: Tensor<3>, context: BlockContext<'_>) -> Tensor<3> {
        let site = LinearSite::Block(context.at, projection);
        let layer = self.projection(projection).expect("a projection of every block");
        linear(layer, site, input, context.sites, context.pass)
    }
}

/// With the factor of each channel, where there is one.
fn scaled(scale: Option<&Param<Tensor<1>>>, output: Tensor<3>) -> Tensor<3> {
    match scale {
        Some(scale) => output * scale.val().unsqueeze::<3>(),
        None => output,
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
    let forward = |input: Tensor<3>| match pass.products {
        Products::Full => kernel::linear(layer, input),
        Products::Bf16 => kernel::linear_in(FloatDType::BF16, layer, input),
    };
    sites.linear(Base::new(at, layer, &forward), input, pass)
}

/// Queries, keys and values to what each query attends to.
fn attention(inputs: [Tensor<3>; 3], seen: Seen<'_>, context: BlockContext<'_>) -> Tensor<3> {
    let heads = context.spec.heads;
    let attend = |[query, key, value]: [Tensor<3>; 3]| match seen {
        Seen::All => kernel::attention(query, key, value, heads, false),
        Seen::Before => kernel::attention(query, key, value, heads, true),
        Seen::Marked(marks) => kernel::masked_attention(query, key, value, heads, marks),
    };
    match context.pass.products {
        Products::Full => attend(inputs),
        Products::Bf16 => {
            let full = FloatDType::from(inputs[0].dtype());
            attend(inputs.map(|input| input.cast(FloatDType::BF16))).cast(full)
        }
    }
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

pub(super) fn activate(hidden: Tensor<3>, activation: Activation) -> Tensor<3> {
    match activation {
        Activation::QuickGelu => kernel::quick_gelu(hidden),
        Activation::Gelu => kernel::gelu(hidden),
        Activation::GeluTanh => gelu_approximate(hidden),
        Activation::Relu => relu(hidden),
    }
}
