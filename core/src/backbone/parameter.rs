//! Empty layers of a given shape, to be filled from a state dict.

use burn::module::Param;
use burn::nn::{LayerNorm, Linear};
use burn::tensor::{Device, Tensor};

/// A linear layer of zeros; weight `[d_input, d_output]`.
pub(super) fn linear(d_input: usize, d_output: usize, bias: bool, device: &Device) -> Linear {
    Linear {
        weight: zeros(d_input, d_output, device),
        bias: bias.then(|| Param::from_tensor(Tensor::zeros([d_output], device))),
    }
}

/// A layer normalisation with gain 1 and bias 0.
pub(super) fn layer_norm(width: usize, epsilon: f64, device: &Device) -> LayerNorm {
    let mut norm = burn::nn::LayerNormConfig::new(width).with_epsilon(epsilon).init(device);
    norm.gamma = Param::from_tensor(Tensor::ones([width], device));
    norm.beta = Some(Param::from_tensor(Tensor::zeros([width], device)));
    norm
}

/// A matrix of zeros that takes no memory: it is there to be replaced.
pub(super) fn zeros(rows: usize, columns: usize, device: &Device) -> Param<Tensor<2>> {
    let zero: Tensor<2> = Tensor::zeros([1, 1], device);
    Param::from_tensor(zero.expand([rows, columns]))
}
