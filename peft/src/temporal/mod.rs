//! Methods that mix the frames of a clip, or the tiles of a slide.

mod aim;
mod attention_pool;
mod gated_pool;
mod norm;
mod positions;
mod st_adapter;
mod summary;
mod taps;
mod temporal_conv;
mod temporal_shift;
mod temporal_transformer;
mod vita_clip;

pub use aim::{Aim, AimConfig};
pub use attention_pool::{AttentionPool, AttentionPoolConfig};
pub use gated_pool::{GatedPool, GatedPoolConfig};
pub use st_adapter::{StAdapter, StAdapterConfig};
pub use temporal_conv::{TemporalConv, TemporalConvConfig};
pub use temporal_shift::{TemporalShift, TemporalShiftConfig};
pub use temporal_transformer::{TemporalTransformer, TemporalTransformerConfig};
pub use vita_clip::{VitaClip, VitaClipConfig};

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use inarch_core::Seed;

use crate::error::{Error, Result};

/// More of anything than a head on a few frames has use for.
const MOST: usize = 4096;

/// Refuses a size that is 0 or beyond all use.
fn check_size(setting: &'static str, value: usize) -> Result<()> {
    if value == 0 || value > MOST {
        return Err(Error::Setting { setting, reason: format!("must be 1 to {MOST}, found {value}") });
    }
    Ok(())
}

/// `[inputs, outputs]`, uniform within `1 / sqrt(inputs)`.
fn drawn(inputs: usize, outputs: usize, seed: Seed, device: &Device) -> Param<Tensor<2>> {
    let values = seed.uniforms(inputs * outputs, 1.0 / (inputs as f32).sqrt());
    Param::from_tensor(Tensor::from_data(TensorData::new(values, [inputs, outputs]), device))
}

/// Frames' features of length 1, `[clips, frames, dim]`, and their lengths, `[clips, frames, 1]`.
fn directions(frames: &Tensor<3>) -> (Tensor<3>, Tensor<3>) {
    let lengths = frames.clone().powf_scalar(2.0).sum_dim(2).sqrt().clamp_min(1e-12);
    (frames.clone() / lengths.clone(), lengths)
}

/// A linear map of the last axis, `[clips, frames, inputs]` to `[clips, frames, outputs]`.
fn map(input: Tensor<3>, weight: &Param<Tensor<2>>) -> Tensor<3> {
    let ([clips, frames, inputs], [_, outputs]) = (input.dims(), weight.dims());
    input.reshape([clips * frames, inputs]).matmul(weight.val()).reshape([clips, frames, outputs])
}
