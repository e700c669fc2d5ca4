//! A temporal convolution on the features of frames.
//!
//! `f_t' = f_t + |f_t| gelu(conv(u D)_t + c) U` with directions `u_t = f_t / |f_t|`, `D` `[dim, hidden]`, a convolution over
//! time of each hidden channel by itself, `[kernel, hidden]`, and `U` `[hidden, dim]`, which starts at zero: the start is mean
//! pooling. The frames' features are then pooled by what lies below, usually their mean; behind the GELU a difference of
//! neighbouring frames survives it, so the order of frames counts. Temporal convolution on frame features is one of the
//! heads of ActionCLIP (Wang et al., 2021, arXiv 2109.08472); it knows no absolute place in time and takes any number of frames.
//! Count: `2 * dim * hidden + (kernel + 1) * hidden`. Site: pool; no tower is touched.

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData};
use inarch_core::backbone::{Backbone, Entry, Pass, PoolBase, Sites, Touched, Tower};
use inarch_core::gelu;
use serde::{Deserialize, Serialize};

use super::taps::over_time;
use super::{check_size, directions, map};
use crate::error::{Error, Result};
use crate::learner::Learner;
use crate::method::{Method, Start, Words};

/// Settings of a temporal convolution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TemporalConvConfig {
    /// Channels of the convolution.
    pub hidden: usize,
    /// Frames that it sees at once, odd.
    pub kernel: usize,
}

impl Default for TemporalConvConfig {
    fn default() -> Self {
        Self { hidden: 128, kernel: 3 }
    }
}

/// A temporal convolution.
#[derive(Module, Debug)]
pub struct TemporalConv {
    down: Param<Tensor<2>>,
    kernel: Param<Tensor<2>>,
    offset: Param<Tensor<1>>,
    up: Param<Tensor<2>>,
}

/// Refuses a kernel without a middle.
pub(super) fn check_kernel(kernel: usize) -> Result<()> {
    if kernel.is_multiple_of(2) || kernel > 63 {
        let reason = format!("must be odd and at most 63, found {kernel}");
        return Err(Error::Setting { setting: "kernel", reason });
    }
    Ok(())
}

impl Method for TemporalConvConfig {
    type Adapter = TemporalConv;

    /// [`Error::Setting`] for no channel, or a kernel that is even or too long.
    fn init(&self, start: &Start<'_>) -> Result<TemporalConv> {
        check_size("hidden", self.hidden)?;
        check_kernel(self.kernel)?;
        let Start { seed, device, .. } = *start;
        let (dim, hidden) = (start.backbone.spec().dim, self.hidden);
        let kernel = seed.split("kernel").uniforms(self.kernel * hidden, 1.0 / (self.kernel as f32).sqrt());
        // Values of `u D` are around 1 / dim; as large as those of a layer with inputs of order one.
        let down = seed.split("down").uniforms(dim * hidden, 1.0);
        Ok(TemporalConv {
            down: Param::from_tensor(Tensor::from_data(TensorData::new(down, [dim, hidden]), device)),
            kernel: Param::from_tensor(Tensor::from_data(TensorData::new(kernel, [self.kernel, hidden]), device)),
            offset: Param::from_tensor(Tensor::zeros([hidden], device)),
            up: Param::from_tensor(Tensor::zeros([hidden, dim], device)),
        })
    }

    fn words(&self) -> Words {
        Words::Unneeded
    }

    fn trainable(&self, backbone: &Backbone, _classes: usize, _images: usize) -> usize {
        2 * backbone.spec().dim * self.hidden + (self.kernel + 1) * self.hidden
    }
}

impl Learner for TemporalConv {}

impl Sites for TemporalConv {
    fn entry(&self, tower: Tower) -> Entry {
        match tower {
            Tower::Image => Entry::Pool,
            Tower::Text => Entry::Never,
        }
    }

    fn touched(&self) -> Touched {
        Touched::NONE
    }

    fn pool(&self, base: PoolBase<'_>, frames: Tensor<3>, _pass: &Pass<'_>) -> Tensor<2> {
        let [clips, count, _] = frames.dims();
        let [_, hidden] = self.kernel.dims();
        let (directions, lengths) = directions(&frames);
        let seen = map(directions, &self.down).reshape([clips, count, 1, hidden]);
        let mixed = over_time(seen, self.kernel.val()).reshape([clips, count, hidden]);
        let change = map(gelu(mixed + self.offset.val().unsqueeze::<3>()), &self.up);
        base.forward(frames + change * lengths)
    }
}
