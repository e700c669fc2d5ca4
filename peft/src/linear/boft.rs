//! BOFT: the inputs of a layer are rotated by a product of sparse rotations (Liu et al., ICLR 2024, arXiv 2311.06243).
//!
//! `y = (x R W) * s + b` with `R = B_m .. B_1`, `W` `[d_input, d_output]` and `s` `[d_output]`. Each factor `B_i` is
//! block-diagonal in an order of its own, as in a fast Fourier transform: of the inputs in halves of blocks, `B_i` rotates
//! half `j` together with half `j + 2^(i - 1)`. So `m` factors of small blocks reach as far as one of blocks `2^(m - 1)` times
//! as wide, with fewer values. Blocks are rotations by the Cayley transform of a skew-symmetric matrix, whose upper triangle is
//! trained and starts at zero; `s` starts at one, so that the start is the identity. Count:
//! `m * d_input / block * block (block - 1) / 2 + d_output` for each target. Sites: linear, in both towers. Folds:
//! `R W` with its columns times `s`.
//!
//! `s` and the order of factors are those of HF PEFT. Its multiplicative dropout is left out.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{Device, Tensor};
use inarch_core::backbone::{Backbone, Entry, LinearBase, LinearSite, Mode, Pass, Sites, Touched, Tower};
use serde::{Deserialize, Serialize};

use super::factors::check_targets;
use super::rotation::cayley;
use super::sites::{LinearSites, selected_sites};
use crate::error::{Error, Result};
use crate::learner::Learner;
use crate::method::{Method, Start, Words};

/// More factors than any width has use for.
const MOST_FACTORS: usize = 16;

/// Settings of BOFT; two factors of blocks of eight are the authors' usual choice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BoftConfig {
    /// Width of a block: even, unless there is one factor.
    pub block: usize,
    /// Number of factors `m`; `block * 2^(m - 1)` must divide the inputs of every target.
    pub factors: usize,
    /// Which linear sites, by name; `*` stands for anything.
    pub targets: Vec<String>,
}

impl Default for BoftConfig {
    fn default() -> Self {
        Self { block: 8, factors: 2, targets: ["*.q_proj", "*.k_proj", "*.v_proj"].map(String::from).to_vec() }
    }
}

impl BoftConfig {
    fn check(&self) -> Result<()> {
        if !(1..=MOST_FACTORS).contains(&self.factors) {
            let reason = format!("must be 1 to {MOST_FACTORS}, found {}", self.factors);
            return Err(Error::Setting { setting: "factors", reason });
        }
        if self.block < 2 || self.factors > 1 && !self.block.is_multiple_of(2) {
            let reason = format!("must be at least 2, and even when there are several factors, found {}", self.block);
            return Err(Error::Setting { setting: "block", reason });
        }
        Ok(())
    }

    /// Values of the rotations in front of a layer with so many inputs.
    fn angles(&self, inputs: usize) -> [usize; 2] {
        let block = self.block.max(2);
        [self.factors * (inputs / block), block * (block - 1) / 2]
    }
}

#[derive(Module, Debug)]
struct Butterfly {
    /// The upper triangle of each block, row by row, factor after factor: `[m * blocks, block (block - 1) / 2]`.
    skew: Param<Tensor<2>>,
    /// The scale of each output: `[d_output]`.
    scale: Param<Tensor<1>>,
}

impl Butterfly {
    /// `x R` for rows `[rows, d_input]`.
    fn rotate(&self, rows: Tensor<2>, block: usize) -> Tensor<2> {
        let [count, inputs] = rows.dims();
        let rotations = cayley(self.skew.val(), block);
        let blocks = inputs / block;
        let factors = rotations.dims()[0] / blocks;
        (0..factors).rev().fold(rows, |rows, factor| {
            let rotation = rotations.clone().narrow(0, factor * blocks, blocks);
            // Halves that are `distance` apart come to stand side by side. The first factor has them so, which is why odd blocks
            // may have one.
            let distance = 1 << factor;
            let together = match factor {
                0 => rows.reshape([count, blocks, block]),
                _ => rows
                    .reshape([count, blocks / distance, 2, distance, block / 2])
                    .swap_dims(2, 3)
                    .reshape([count, blocks, block]),
            };
            let turned = together.swap_dims(0, 1).matmul(rotation).swap_dims(0, 1);
            match factor {
                0 => turned.reshape([count, inputs]),
                _ => turned
                    .reshape([count, blocks / distance, distance, 2, block / 2])
                    .swap_dims(2, 3)
                    .reshape([count, inputs]),
            }
        })
    }
}

/// Products of rotations in front of frozen weights, and scales behind them.
#[derive(Module, Debug)]
pub struct Boft {
    sites: LinearSites<Butterfly>,
    block: usize,
}

impl Method for BoftConfig {
    type Adapter = Boft;

    /// [`Error::Setting`] for blocks or factors that do not fit the inputs, or [`Error::NoTarget`].
    fn init(&self, start: &Start<'_>) -> Result<Boft> {
        check_targets(&self.targets)?;
        self.check()?;
        let reach = self.block << (self.factors - 1);
        let sites = LinearSites::select(start.backbone, &self.targets, |site, [inputs, outputs]| {
            if !inputs.is_multiple_of(reach) {
                let reason = format!(
                    "times 2^(factors - 1), which is {reach}, must divide the {inputs} inputs of `{site}`: take smaller blocks or \
                     fewer factors"
                );
                return Err(Error::Setting { setting: "block", reason });
            }
            let skew = Tensor::zeros(self.angles(inputs), start.device);
            let scale = Tensor::ones([outputs], start.device);
            Ok(Butterfly { skew: Param::from_tensor(skew), scale: Param::from_tensor(scale) })
        })?;
        Ok(Boft { sites, block: self.block })
    }

    fn words(&self) -> Words {
        Words::Unneeded
    }

    fn either_tower(&self) -> bool {
        true
    }

    fn crosses(&self) -> bool {
        true
    }

    fn trainable(&self, backbone: &Backbone, _classes: usize, _images: usize) -> usize {
        let count = |inputs| self.angles(inputs).iter().product::<usize>();
        selected_sites(backbone, &self.targets).map(|(_, [inputs, outputs])| count(inputs) + outputs).sum()
    }
}

impl Learner for Boft {}

impl Sites for Boft {
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
        let Some(butterfly) = self.sites.get(base.at) else { return base.forward(input) };
        let [batch, tokens, inputs] = input.dims();
        let rows = butterfly.rotate(input.reshape([batch * tokens, inputs]), self.block);
        let output = base.forward(rows.reshape([batch, tokens, inputs]));
        let scale = butterfly.scale.val().unsqueeze::<3>();
        match &base.layer.bias {
            // The offset is not scaled: `(y - b) s + b`.
            Some(bias) => {
                let bias = bias.val().unsqueeze::<3>();
                output * scale.clone() + bias.clone() - bias * scale
            }
            None => output * scale,
        }
    }

    fn folds(&self) -> bool {
        true
    }

    fn fold(&self, at: LinearSite, layer: &Linear) -> Option<Linear> {
        let butterfly = self.sites.get(at)?;
        let weight = layer.weight.val();
        let device: Device = weight.device();
        let rotation = butterfly.rotate(Tensor::eye(weight.dims()[0], &device), self.block).without_autodiff();
        let scale = butterfly.scale.val().without_autodiff().unsqueeze::<2>();
        Some(Linear { weight: Param::from_tensor(rotation.matmul(weight) * scale), bias: layer.bias.clone() })
    }
}
