//! A small linear layer of an adapter's own network.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use inarch_core::Seed;

/// `x W + b`, drawn uniform within `1 / sqrt(inputs)`.
#[derive(Module, Debug)]
pub(crate) struct Affine {
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
}

impl Affine {
    pub(crate) fn new(shape: [usize; 2], seed: Seed, device: &Device) -> Self {
        let [inputs, outputs] = shape;
        let bound = 1.0 / (inputs as f32).sqrt();
        let weight = TensorData::new(seed.split("weight").uniforms(inputs * outputs, bound), shape);
        let bias = TensorData::new(seed.split("bias").uniforms(outputs, bound), [outputs]);
        Self {
            weight: Param::from_tensor(Tensor::from_data(weight, device)),
            bias: Param::from_tensor(Tensor::from_data(bias, device)),
        }
    }

    /// The same with weights as [`glorot`] draws them and an offset of zero.
    pub(crate) fn glorot(shape: [usize; 2], seed: Seed, device: &Device) -> Self {
        Self { weight: glorot(shape, seed, device), bias: Param::from_tensor(Tensor::zeros([shape[1]], device)) }
    }

    /// Number of values.
    pub(crate) fn count([inputs, outputs]: [usize; 2]) -> usize {
        (inputs + 1) * outputs
    }

    /// `[rows, inputs]` to `[rows, outputs]`.
    pub(crate) fn forward(&self, input: Tensor<2>) -> Tensor<2> {
        input.matmul(self.weight.val()) + self.bias.val().unsqueeze::<2>()
    }
}

/// `[inputs, outputs]`, uniform within `sqrt(6 / (inputs + outputs))` (Glorot and Bengio, 2010).
pub(crate) fn glorot(shape: [usize; 2], seed: Seed, device: &Device) -> Param<Tensor<2>> {
    let [inputs, outputs] = shape;
    let values = seed.uniforms(inputs * outputs, (6.0 / (inputs + outputs) as f32).sqrt());
    Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), device))
}
