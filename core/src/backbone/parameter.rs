//! Empty layers of a given shape, to be filled from a state dict. They take no memory, whatever shape a file claims.

use burn::module::Param;
use burn::nn::{LayerNorm, Linear};
use burn::tensor::{Device, Tensor};

/// A linear layer of zeros; weight `[d_input, d_output]`.
pub(super) fn linear(d_input: usize, d_output: usize, bias: bool, device: &Device) -> Linear {
    Linear { weight: zeros([d_input, d_output], device), bias: bias.then(|| zeros([d_output], device)) }
}

/// A layer normalisation with gain 1 and bias 0.
pub(super) fn layer_norm(width: usize, epsilon: f64, device: &Device) -> LayerNorm {
    let mut norm = burn::nn::LayerNormConfig::new(width).with_epsilon(epsilon).init(device);
    norm.gamma = ones(width, device);
    norm.beta = Some(zeros([width], device));
    norm
}

/// Zeros that take no memory: they are there to be replaced.
pub(super) fn zeros<const D: usize>(shape: [usize; D], device: &Device) -> Param<Tensor<D>> {
    let zero: Tensor<D> = Tensor::zeros([1_usize; D], device);
    Param::from_tensor(zero.expand(shape))
}

/// As [`zeros`], for the gain of each channel.
pub(super) fn ones(width: usize, device: &Device) -> Param<Tensor<1>> {
    let one: Tensor<1> = Tensor::ones([1], device);
    Param::from_tensor(one.expand([width]))
}
