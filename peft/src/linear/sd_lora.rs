//! SD-LoRA: an update of low rank whose directions of earlier experiences stand still, while the magnitudes of all are
//! trained (Wu et al., ICLR 2025, arXiv 2501.13198).
//!
//! `y = x W + b + sum_{k<t} m_k x A_k B_k + m_t (drop(x) A_t) B_t` in the last of `t` experiences, with factors before of
//! `|A_k| = |B_k| = 1` (Frobenius).
//!
//! - `x` `[batch, tokens, d_input]`, `A` `[d_input, rank]`, `B` `[rank, d_output]`; those before lie side by side,
//!   `[d_input, (t - 1) rank]` and `[(t - 1) rank, d_output]`.
//! - Trained: `A_t`, `B_t` and the magnitudes `[t]` of each target. Count: `rank * (d_input + d_output) + t` for each.
//! - Sites: linear, in both towers. Folds.
//! - The start is the identity: `B_t` is zero, and so are the magnitudes before.
//!
//! The strategy `sd-lora` of `inarch stream` keeps the directions and trains one experience at a time; alone this is a
//! `lora` with a trained scale. Departure: a magnitude belongs to one target; the authors' code shares it among all.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{Device, Tensor, TensorData};
use inarch_core::Seed;
use inarch_core::backbone::{Backbone, Entry, LinearBase, LinearChange, LinearSite, LowRank, Mode, Pass, Sites};
use inarch_core::backbone::{Touched, Tower};
use serde::{Deserialize, Serialize};

use super::factors::{Factors, check_dropout, check_finite, check_rank, check_rate, check_targets, dropped, low_rank};
use super::lora::{SitePattern, value_at};
use super::sites::{LinearSites, selected_sites};
use crate::error::{Error, Result};
use crate::fixed::Fixed;
use crate::learner::Learner;
use crate::method::{Method, Start, Words};

/// Settings of SD-LoRA; the defaults are the authors', for one experience.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SdLoraConfig {
    /// Experiences with directions of their own; the last is the one in training.
    pub experiences: usize,
    /// Where the magnitude of the last starts.
    pub magnitude: f64,
    /// Rank of the update of an experience.
    pub rank: usize,
    /// Probability with which an input value of the last update is dropped in training.
    pub dropout: f64,
    /// Which linear sites, by name; `*` stands for anything.
    pub targets: Vec<String>,
    /// Factor on the learning rate of `B`.
    pub b_rate: f64,
    /// Other ranks at some sites; the first pattern that fits counts.
    pub rank_pattern: Vec<SitePattern<usize>>,
}

impl Default for SdLoraConfig {
    fn default() -> Self {
        Self {
            experiences: 1,
            magnitude: 0.8,
            rank: 10,
            dropout: 0.0,
            targets: ["*.q_proj", "*.v_proj"].map(String::from).to_vec(),
            b_rate: 1.0,
            rank_pattern: Vec::new(),
        }
    }
}

impl SdLoraConfig {
    /// The rank of an experience's update at a site.
    pub fn rank_at(&self, site: LinearSite) -> usize {
        value_at(&self.rank_pattern, site).unwrap_or(self.rank)
    }
}

/// The update at one site.
#[derive(Module, Debug)]
struct Decoupled {
    a: Param<Tensor<2>>,
    b: Param<Tensor<2>>,
    /// `[experiences]`.
    magnitudes: Param<Tensor<1>>,
    past: Option<Directions>,
}

/// The directions before.
#[derive(Module, Debug)]
struct Directions {
    a: Fixed<2>,
    b: Fixed<2>,
}

impl Decoupled {
    fn new(config: &SdLoraConfig, dims: [usize; 2], rank: usize, seed: Seed, device: &Device) -> Self {
        let Factors { a, b } = Factors::kaiming(dims, rank, seed, device);
        let before = config.experiences - 1;
        let mut magnitudes = vec![0.0; before];
        magnitudes.push(config.magnitude as f32);
        let magnitudes = Tensor::from_data(TensorData::new(magnitudes, [config.experiences]), device);
        let past = (before > 0).then(|| Directions::drawn(before, dims, rank, seed, device));
        Self { a, b, magnitudes: Param::from_tensor(magnitudes), past }
    }

    /// The factors of all experiences before, with their magnitudes in `B`.
    fn before(&self) -> Option<[Tensor<2>; 2]> {
        let past = self.past.as_ref()?;
        let (magnitudes, b) = (self.magnitudes.val(), past.b.val());
        let before = magnitudes.dims()[0] - 1;
        let rows = b.dims()[0];
        let each = magnitudes.narrow(0, 0, before).reshape([before, 1]).repeat_dim(1, rows / before);
        Some([past.a.val(), b * each.reshape([rows, 1])])
    }

    /// The factors of the last experience, with its magnitude in `B`.
    fn last(&self) -> [Tensor<2>; 2] {
        let magnitudes = self.magnitudes.val();
        let last = magnitudes.dims()[0] - 1;
        [self.a.val(), self.b.val() * magnitudes.narrow(0, last, 1).reshape([1, 1])]
    }

    /// All factors as one pair.
    fn all(&self) -> [Tensor<2>; 2] {
        let [a, b] = self.last();
        match self.before() {
            Some([before_a, before_b]) => [Tensor::cat(vec![before_a, a], 1), Tensor::cat(vec![before_b, b], 0)],
            None => [a, b],
        }
    }
}

impl Directions {
    /// Of so many experiences, each of length 1.
    fn drawn(count: usize, [inputs, outputs]: [usize; 2], rank: usize, seed: Seed, device: &Device) -> Self {
        let plain = device.clone().without_autodiff();
        let (mut a, mut b) = (vec![0.0; inputs * count * rank], Vec::with_capacity(count * rank * outputs));
        for experience in 0..count {
            let seed = seed.split("past").split(experience);
            let down = unit(seed.split("a").normals(inputs * rank, 1.0));
            for (row, values) in down.chunks(rank).enumerate() {
                a[(row * count + experience) * rank..][..rank].copy_from_slice(values);
            }
            b.extend(unit(seed.split("b").normals(rank * outputs, 1.0)));
        }
        let tensor = |values, shape: [usize; 2]| Fixed::new(Tensor::from_data(TensorData::new(values, shape), &plain));
        Self { a: tensor(a, [inputs, count * rank]), b: tensor(b, [count * rank, outputs]) }
    }
}

fn unit(values: Vec<f32>) -> Vec<f32> {
    let length = values.iter().map(|value| value * value).sum::<f32>().sqrt().max(1e-12);
    values.into_iter().map(|value| value / length).collect()
}

/// Updates of low rank in decoupled form.
#[derive(Module, Debug)]
pub struct SdLora {
    sites: LinearSites<Decoupled>,
    dropout: f64,
    b_rate: f64,
}

impl Method for SdLoraConfig {
    type Adapter = SdLora;

    /// [`Error::Setting`] or [`Error::NoTarget`].
    fn init(&self, start: &Start<'_>) -> Result<SdLora> {
        check_dropout(self.dropout)?;
        check_targets(&self.targets)?;
        check_finite("magnitude", self.magnitude)?;
        check_rate("b_rate", self.b_rate)?;
        if self.experiences == 0 {
            let reason = "must be at least 1, found 0".into();
            return Err(Error::Setting { setting: "experiences", reason });
        }
        let sites = LinearSites::select(start.backbone, &self.targets, |site, dims| {
            let rank = self.rank_at(site);
            // As one update of the rank of all, which is what answers.
            check_rank(rank.saturating_mul(self.experiences), site, dims)?;
            Ok(Decoupled::new(self, dims, rank, start.seed.split(site), start.device))
        })?;
        Ok(SdLora { sites, dropout: self.dropout, b_rate: self.b_rate })
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
        let count = |(site, [inputs, outputs]): (LinearSite, [usize; 2])| {
            self.rank_at(site) * (inputs + outputs) + self.experiences
        };
        selected_sites(backbone, &self.targets).map(count).sum()
    }
}

impl Learner for SdLora {
    fn rate(&self, parameter: &str) -> f64 {
        if parameter.ends_with(".b") { self.b_rate } else { 1.0 }
    }
}

impl Sites for SdLora {
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

    fn linear_change(&self, at: LinearSite) -> LinearChange {
        self.sites.get(at).map_or(LinearChange::None, |update| {
            let [a, b] = update.all();
            LinearChange::LowRank(LowRank { a, b, scale: 1.0 })
        })
    }

    fn linear(&self, base: LinearBase<'_>, input: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        let Some(update) = self.sites.get(base.at) else { return base.forward(input) };
        let output = base.forward(input.clone());
        if pass.mode == Mode::Evaluate || self.dropout == 0.0 {
            let [a, b] = update.all();
            return output + low_rank(input, a, b, 1.0);
        }
        let [a, b] = update.last();
        let output = output + low_rank(dropped(base.at, input.clone(), self.dropout, pass), a, b, 1.0);
        match update.before() {
            Some([a, b]) => output + low_rank(input, a, b, 1.0),
            None => output,
        }
    }

    fn folds(&self) -> bool {
        true
    }

    fn fold(&self, at: LinearSite, layer: &Linear) -> Option<Linear> {
        let [a, b] = self.sites.get(at)?.all();
        let weight = layer.weight.val() + a.without_autodiff().matmul(b.without_autodiff());
        Some(Linear { weight: Param::from_tensor(weight), bias: layer.bias.clone() })
    }
}
