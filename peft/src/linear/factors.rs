//! Low-rank factors at one site, and the dropout in front of them: what LoRA and its kin share.

use std::fmt::Display;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use inarch_core::Seed;
use inarch_core::backbone::{LinearSite, Mode, Pass};
use rand::Rng as _;

use crate::error::{Error, Result};

/// `A` `[d_input, rank]` and `B` `[rank, d_output]`, the transposes of PyTorch's.
#[derive(Module, Debug)]
pub(crate) struct Factors {
    pub(crate) a: Param<Tensor<2>>,
    pub(crate) b: Param<Tensor<2>>,
}

impl Factors {
    /// `A` uniform within `1 / sqrt(d_input)` (Kaiming with a = sqrt 5) and `B` zero.
    pub(crate) fn kaiming([inputs, outputs]: [usize; 2], rank: usize, seed: Seed, device: &Device) -> Self {
        let a = seed.uniforms(inputs * rank, 1.0 / (inputs as f32).sqrt());
        Self::from_a(a, [inputs, outputs], rank, device)
    }

    /// A given `A`, row-major, and `B` zero.
    pub(crate) fn from_a(a: Vec<f32>, [inputs, outputs]: [usize; 2], rank: usize, device: &Device) -> Self {
        Self {
            a: Param::from_tensor(Tensor::from_data(TensorData::new(a, [inputs, rank]), device)),
            b: Param::from_tensor(Tensor::zeros([rank, outputs], device)),
        }
    }

    /// `x A B`, in activation space: no dense gradient and no second copy of the weight.
    pub(crate) fn apply(&self, input: Tensor<3>, scale: f64) -> Tensor<3> {
        low_rank(input, self.a.val(), self.b.val(), scale)
    }

    /// `A B`, `[d_input, d_output]`, without a gradient.
    pub(crate) fn product(&self) -> Tensor<2> {
        self.a.val().without_autodiff().matmul(self.b.val().without_autodiff())
    }
}

/// `scale x A B` with `x` `[batch, tokens, d_input]`.
pub(crate) fn low_rank(input: Tensor<3>, a: Tensor<2>, b: Tensor<2>, scale: f64) -> Tensor<3> {
    // As two-dimensional products: the rank is far too small for a batched kernel.
    let [batch, tokens, width] = input.dims();
    let [_, outputs] = b.dims();
    let low = input.reshape([batch * tokens, width]).matmul(a);
    (low * scale).matmul(b).reshape([batch, tokens, outputs])
}

/// `x D` with `x` `[batch, tokens, d_input]` and a dense `D` `[d_input, d_output]`.
pub(crate) fn dense(input: Tensor<3>, change: Tensor<2>) -> Tensor<3> {
    let [batch, tokens, width] = input.dims();
    let [_, outputs] = change.dims();
    input.reshape([batch * tokens, width]).matmul(change).reshape([batch, tokens, outputs])
}

/// Checks a rank before anything of its size is made: beyond the width of the weight a factor is larger than the weight
/// itself, and a manifest could ask for all memory.
pub(crate) fn check_rank(rank: usize, site: LinearSite, dims: [usize; 2]) -> Result<()> {
    let limit = dims[0].max(dims[1]);
    if (1..=limit).contains(&rank) {
        return Ok(());
    }
    let reason = format!("must be 1 to {limit} at `{site}`, found {rank}");
    Err(Error::Setting { setting: "rank", reason })
}

/// Checks that at least one site is named.
pub(crate) fn check_targets(targets: &[String]) -> Result<()> {
    if targets.is_empty() {
        let reason = "name at least one site, e.g. `*.q_proj`".into();
        return Err(Error::Setting { setting: "targets", reason });
    }
    Ok(())
}

/// Checks a number that must be finite.
pub(crate) fn check_finite(setting: &'static str, value: f64) -> Result<()> {
    if value.is_finite() {
        return Ok(());
    }
    Err(Error::Setting { setting, reason: format!("must be a number, found {value}") })
}

/// Checks a factor on a learning rate.
pub(super) fn check_rate(setting: &'static str, rate: f64) -> Result<()> {
    if rate.is_finite() && rate > 0.0 {
        return Ok(());
    }
    Err(Error::Setting { setting, reason: format!("must be above 0, found {rate}") })
}

/// Checks a probability of dropout.
pub(crate) fn check_dropout(dropout: f64) -> Result<()> {
    if (0.0..1.0).contains(&dropout) {
        return Ok(());
    }
    Err(Error::Setting { setting: "dropout", reason: format!("must be in [0, 1), found {dropout}") })
}

/// In training, `input` with some values dropped and the others enlarged.
pub(crate) fn dropped(site: impl Display, input: Tensor<3>, probability: f64, pass: &Pass<'_>) -> Tensor<3> {
    match pass.mode {
        Mode::Train(step) if probability > 0.0 => {
            let mask = dropout_mask(input.dims(), probability, step.split(site), &input.device().without_autodiff());
            input * mask
        }
        _ => input,
    }
}

/// A mask of `0` and `1 / (1 - probability)`, drawn on the host so that every device sees the same. The probability is
/// rounded to a 256th.
fn dropout_mask(shape: [usize; 3], probability: f64, seed: Seed, device: &Device) -> Tensor<3> {
    let threshold = (probability * 256.0).round().min(255.0) as u16;
    let keep = 256.0 / (256.0 - f32::from(threshold));
    let mut bytes = vec![0u8; shape.iter().product()];
    seed.rng().fill_bytes(&mut bytes);
    let mask: Vec<f32> = bytes.into_iter().map(|byte| if u16::from(byte) < threshold { 0.0 } else { keep }).collect();
    Tensor::from_data(TensorData::new(mask, shape), device)
}
