//! LoRA: low-rank adaptation of linear layers (Hu et al., 2021, arXiv 2106.09685) with the recipe of CLIP-LoRA
//! (Zanella and Ben Ayed, 2024, arXiv 2405.18541).
//!
//! `y = x W + b + s (drop(x) A) B`, computed in activation space: no dense gradient, no second copy of `W`.
//!
//! - `x` `[batch, tokens, d_input]`, `A` `[d_input, rank]`, `B` `[rank, d_output]` (the transposes of PyTorch's).
//! - Trained: `A` (uniform within `1/sqrt(d_input)`, Kaiming with a = sqrt 5) and `B` (zero), so the adapter starts as
//!   the identity. Count: `rank * (d_input + d_output)` for each target.
//! - Sites: linear, in both towers.
//! - `s = alpha / sqrt(rank)` with `rank_stabilised` (CLIP-LoRA, rsLoRA: Kalajdzievski, 2023, arXiv 2312.03732), else
//!   `alpha / rank`.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{Device, Tensor, TensorData};
use inarch_core::Seed;
use inarch_core::backbone::{Backbone, Entry, LinearBase, LinearSite, Mode, Pass, Sites, Tower};
use rand::Rng as _;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::learner::Learner;
use crate::linear::{LinearSites, selected};
use crate::method::{Method, Start};

/// Settings of LoRA; the defaults are CLIP-LoRA's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoraConfig {
    /// Rank of the update.
    pub rank: usize,
    /// Numerator of the scale.
    pub alpha: f64,
    /// Divide by the square root of the rank instead of the rank.
    pub rank_stabilised: bool,
    /// Probability with which an input value of the update is dropped in training.
    pub dropout: f64,
    /// Which linear sites, by name; `*` stands for anything.
    pub targets: Vec<String>,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            rank: 2,
            alpha: 1.0,
            rank_stabilised: true,
            dropout: 0.25,
            targets: ["*.q_proj", "*.k_proj", "*.v_proj"].map(String::from).to_vec(),
        }
    }
}

impl LoraConfig {
    /// The factor of the update.
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.rank_stabilised { rank.sqrt() } else { rank }
    }
}

/// The two factors at one site.
#[derive(Module, Debug)]
struct Factors {
    a: Param<Tensor<2>>,
    b: Param<Tensor<2>>,
}

/// A low-rank update of the linear layers of both towers.
#[derive(Module, Debug)]
pub struct Lora {
    sites: LinearSites<Factors>,
    scale: f64,
    dropout: f64,
}

impl Method for LoraConfig {
    type Adapter = Lora;

    /// [`Error::Setting`] or [`Error::NoTarget`].
    fn init(&self, start: &Start<'_>) -> Result<Lora> {
        let Start { backbone, device, seed, .. } = *start;
        if self.rank == 0 {
            return Err(Error::Setting { setting: "rank", reason: "must be at least 1".into() });
        }
        if !(0.0..1.0).contains(&self.dropout) {
            let reason = format!("must be in [0, 1), found {}", self.dropout);
            return Err(Error::Setting { setting: "dropout", reason });
        }
        if self.targets.is_empty() {
            let reason = "name at least one site, e.g. `*.q_proj`".into();
            return Err(Error::Setting { setting: "targets", reason });
        }
        let rank = self.rank;
        let sites = LinearSites::select(backbone, &self.targets, |site, [inputs, outputs]| {
            // Beyond it a factor is larger than the weight itself; a manifest could ask for all memory.
            let limit = inputs.max(outputs);
            if rank > limit {
                let reason = format!("must be at most {limit} at `{site}`, found {rank}");
                return Err(Error::Setting { setting: "rank", reason });
            }
            let a = seed.split(site).uniforms(inputs * rank, 1.0 / (inputs as f32).sqrt());
            Ok(Factors {
                a: Param::from_tensor(Tensor::from_data(TensorData::new(a, [inputs, rank]), device)),
                b: Param::from_tensor(Tensor::zeros([rank, outputs], device)),
            })
        })?;
        Ok(Lora { sites, scale: self.scale(), dropout: self.dropout })
    }

    fn trainable(&self, backbone: &Backbone, _classes: usize) -> usize {
        selected(backbone, &self.targets).map(|[inputs, outputs]| self.rank * (inputs + outputs)).sum()
    }
}

impl Learner for Lora {}

impl Lora {
    fn dropped(&self, site: LinearSite, input: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        match pass.mode {
            Mode::Train(step) if self.dropout > 0.0 => {
                let mask =
                    dropout_mask(input.dims(), self.dropout, step.split(site), &input.device().without_autodiff());
                input * mask
            }
            _ => input,
        }
    }
}

/// A mask of `0` and `1 / (1 - probability)`, drawn on the host so that every device sees the same. The probability is
/// rounded to a 256th.
fn dropout_mask(shape: [usize; 3], probability: f64, seed: Seed, device: &Device) -> Tensor<3> {
    let threshold = (probability * 256.0).round() as u16;
    let keep = 256.0 / (256.0 - f32::from(threshold));
    let mut bytes = vec![0u8; shape.iter().product()];
    seed.rng().fill_bytes(&mut bytes);
    let mask: Vec<f32> = bytes.into_iter().map(|byte| if u16::from(byte) < threshold { 0.0 } else { keep }).collect();
    Tensor::from_data(TensorData::new(mask, shape), device)
}

impl Sites for Lora {
    fn entry(&self, tower: Tower) -> Entry {
        self.sites.entry(tower)
    }

    fn linear(&self, base: LinearBase<'_>, input: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        let Some(factors) = self.sites.get(base.at) else { return base.forward(input) };
        let frozen = base.forward(input.clone());
        let input = self.dropped(base.at, input, pass);
        // As two-dimensional products: the rank is far too small for a batched kernel.
        let [batch, tokens, width] = input.dims();
        let [_, _, outputs] = frozen.dims();
        let low = input.reshape([batch * tokens, width]).matmul(factors.a.val());
        let update = (low * self.scale).matmul(factors.b.val());
        frozen + update.reshape([batch, tokens, outputs])
    }

    fn folds(&self) -> bool {
        true
    }

    fn fold(&self, at: LinearSite, layer: &Linear) -> Option<Linear> {
        let factors = self.sites.get(at)?;
        let update = factors.a.val().without_autodiff().matmul(factors.b.val().without_autodiff()) * self.scale;
        let weight = Param::from_tensor(layer.weight.val() + update);
        Some(Linear { weight, bias: layer.bias.clone() })
    }
}
