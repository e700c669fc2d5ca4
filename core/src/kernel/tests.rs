//! Fused against composed: the same values and gradients.

use burn::module::Module;
use burn::nn::{LayerNorm, LayerNormConfig, LinearConfig};
use burn::tensor::activation::{sigmoid, softmax};
use burn::tensor::{Device, Tensor, TensorData};

use super::{attention, composed_gelu, gelu, layer_norm, linear, quick_gelu};
use crate::backbone::values;

/// Values without pattern in -2 to 2.
fn tensor(shape: [usize; 3], seed: usize) -> Tensor<3> {
    let value = |i: usize| ((i * 7919 + seed * 104_729) % 4001) as f32 / 1000.0 - 2.0;
    let data = (0..shape.iter().product()).map(value).collect::<Vec<f32>>();
    Tensor::from_data(TensorData::new(data, shape), &Device::flex().autodiff())
}

fn composed_attention(inputs: [Tensor<3>; 3], heads: usize, causal: bool) -> Tensor<3> {
    let [batch, queries, width] = inputs[0].dims();
    let [query, key, value] = inputs.map(|input| {
        let [_, tokens, _] = input.dims();
        input.reshape([batch, tokens, heads, width / heads]).swap_dims(1, 2)
    });
    let [_, _, keys, dim] = key.dims();
    let mut scores = query.matmul(key.transpose()) / (dim as f64).sqrt();
    if causal {
        let hidden = |i: usize| f32::from(u8::from(i % keys > i / keys + keys - queries)) * -1e9;
        let mask = (0..queries * keys).map(hidden).collect::<Vec<f32>>();
        scores = scores + Tensor::<4>::from_data(TensorData::new(mask, [1, 1, queries, keys]), &Device::flex());
    }
    softmax(scores, 3).matmul(value).swap_dims(1, 2).reshape([batch, queries, width])
}

/// Output and gradients with respect to the inputs of some weighted sum of it.
fn with_gradients<const N: usize>(
    inputs: &[Tensor<3>; N],
    run: impl Fn([Tensor<3>; N]) -> Tensor<3>,
) -> (Vec<f32>, Vec<Vec<f32>>) {
    let leaves = inputs.clone().map(|input| input.detach().require_grad());
    let output = run(leaves.clone());
    let gradients = (output.clone() * tensor(output.dims(), 99)).sum().backward();
    let gradient = |leaf: &Tensor<3>| values(leaf.grad(&gradients).expect("a gradient"));
    (values(output), leaves.iter().map(gradient).collect())
}

fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    let largest = expected.iter().fold(1.0_f32, |largest, value| largest.max(value.abs()));
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= 3e-6 * largest, "{what} at {at}: {found}, not {expected}");
    }
}

fn assert_same<const N: usize>(
    inputs: &[Tensor<3>; N],
    fused: impl Fn([Tensor<3>; N]) -> Tensor<3>,
    composed: impl Fn([Tensor<3>; N]) -> Tensor<3>,
) {
    let (found, expected) = (with_gradients(inputs, &fused), with_gradients(inputs, composed));
    assert_close(&found.0, &expected.0, "output");
    for (input, (found, expected)) in found.1.iter().zip(&expected.1).enumerate() {
        assert_close(found, expected, &format!("gradient of input {input}"));
    }
    let plain = fused(inputs.clone().map(Tensor::inner));
    assert_eq!(values(plain), found.0, "with and without gradients");
}

#[test]
fn attention_equals_its_composition() {
    for (batch, queries, keys, width, heads, causal) in
        [(2, 5, 5, 24, 3, false), (3, 7, 7, 16, 2, true), (2, 3, 9, 16, 1, true), (2, 1, 6, 8, 2, false)]
    {
        let shapes = [[batch, queries, width], [batch, keys, width], [batch, keys, width]];
        let inputs = [tensor(shapes[0], 1), tensor(shapes[1], 2), tensor(shapes[2], 3)];
        assert_same(
            &inputs,
            |[query, key, value]| attention(query, key, value, heads, causal),
            |inputs| composed_attention(inputs, heads, causal),
        );
    }
}

#[test]
fn views_are_read_in_their_own_order() {
    let whole = tensor([2, 6, 32], 5);
    let part = || whole.clone().narrow(2, 8, 16);
    let copied = || Tensor::from_data(part().into_data(), &Device::flex());
    let found = attention(part(), part(), part().swap_dims(1, 2).swap_dims(1, 2), 2, true);
    assert_eq!(values(found), values(attention(copied(), copied(), copied(), 2, true)));
    let norm = norm();
    assert_eq!(values(layer_norm(&norm, 1e-5, part())), values(layer_norm(&norm, 1e-5, copied())));
    assert_eq!(values(quick_gelu(part().swap_dims(1, 2))), values(quick_gelu(copied().swap_dims(1, 2))));
}

#[test]
fn layer_norm_equals_its_composition() {
    let norm = norm();
    let composed = |input: Tensor<3>| {
        let centred = input.clone() - input.mean_dim(2);
        let variance = (centred.clone() * centred.clone()).mean_dim(2);
        let gain = norm.gamma.val().reshape([1, 1, 16]);
        let shift = norm.beta.as_ref().map(|beta| beta.val().reshape([1, 1, 16])).expect("a shift");
        centred / (variance + 1e-5).sqrt() * gain + shift
    };
    assert_same(
        &[tensor([3, 5, 16], 7) * 3.0 + 50.0],
        |[input]| layer_norm(&norm, 1e-5, input),
        |[input]| composed(input),
    );
}

#[test]
fn quick_gelu_equals_its_composition() {
    assert_same(
        &[tensor([3, 5, 19], 8) * 8.0],
        |[input]| quick_gelu(input),
        |[input]| input.clone() * sigmoid(input * 1.702),
    );
}

#[test]
fn gelu_equals_what_stands_for_it_on_other_devices() {
    assert_same(&[tensor([3, 5, 19], 8) * 3.0], |[input]| gelu(input), |[input]| composed_gelu(input));
}

#[test]
fn nan_stays_nan() {
    let input = tensor([1, 2, 16], 1).inner().slice_fill([0..1, 1..2, 3..4], f32::NAN);
    for output in [
        quick_gelu(input.clone()),
        layer_norm(&norm(), 1e-5, input.clone()),
        attention(input.clone(), input.clone(), input.clone(), 2, false),
    ] {
        assert!(values(output).iter().any(|value| value.is_nan()));
    }
}

fn norm() -> LayerNorm {
    let mut norm = LayerNormConfig::new(16).with_epsilon(1e-5).init(&Device::flex());
    let part = |seed: usize| tensor([1, 1, 16], seed).inner().reshape([16]);
    norm.gamma = norm.gamma.map(|_| part(11));
    norm.beta = norm.beta.map(|beta| beta.map(|_| part(12)));
    norm
}

#[test]
fn linear_equals_its_composition() {
    // Few and many rows for the outputs, with and without a bias.
    for (batch, tokens, outputs, bias) in [(1, 1, 9, true), (2, 3, 40, true), (2, 3, 40, false), (5, 4, 24, true)] {
        let layer = LinearConfig::new(6, outputs).with_bias(bias).init(&Device::flex()).no_grad();
        assert_same(
            &[tensor([batch, tokens, 6], outputs)],
            |[input]| linear(&layer, input),
            |[input]| layer.forward(input),
        );
    }
}

#[test]
fn a_trained_layer_gets_its_gradient() {
    let layer = LinearConfig::new(6, 40).init(&Device::flex().autodiff());
    let gradients = linear(&layer, tensor([2, 3, 6], 1)).sum().backward();
    assert!(layer.weight.val().grad(&gradients).is_some());
    assert!(layer.bias.as_ref().and_then(|bias| bias.val().grad(&gradients)).is_some());
}
