//! DoRA: the length and the direction of each weight column are trained apart (Liu et al., 2024, arXiv 2402.09353).
//!
//! `W' = m (W + s A B) / |W + s A B|`, with the lengths of columns `|.|` `[d_output]` and magnitudes `m` `[d_output]`, which
//! start as the lengths of `W`; `A`, `B`, `s` as in LoRA. The length in the denominator is seen as a constant by the
//! gradient, as in the paper's section 4.3. In activation space: `y = x W + b + (m / |.| - 1) x W + m / |.| s x A B`.
//! Count: `rank * (d_input + d_output) + d_output` for each target. Sites: linear, in both towers. Folds. It reads the
//! frozen weight and belongs first in a stack.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::Tensor;
use inarch_core::backbone::{Backbone, Entry, LinearBase, LinearSite, Mode, Pass, Sites, Touched, Tower};
use serde::{Deserialize, Serialize};

use super::factors::{Factors, check_dropout, check_finite, check_rank, check_targets, dropped};
use super::sites::{LinearSites, selected_sites};
use crate::error::Result;
use crate::learner::Learner;
use crate::method::{Method, Start, Words};

/// Settings of DoRA; those of the rank are LoRA's here, for comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DoraConfig {
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

impl Default for DoraConfig {
    fn default() -> Self {
        Self {
            rank: 2,
            alpha: 1.0,
            rank_stabilised: true,
            dropout: 0.0,
            targets: ["*.q_proj", "*.k_proj", "*.v_proj"].map(String::from).to_vec(),
        }
    }
}

#[derive(Module, Debug)]
struct Update {
    factors: Factors,
    magnitude: Param<Tensor<1>>,
}

/// Weights of trained direction and length.
#[derive(Module, Debug)]
pub struct Dora {
    sites: LinearSites<Update>,
    scale: f64,
    dropout: f64,
}

impl Method for DoraConfig {
    type Adapter = Dora;

    /// [`Error::Setting`](crate::Error::Setting) or [`Error::NoTarget`](crate::Error::NoTarget).
    fn init(&self, start: &Start<'_>) -> Result<Dora> {
        let Start { backbone, device, seed, .. } = *start;
        check_dropout(self.dropout)?;
        check_targets(&self.targets)?;
        check_finite("alpha", self.alpha)?;
        let sites = LinearSites::select(backbone, &self.targets, |site, dims| {
            check_rank(self.rank, site, dims)?;
            let lengths = backbone.linear(site).map(|layer| lengths(layer.weight.val()));
            let lengths = lengths.unwrap_or_else(|| Tensor::zeros([dims[1]], &device.clone().without_autodiff()));
            Ok(Update {
                factors: Factors::kaiming(dims, self.rank, seed.split(site), device),
                magnitude: Param::from_tensor(Tensor::from_data(lengths.into_data(), device)),
            })
        })?;
        let rank = self.rank as f64;
        let scale = self.alpha / if self.rank_stabilised { rank.sqrt() } else { rank };
        Ok(Dora { sites, scale, dropout: self.dropout })
    }

    fn words(&self) -> Words {
        Words::Unneeded
    }

    fn crosses(&self) -> bool {
        true
    }

    fn either_tower(&self) -> bool {
        true
    }

    fn trainable(&self, backbone: &Backbone, _classes: usize, _images: usize) -> usize {
        let count = |(_, [inputs, outputs]): (LinearSite, [usize; 2])| self.rank * (inputs + outputs) + outputs;
        selected_sites(backbone, &self.targets).map(count).sum()
    }
}

/// Lengths of the columns, `[d_output]`.
fn lengths(weight: Tensor<2>) -> Tensor<1> {
    let [_, outputs] = weight.dims();
    weight.powf_scalar(2.0).sum_dim(0).sqrt().clamp_min(1e-12).reshape([outputs])
}

impl Learner for Dora {}

impl Sites for Dora {
    fn entry(&self, tower: Tower) -> Entry {
        self.sites.entry(tower)
    }

    fn shares_beginnings(&self, mode: Mode) -> bool {
        // Every token of every row has its own dropout.
        mode == Mode::Evaluate || self.dropout == 0.0
    }

    fn touched(&self) -> Touched {
        Touched::LINEAR
    }

    fn linear(&self, base: LinearBase<'_>, input: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        let Some(Update { factors, magnitude }) = self.sites.get(base.at) else { return base.forward(input) };
        let frozen = base.forward(input.clone());
        let input = dropped(base.at, input, self.dropout, pass);
        let weight = base.layer.weight.val();
        let ratio = magnitude.val() / lengths(weight.clone() + factors.product() * self.scale);
        let ratio = ratio.unsqueeze::<3>();
        let direction = input.clone().matmul(weight.unsqueeze::<3>());
        frozen + direction * (ratio.clone() - 1.0) + factors.apply(input, self.scale) * ratio
    }

    fn folds(&self) -> bool {
        true
    }

    fn fold(&self, at: LinearSite, layer: &Linear) -> Option<Linear> {
        let Update { factors, magnitude } = self.sites.get(at)?;
        let weight = layer.weight.val() + factors.product() * self.scale;
        let ratio = magnitude.val().without_autodiff() / lengths(weight.clone());
        Some(Linear { weight: Param::from_tensor(weight * ratio.unsqueeze::<2>()), bias: layer.bias.clone() })
    }
}
