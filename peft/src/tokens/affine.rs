//! A small linear layer of a prompt's own network.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use inarch_core::Seed;

/// `x W + b`, drawn uniform within `1 / sqrt(inputs)`.
#[derive(Module, Debug)]
pub(super) struct Affine {
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
}

impl Affine {
    pub(super) fn new(shape: [usize; 2], seed: Seed, device: &Device) -> Self {
        let [inputs, outputs] = shape;
        let bound = 1.0 / (inputs as f32).sqrt();
        let weight = TensorData::new(seed.split("weight").uniforms(inputs * outputs, bound), shape);
        let bias = TensorData::new(seed.split("bias").uniforms(outputs, bound), [outputs]);
        Self {
            weight: Param::from_tensor(Tensor::from_data(weight, device)),
            bias: Param::from_tensor(Tensor::from_data(bias, device)),
        }
    }

    /// Number of values.
    pub(super) fn count([inputs, outputs]: [usize; 2]) -> usize {
        (inputs + 1) * outputs
    }

    /// `[rows, inputs]` to `[rows, outputs]`.
    pub(super) fn forward(&self, input: Tensor<2>) -> Tensor<2> {
        input.matmul(self.weight.val()) + self.bias.val().unsqueeze::<2>()
    }
}
