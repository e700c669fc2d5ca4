//! OFT: the inputs of a layer are rotated, block by block (Qiu et al., 2023, arXiv 2306.07280).
//!
//! `y = (x R) W + b` with `R` block-diagonal, each block `R_i = (I - Q_i)(I + Q_i)^-1` `[block, block]` a rotation by the
//! Cayley transform of a skew-symmetric `Q_i`, whose upper triangle is trained and starts at zero, so that the start is
//! the identity. Angles and lengths between weights stay. Count: `d_input / block * block (block - 1) / 2` for each target.
//! Sites: linear, in both towers. Folds: `R W`.
//!
//! With `neumann_terms` the inverse is cut off after so many terms of its series, as HF PEFT does by default (Qiu et al.,
//! 2025, arXiv 2506.19847): `R_i = I + 2 Q + .. + 2 Q^(n-2) + Q^(n-1)`, there with the other sign of `Q`; not quite a
//! rotation, and without an inverse. Otherwise the inverse is exact.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::Tensor;
use inarch_core::backbone::{Backbone, Entry, LinearBase, LinearSite, Mode, Pass, Sites, Touched, Tower};
use serde::{Deserialize, Serialize};

use super::factors::check_targets;
use super::rotation::{cayley, skew_symmetric};
use super::sites::{LinearSites, selected_sites};
use crate::error::{Error, Result};
use crate::learner::Learner;
use crate::method::{Method, Start, Words};

/// More terms than a series needs.
const MOST_TERMS: usize = 64;

/// Settings of OFT; the width of a block is that of HF PEFT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OftConfig {
    /// Width of a block; must divide the inputs of every target.
    pub block: usize,
    /// Terms of the series in place of the inverse; 0 for the inverse itself.
    pub neumann_terms: usize,
    /// Which linear sites, by name; `*` stands for anything.
    pub targets: Vec<String>,
}

impl Default for OftConfig {
    fn default() -> Self {
        Self { block: 32, neumann_terms: 0, targets: ["*.q_proj", "*.k_proj", "*.v_proj"].map(String::from).to_vec() }
    }
}

#[derive(Module, Debug)]
struct Rotation {
    /// The upper triangle of each block, row by row: `[blocks, block (block - 1) / 2]`.
    skew: Param<Tensor<2>>,
}

impl Rotation {
    /// `[blocks, block, block]`.
    fn blocks(&self, width: usize, neumann_terms: usize) -> Tensor<3> {
        let skew = self.skew.val();
        if neumann_terms > 0 { series(skew_symmetric(skew, width), neumann_terms) } else { cayley(skew, width) }
    }

    /// `x R`.
    fn apply(&self, input: Tensor<3>, width: usize, neumann_terms: usize) -> Tensor<3> {
        let [batch, tokens, inputs] = input.dims();
        let rotation = self.blocks(width, neumann_terms);
        let [blocks, _, _] = rotation.dims();
        let rows = input.reshape([batch * tokens, blocks, width]).swap_dims(0, 1);
        rows.matmul(rotation).swap_dims(0, 1).reshape([batch, tokens, inputs])
    }
}

/// The first terms of `(I + Q)(I - Q)^-1`, the last of them halved: with three terms as with four, as in HF PEFT.
fn series(q: Tensor<3>, terms: usize) -> Tensor<3> {
    let [blocks, width, _] = q.dims();
    let mut sum = Tensor::<2>::eye(width, &q.device()).unsqueeze::<3>().expand([blocks, width, width]);
    match terms {
        1 => return sum,
        2 => return sum + q * 2.0,
        _ => {}
    }
    let mut power = q.clone();
    for _ in 1..terms.max(4) - 1 {
        sum = sum + power.clone() * 2.0;
        power = power.matmul(q.clone());
    }
    sum + power
}

/// Rotations in front of frozen weights.
#[derive(Module, Debug)]
pub struct Oft {
    sites: LinearSites<Rotation>,
    block: usize,
    neumann_terms: usize,
}

impl Method for OftConfig {
    type Adapter = Oft;

    /// [`Error::Setting`] for a block that does not divide the inputs, or [`Error::NoTarget`].
    fn init(&self, start: &Start<'_>) -> Result<Oft> {
        check_targets(&self.targets)?;
        let block = self.block;
        if self.neumann_terms > MOST_TERMS {
            let reason = format!("must be 0 to {MOST_TERMS}, found {}", self.neumann_terms);
            return Err(Error::Setting { setting: "neumann_terms", reason });
        }
        let sites = LinearSites::select(start.backbone, &self.targets, |site, [inputs, _]| {
            if block < 2 || block > inputs || !inputs.is_multiple_of(block) {
                let reason = format!("must be at least 2 and divide the {inputs} inputs of `{site}`, found {block}");
                return Err(Error::Setting { setting: "block", reason });
            }
            let skew = Tensor::zeros([inputs / block, block * (block - 1) / 2], start.device);
            Ok(Rotation { skew: Param::from_tensor(skew) })
        })?;
        Ok(Oft { sites, block, neumann_terms: self.neumann_terms })
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
        let block = self.block.max(2);
        selected_sites(backbone, &self.targets).map(|(_, [inputs, _])| inputs / block * (block * (block - 1) / 2)).sum()
    }
}

impl Learner for Oft {}

impl Sites for Oft {
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
        match self.sites.get(base.at) {
            Some(rotation) => base.forward(rotation.apply(input, self.block, self.neumann_terms)),
            None => base.forward(input),
        }
    }

    fn folds(&self) -> bool {
        true
    }

    fn fold(&self, at: LinearSite, layer: &Linear) -> Option<Linear> {
        let rotation = self.sites.get(at)?.blocks(self.block, self.neumann_terms).without_autodiff();
        let weight = layer.weight.val();
        let [inputs, outputs] = weight.dims();
        let weight = weight.reshape([inputs / self.block, self.block, outputs]);
        let weight = rotation.matmul(weight).reshape([inputs, outputs]);
        Some(Linear { weight: Param::from_tensor(weight), bias: layer.bias.clone() })
    }
}
