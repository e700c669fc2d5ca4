//! A trained layer normalisation.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

/// A normalisation of the last axis.
#[derive(Module, Debug)]
pub(super) struct Norm {
    gain: Param<Tensor<1>>,
    offset: Param<Tensor<1>>,
}

impl Norm {
    pub(super) fn new(width: usize, device: &Device) -> Self {
        let (gain, offset) = (Tensor::ones([width], device), Tensor::zeros([width], device));
        Self { gain: Param::from_tensor(gain), offset: Param::from_tensor(offset) }
    }

    /// `[clips, frames, width]` to the same.
    pub(super) fn forward(&self, input: Tensor<3>) -> Tensor<3> {
        let centred = input.clone() - input.mean_dim(2);
        let variance = centred.clone().powf_scalar(2.0).mean_dim(2);
        centred / (variance + 1e-5).sqrt() * self.gain.val().unsqueeze::<3>() + self.offset.val().unsqueeze::<3>()
    }
}
