//! The operations of a tower that are worth more than their composition: attention, layer normalisation, quick-GELU, and
//! linear layers that are not trained.
//!
//! On the CPU backend each is one pass over its rows, forward and backward, and keeps for the backward pass only what it
//! was given; on other backends they are those backends' own operations. Only inputs get gradients from the fused forms:
//! a normalisation whose own gain is trained is computed from primitive operations.

#[cfg(feature = "flex")]
mod attention;
#[cfg(feature = "flex")]
mod autodiff;
#[cfg(feature = "flex")]
mod layer_norm;
#[cfg(feature = "flex")]
mod ops;
#[cfg(feature = "flex")]
mod quick_gelu;
#[cfg(feature = "flex")]
mod rows;
#[cfg(all(test, feature = "flex"))]
mod tests;

use std::f64::consts::FRAC_1_SQRT_2;

use burn::nn::{LayerNorm, Linear};
use burn::tensor::activation::{self, sigmoid, softmax};
use burn::tensor::module;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{FloatDType, Tensor, TensorData};

use crate::device::device_kind;

#[cfg(feature = "flex")]
use burn::backend::Dispatch;
#[cfg(feature = "flex")]
use ops::TowerOps;

/// Added to a score, takes a key out of the softmax; within the range of every precision.
const UNSEEN: f32 = -1e4;

/// Attention of several heads: query `[batch, queries, width]`, key and value `[batch, keys, width]`, to
/// `[batch, queries, width]`. With `causal` a query sees the keys up to its own place, both counted from the end.
pub(crate) fn attention(query: Tensor<3>, key: Tensor<3>, value: Tensor<3>, heads: usize, causal: bool) -> Tensor<3> {
    #[cfg(feature = "flex")]
    if on_flex(&query) {
        let (query, key, value) = (query.into_dispatch(), key.into_dispatch(), value.into_dispatch());
        return Tensor::from_dispatch(Dispatch::tower_attention(query, key, value, heads, causal));
    }
    let ([batch, queries, width], [_, keys, _]) = (query.dims(), key.dims());
    if causal && queries != keys {
        // Backends do not agree on where such places are counted from: libtorch counts them from the beginning.
        let marks = up_to_own_place(queries, keys, &query);
        return marked_attention(query, key, value, heads, marks);
    }
    let split = |projected: Tensor<3>| split_heads(projected, heads);
    // The scale is left at its default 1/sqrt(head_dim): an explicit one leaves the fused path on some backends.
    let options = AttentionModuleOptions { is_causal: causal, ..Default::default() };
    let attended = module::attention(split(query), split(key), split(value), None, None, options);
    attended.swap_dims(1, 2).reshape([batch, queries, width])
}

/// As [`attention`], with `marks` `[batch, 1, 1, tokens]` added to the scores of the last keys: those before them, of which there
/// may be more than tokens, are seen by all.
pub(crate) fn masked_attention(
    query: Tensor<3>,
    key: Tensor<3>,
    value: Tensor<3>,
    heads: usize,
    marks: &Tensor<4>,
) -> Tensor<3> {
    let ([batch, _, _], [_, keys, _]) = (query.dims(), key.dims());
    let [rows, _, _, tokens] = marks.dims();
    let marks = match keys - tokens {
        0 => marks.clone(),
        more => Tensor::cat(vec![Tensor::zeros([rows, 1, 1, more], &marks.device()), marks.clone()], 3),
    };
    // An adapter may repeat all rows, once for each image.
    let marks = marks.repeat_dim(0, batch / rows).cast(FloatDType::from(query.dtype()));
    marked_attention(query, key, value, heads, marks)
}

/// Attention from primitive operations, with `marks` `[batch, 1, queries, keys]`, or 1 in place of some, added to the scores.
fn marked_attention(query: Tensor<3>, key: Tensor<3>, value: Tensor<3>, heads: usize, marks: Tensor<4>) -> Tensor<3> {
    let [batch, queries, width] = query.dims();
    let scale = ((width / heads) as f32).sqrt().recip();
    let scores = split_heads(query, heads).matmul(split_heads(key, heads).swap_dims(2, 3)) * scale + marks;
    softmax(scores, 3).matmul(split_heads(value, heads)).swap_dims(1, 2).reshape([batch, queries, width])
}

/// `[batch, tokens, width]` to `[batch, heads, tokens, width / heads]`.
fn split_heads(projected: Tensor<3>, heads: usize) -> Tensor<4> {
    let [batch, tokens, width] = projected.dims();
    projected.reshape([batch, tokens, heads, width / heads]).swap_dims(1, 2)
}

/// Marks `[1, 1, queries, keys]` on the keys behind a query's own place, both counted from the end, in the precision of `like`.
fn up_to_own_place(queries: usize, keys: usize, like: &Tensor<3>) -> Tensor<4> {
    let more = keys.saturating_sub(queries);
    let behind = |at: usize| at % keys > at / keys + more;
    let marks: Vec<f32> = (0..queries * keys).map(|at| if behind(at) { UNSEEN } else { 0.0 }).collect();
    let data = TensorData::new(marks, [1, 1, queries, keys]);
    let marks: Tensor<4> = Tensor::from_data(data, &like.device().without_autodiff());
    marks.cast(FloatDType::from(like.dtype()))
}

/// Layer normalisation over the last dimension. `epsilon` is the layer's own, which it keeps to itself.
pub(crate) fn layer_norm(layer: &LayerNorm, epsilon: f64, input: Tensor<3>) -> Tensor<3> {
    #[cfg(feature = "flex")]
    if on_flex(&input)
        && let Some(beta) = &layer.beta
    {
        let (gain, shift) = (layer.gamma.val(), beta.val());
        if !gain.is_tracked() && !shift.is_tracked() {
            let (gain, shift) = (gain.into_dispatch(), shift.into_dispatch());
            let normed = Dispatch::tower_layer_norm(input.into_dispatch(), gain, shift, epsilon);
            return Tensor::from_dispatch(normed);
        }
    }
    layer.forward(input)
}

/// A linear layer over the last dimension, `[batch, tokens, d_input]` to `[batch, tokens, d_output]`.
pub(crate) fn linear(layer: &Linear, input: Tensor<3>) -> Tensor<3> {
    #[cfg(feature = "flex")]
    if on_flex(&input)
        && let Some(bias) = &layer.bias
    {
        let (weight, bias) = (layer.weight.val(), bias.val());
        if !weight.is_tracked() && !bias.is_tracked() {
            let (weight, bias) = (weight.into_dispatch(), bias.into_dispatch());
            return Tensor::from_dispatch(Dispatch::tower_linear(input.into_dispatch(), weight, bias));
        }
    }
    layer.forward(input)
}

/// As [`linear`], with the product in a precision of its own and all else in that of the input.
pub(crate) fn linear_in(precision: FloatDType, layer: &Linear, input: Tensor<3>) -> Tensor<3> {
    let (full, [batch, tokens, width]) = (FloatDType::from(input.dtype()), input.dims());
    let rows = input.reshape([batch * tokens, width]).cast(precision);
    let product = rows.matmul(layer.weight.val().cast(precision)).cast(full);
    let [_, outputs] = product.dims();
    let product = product.reshape([batch, tokens, outputs]);
    match &layer.bias {
        Some(bias) => product + bias.val().unsqueeze::<3>(),
        None => product,
    }
}

/// `x P(X <= x)` of a standard normal `X` (Hendrycks and Gimpel, 2016, arXiv 1606.08415), with its own gradient on every device: a
/// backend of burn without a kernel for it answers with the gradient of the approximation by `tanh`, up to 9e-4 beside it.
pub fn gelu<const D: usize>(input: Tensor<D>) -> Tensor<D> {
    match device_kind(&input.device()) {
        "cpu" | "libtorch" =>
        {
            #[expect(clippy::disallowed_methods, reason = "the gradient of these two is exact")]
            activation::gelu(input)
        }
        _ => composed_gelu(input),
    }
}

fn composed_gelu<const D: usize>(input: Tensor<D>) -> Tensor<D> {
    (input.clone() * FRAC_1_SQRT_2).erf().add_scalar(1.0) * input * 0.5
}

/// `x * sigmoid(1.702 x)`.
pub(crate) fn quick_gelu(input: Tensor<3>) -> Tensor<3> {
    #[cfg(feature = "flex")]
    if on_flex(&input) {
        return Tensor::from_dispatch(Dispatch::tower_quick_gelu(input.into_dispatch()));
    }
    input.clone() * sigmoid(input * 1.702)
}

#[cfg(feature = "flex")]
fn on_flex<const D: usize>(tensor: &Tensor<D>) -> bool {
    crate::device::on_processor(&tensor.device()) && tensor.dtype() == burn::tensor::DType::F32
}
