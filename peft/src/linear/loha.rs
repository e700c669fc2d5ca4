//! LoHa: the update of a weight is the elementwise product of two low-rank matrices (Hyeon-Woo et al., 2021, arXiv
//! 2108.06098; LyCORIS: Yeh et al., 2023, arXiv 2309.14859).
//!
//! `W' = W + (alpha / rank) (A1 B1) * (A2 B2)`, `A` `[d_input, rank]`, `B` `[rank, d_output]`: the rank of the update is up to
//! `rank^2`. `A1`, `A2` start normal with deviation 1, `B1` with 0.1, `B2` at zero, so that the start is the identity. Count:
//! `2 * rank * (d_input + d_output)` for each target. Sites: linear, in both towers. Folds.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{Tensor, TensorData};
use inarch_core::backbone::{Backbone, Entry, LinearBase, LinearSite, Mode, Pass, Sites, Touched, Tower};
use serde::{Deserialize, Serialize};

use super::factors::{check_finite, check_rank, check_targets, dense};
use super::sites::{LinearSites, selected_sites};
use crate::error::Result;
use crate::learner::Learner;
use crate::method::{Method, Start, Words};

/// Settings of LoHa; the defaults are those of HF PEFT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoHaConfig {
    /// Rank of each of the two matrices.
    pub rank: usize,
    /// Numerator of the scale.
    pub alpha: f64,
    /// Which linear sites, by name; `*` stands for anything.
    pub targets: Vec<String>,
}

impl Default for LoHaConfig {
    fn default() -> Self {
        let targets = ["*.q_proj", "*.k_proj", "*.v_proj"].map(String::from).to_vec();
        Self { rank: 8, alpha: 8.0, targets }
    }
}

#[derive(Module, Debug)]
struct Factors {
    a1: Param<Tensor<2>>,
    b1: Param<Tensor<2>>,
    a2: Param<Tensor<2>>,
    b2: Param<Tensor<2>>,
}

impl Factors {
    /// `[d_input, d_output]`.
    fn change(&self, scale: f64) -> Tensor<2> {
        self.a1.val().matmul(self.b1.val()) * self.a2.val().matmul(self.b2.val()) * scale
    }
}

/// Elementwise products of low-rank matrices.
#[derive(Module, Debug)]
pub struct LoHa {
    sites: LinearSites<Factors>,
    scale: f64,
}

impl Method for LoHaConfig {
    type Adapter = LoHa;

    /// [`Error::Setting`](crate::Error::Setting) or [`Error::NoTarget`](crate::Error::NoTarget).
    fn init(&self, start: &Start<'_>) -> Result<LoHa> {
        check_targets(&self.targets)?;
        check_finite("alpha", self.alpha)?;
        let rank = self.rank;
        let sites = LinearSites::select(start.backbone, &self.targets, |site, dims| {
            check_rank(rank, site, dims)?;
            let [inputs, outputs] = dims;
            let draw = |name: &str, shape: [usize; 2], deviation: f32| {
                let values = start.seed.split(site).split(name).normals(shape[0] * shape[1], deviation);
                Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), start.device))
            };
            Ok(Factors {
                a1: draw("a1", [inputs, rank], 1.0),
                b1: draw("b1", [rank, outputs], 0.1),
                a2: draw("a2", [inputs, rank], 1.0),
                b2: Param::from_tensor(Tensor::zeros([rank, outputs], start.device)),
            })
        })?;
        Ok(LoHa { sites, scale: self.alpha / rank as f64 })
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
        let count = |(_, [inputs, outputs]): (LinearSite, [usize; 2])| 2 * self.rank * (inputs + outputs);
        selected_sites(backbone, &self.targets).map(count).sum()
    }
}

impl Learner for LoHa {}

impl Sites for LoHa {
    fn entry(&self, tower: Tower) -> Entry {
        self.sites.entry(tower)
    }

    fn shares_beginnings(&self, _mode: Mode) -> bool {
        true
    }

    fn touched(&self) -> Touched {
        Touched::LINEAR
    }

    fn linear(&self, base: LinearBase<'_>, input: Tensor<3>, _pass: &Pass<'_>) -> Tensor<3> {
        let Some(factors) = self.sites.get(base.at) else { return base.forward(input) };
        base.forward(input.clone()) + dense(input, factors.change(self.scale))
    }

    fn folds(&self) -> bool {
        true
    }

    fn fold(&self, at: LinearSite, layer: &Linear) -> Option<Linear> {
        let change = self.sites.get(at)?.change(self.scale).without_autodiff();
        Some(Linear { weight: Param::from_tensor(layer.weight.val() + change), bias: layer.bias.clone() })
    }
}
