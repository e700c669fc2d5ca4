//! VeRA: one pair of random matrices for all layers, and two trained vectors for each (Kopiczko et al., 2023, arXiv
//! 2310.11454).
//!
//! `y = x W + b + ((x A_l * d) B_l) * e` with `A` `[widest input, rank]` and `B` `[rank, widest output]`, drawn once and
//! stored, of which each layer `l` takes its first rows or columns, and trained `d` `[rank]` (0.1 at first) and `e`
//! `[d_output]` (zero, so that the start is the identity). Count: `rank + d_output` for each target. Sites: linear, in both
//! towers. Folds.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{Tensor, TensorData};
use inarch_core::backbone::{Backbone, Entry, LinearBase, LinearSite, Mode, Pass, Sites, Touched, Tower};
use serde::{Deserialize, Serialize};

use super::factors::{check_dropout, check_finite, check_targets, dropped, low_rank};
use super::sites::{LinearSites, selected_sites};
use crate::error::{Error, Result};
use crate::fixed::Fixed;
use crate::learner::Learner;
use crate::method::{Method, Start, Words};

/// Settings of VeRA; the defaults are those of HF PEFT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VeraConfig {
    /// Rank of the random matrices.
    pub rank: usize,
    /// First value of `d`.
    pub d_initial: f64,
    /// Probability with which an input value of the update is dropped in training.
    pub dropout: f64,
    /// Which linear sites, by name; `*` stands for anything.
    pub targets: Vec<String>,
}

impl Default for VeraConfig {
    fn default() -> Self {
        Self {
            rank: 256,
            d_initial: 0.1,
            dropout: 0.0,
            targets: ["*.q_proj", "*.k_proj", "*.v_proj"].map(String::from).to_vec(),
        }
    }
}

#[derive(Module, Debug)]
struct Vectors {
    /// `[rank]`.
    d: Param<Tensor<1>>,
    /// `[d_output]`.
    e: Param<Tensor<1>>,
}

/// Trained vectors around shared random matrices.
#[derive(Module, Debug)]
pub struct Vera {
    a: Fixed<2>,
    b: Fixed<2>,
    sites: LinearSites<Vectors>,
    dropout: f64,
}

impl Method for VeraConfig {
    type Adapter = Vera;

    /// [`Error::Setting`] or [`Error::NoTarget`].
    fn init(&self, start: &Start<'_>) -> Result<Vera> {
        let Start { backbone, device, seed, .. } = *start;
        check_dropout(self.dropout)?;
        check_targets(&self.targets)?;
        check_finite("d_initial", self.d_initial)?;
        // Far beyond the paper's 1024; a manifest could ask for all memory.
        if self.rank == 0 || self.rank > 1 << 14 {
            let reason = format!("must be 1 to {}, found {}", 1 << 14, self.rank);
            return Err(Error::Setting { setting: "rank", reason });
        }
        let rank = self.rank;
        let sites = LinearSites::select(backbone, &self.targets, |_, [_, outputs]| {
            Ok(Vectors {
                d: Param::from_tensor(Tensor::full([rank], self.d_initial, device)),
                e: Param::from_tensor(Tensor::zeros([outputs], device)),
            })
        })?;
        let dims = |at: usize| selected_sites(backbone, &self.targets).map(|(_, dims)| dims[at]).max().unwrap_or(1);
        let (inputs, outputs) = (dims(0), dims(1));
        let plain = device.clone().without_autodiff();
        let random = |name: &str, shape: [usize; 2]| {
            let values = seed.split(name).uniforms(shape[0] * shape[1], (3.0 / shape[0] as f32).sqrt());
            Fixed::new(Tensor::from_data(TensorData::new(values, shape), &plain))
        };
        let (a, b) = (random("a", [inputs, rank]), random("b", [rank, outputs]));
        Ok(Vera { a, b, sites, dropout: self.dropout })
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
        selected_sites(backbone, &self.targets).map(|(_, [_, outputs])| self.rank + outputs).sum()
    }
}

impl Vera {
    /// The factors of a layer with its vectors in them, `[d_input, rank]` and `[rank, d_output]`.
    fn factors(&self, vectors: &Vectors, [inputs, outputs]: [usize; 2]) -> [Tensor<2>; 2] {
        let a = self.a.val().narrow(0, 0, inputs) * vectors.d.val().unsqueeze::<2>();
        let b = self.b.val().narrow(1, 0, outputs) * vectors.e.val().unsqueeze::<2>();
        [a, b]
    }
}

impl Learner for Vera {}

impl Sites for Vera {
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
        let Some(vectors) = self.sites.get(base.at) else { return base.forward(input) };
        let [a, b] = self.factors(vectors, base.layer.weight.val().dims());
        base.forward(input.clone()) + low_rank(dropped(base.at, input, self.dropout, pass), a, b, 1.0)
    }

    fn folds(&self) -> bool {
        true
    }

    fn fold(&self, at: LinearSite, layer: &Linear) -> Option<Linear> {
        let [a, b] = self.factors(self.sites.get(at)?, layer.weight.val().dims());
        let weight = layer.weight.val() + a.without_autodiff().matmul(b.without_autodiff());
        Some(Linear { weight: Param::from_tensor(weight), bias: layer.bias.clone() })
    }
}
