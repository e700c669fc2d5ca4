//! LoRA: low-rank adaptation of linear layers (Hu et al., 2021, arXiv 2106.09685) with the recipe of CLIP-LoRA
//! (Zanella and Ben Ayed, 2024, arXiv 2405.18541).
//!
//! `y = x W + b + s (drop(x) A) B`, computed in activation space: no dense gradient, no second copy of `W`.
//!
//! - `x` `[batch, tokens, d_input]`, `A` `[d_input, rank]`, `B` `[rank, d_output]` (the transposes of PyTorch's).
//! - Trained: `A` and `B`. Count: `rank * (d_input + d_output)` for each target.
//! - Sites: linear, in both towers. Folds.
//! - `s = alpha / sqrt(rank)` with `rank_stabilised` (CLIP-LoRA, rsLoRA: Kalajdzievski, 2023, arXiv 2312.03732), else
//!   `alpha / rank`.
//! - The start is the identity in every form of [`LoraInit`]: `B` is zero, or the first product `s A_0 B_0`, which is then
//!   stored, is taken off.
//! - `b_rate` multiplies the learning rate of `B` (LoRA+: Hayou et al., 2024, arXiv 2402.12354; about 16 there).

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{Tensor, TensorData};
use inarch_core::backbone::{
    Backbone, Entry, LinearBase, LinearChange, LinearSite, LowRank, Mode, Pass, Sites, Touched, Tower,
};
use nalgebra::DMatrix;
use serde::{Deserialize, Serialize};

use super::eva::Directions;
use super::factors::{Factors, check_dropout, check_finite, check_rank, check_rate, check_targets, dropped, low_rank};
use super::sites::{LinearSites, matches, selected_sites};
use crate::error::{Error, Result};
use crate::fixed::Fixed;
use crate::learner::Learner;
use crate::matrix::{Svd, to_host};
use crate::method::{Method, Start, Words};

/// How the factors start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoraInit {
    /// `A` uniform within `1 / sqrt(d_input)`, `B` zero.
    #[default]
    Kaiming,
    /// `A` normal with deviation `1 / rank`, `B` zero.
    Gaussian,
    /// The greatest singular directions of the frozen weight (PiSSA: Meng et al., 2024, arXiv 2404.02948).
    Pissa,
    /// The leading part of the frozen weight's QR decomposition (OLoRA: Büyükakyüz, 2024, arXiv 2406.01775).
    Olora,
    /// `A` from the greatest directions of the layer's inputs on the training images, `B` zero (EVA: Paischer et al.,
    /// 2024, arXiv 2410.07170; without its redistribution of ranks). Sites of the text tower, which the images do not
    /// reach, start as `kaiming`.
    Eva,
}

/// Another value at the sites that a pattern selects.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SitePattern<T> {
    /// Which sites; `*` stands for anything.
    pub sites: String,
    /// The value there.
    pub value: T,
}

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
    /// How the factors start.
    pub init: LoraInit,
    /// Factor on the learning rate of `B`.
    pub b_rate: f64,
    /// Other ranks at some sites; the first pattern that fits counts.
    pub rank_pattern: Vec<SitePattern<usize>>,
    /// Other alphas at some sites; the first pattern that fits counts.
    pub alpha_pattern: Vec<SitePattern<f64>>,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            rank: 2,
            alpha: 1.0,
            rank_stabilised: true,
            dropout: 0.25,
            targets: ["*.q_proj", "*.k_proj", "*.v_proj"].map(String::from).to_vec(),
            init: LoraInit::Kaiming,
            b_rate: 1.0,
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
        }
    }
}

impl LoraConfig {
    /// The factor of the update where no pattern says otherwise.
    pub fn scale(&self) -> f64 {
        self.scale_of(self.alpha, self.rank)
    }

    /// The rank at a site.
    pub fn rank_at(&self, site: LinearSite) -> usize {
        value_at(&self.rank_pattern, site).unwrap_or(self.rank)
    }

    /// The numerator of the scale at a site.
    pub fn alpha_at(&self, site: LinearSite) -> f64 {
        value_at(&self.alpha_pattern, site).unwrap_or(self.alpha)
    }

    /// The factor of the update at a site.
    pub fn scale_at(&self, site: LinearSite) -> f64 {
        self.scale_of(self.alpha_at(site), self.rank_at(site))
    }

    fn scale_of(&self, alpha: f64, rank: usize) -> f64 {
        let rank = rank as f64;
        alpha / if self.rank_stabilised { rank.sqrt() } else { rank }
    }
}

/// The value of the first pattern that fits a site.
pub(super) fn value_at<T: Copy>(patterns: &[SitePattern<T>], site: LinearSite) -> Option<T> {
    let name = site.to_string();
    patterns.iter().find(|pattern| matches(&pattern.sites, &name)).map(|pattern| pattern.value)
}

/// The update at one site.
#[derive(Module, Debug)]
struct Update {
    a: Param<Tensor<2>>,
    b: Param<Tensor<2>>,
    /// The product at the start, where it is not zero.
    origin: Option<Origin>,
    scale: f64,
}

#[derive(Module, Debug)]
struct Origin {
    a: Fixed<2>,
    b: Fixed<2>,
}

impl Update {
    fn new(Factors { a, b }: Factors, scale: f64) -> Self {
        Self { a, b, origin: None, scale }
    }

    fn apply(&self, input: Tensor<3>) -> Tensor<3> {
        let update = low_rank(input.clone(), self.a.val(), self.b.val(), self.scale);
        match &self.origin {
            Some(origin) => update - low_rank(input, origin.a.val(), origin.b.val(), self.scale),
            None => update,
        }
    }

    /// The same as one pair of factors; with an origin, of twice the rank.
    fn factors(&self) -> LowRank {
        let (a, b) = (self.a.val(), self.b.val());
        let (a, b) = match &self.origin {
            Some(origin) => (Tensor::cat(vec![a, origin.a.val()], 1), Tensor::cat(vec![b, origin.b.val().neg()], 0)),
            None => (a, b),
        };
        LowRank { a, b, scale: self.scale }
    }

    /// What it adds to the weight, `[d_input, d_output]`.
    fn change(&self) -> Tensor<2> {
        let product = self.a.val().without_autodiff().matmul(self.b.val().without_autodiff());
        let product = match &self.origin {
            Some(origin) => product - origin.a.val().matmul(origin.b.val()),
            None => product,
        };
        product * self.scale
    }
}

/// A low-rank update of the linear layers of both towers.
#[derive(Module, Debug)]
pub struct Lora {
    sites: LinearSites<Update>,
    dropout: f64,
    b_rate: f64,
}

impl Method for LoraConfig {
    type Adapter = Lora;

    /// [`Error::Setting`] or [`Error::NoTarget`].
    fn init(&self, start: &Start<'_>) -> Result<Lora> {
        check_dropout(self.dropout)?;
        check_targets(&self.targets)?;
        check_finite("alpha", self.alpha)?;
        check_rate("b_rate", self.b_rate)?;
        for pattern in &self.alpha_pattern {
            check_finite("alpha_pattern", pattern.value)?;
        }
        let named = self.rank_pattern.iter().map(|pattern| &pattern.sites);
        for pattern in named.chain(self.alpha_pattern.iter().map(|pattern| &pattern.sites)) {
            if !selected_sites(start.backbone, &self.targets).any(|(site, _)| matches(pattern, &site.to_string())) {
                let reason = format!("`{pattern}` fits none of the sites that `targets` selects");
                return Err(Error::Setting { setting: "rank_pattern and alpha_pattern", reason });
            }
        }
        let directions = match (self.init, start.support) {
            (LoraInit::Eva, Some(support)) => Some(Directions::of(start.backbone, support, &self.targets)?),
            _ => None,
        };
        let sites = LinearSites::select(start.backbone, &self.targets, |site, dims| {
            check_rank(self.rank_at(site), site, dims)?;
            Ok(self.update(start, site, dims, directions.as_ref()))
        })?;
        Ok(Lora { sites, dropout: self.dropout, b_rate: self.b_rate })
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
        let count = |(site, [inputs, outputs]): (LinearSite, [usize; 2])| self.rank_at(site) * (inputs + outputs);
        selected_sites(backbone, &self.targets).map(count).sum()
    }

    fn needs_support(&self) -> bool {
        self.init == LoraInit::Eva
    }
}

impl LoraConfig {
    fn update(&self, start: &Start<'_>, site: LinearSite, dims: [usize; 2], eva: Option<&Directions>) -> Update {
        let Start { backbone, device, seed, .. } = *start;
        let [inputs, outputs] = dims;
        let (rank, scale, seed) = (self.rank_at(site), self.scale_at(site), seed.split(site));
        let kaiming = || Update::new(Factors::kaiming(dims, rank, seed, device), scale);
        let from_a = |a: Vec<f32>| Update::new(Factors::from_a(a, dims, rank, device), scale);
        let weight = || backbone.linear(site).map(|layer| to_host(layer.weight.val())).unwrap_or_default();
        match self.init {
            LoraInit::Kaiming => kaiming(),
            LoraInit::Gaussian => from_a(seed.normals(inputs * rank, 1.0 / rank as f32)),
            LoraInit::Eva => match eva.and_then(|directions| directions.leading(site, rank)) {
                Some(a) => from_a(row_major(&a)),
                None => kaiming(),
            },
            LoraInit::Pissa => {
                let svd = Svd::leading(&weight(), rank);
                let root = |at: usize| svd.s.get(at).map_or(0.0, |s| (s / scale.abs()).sqrt());
                // A rank beyond the number of directions is filled with zeros.
                let part = |matrix: &DMatrix<f64>, row: usize, at: usize| {
                    if at < svd.s.len() { matrix[(row, at)] * root(at) } else { 0.0 }
                };
                let a = DMatrix::from_fn(inputs, rank, |row, at| part(&svd.u, row, at));
                let b = DMatrix::from_fn(rank, outputs, |at, column| part(&svd.v, column, at) * scale.signum());
                self.with_origin(a, b, scale, start)
            }
            LoraInit::Olora => {
                let qr = weight().transpose().qr();
                let (q, r) = (qr.q(), qr.r());
                let a = DMatrix::from_fn(inputs, rank, |row, at| if at < r.nrows() { r[(at, row)] } else { 0.0 });
                let b =
                    DMatrix::from_fn(rank, outputs, |at, column| if at < q.ncols() { q[(column, at)] } else { 0.0 });
                self.with_origin(a, b, scale, start)
            }
        }
    }

    fn with_origin(&self, a: DMatrix<f64>, b: DMatrix<f64>, scale: f64, start: &Start<'_>) -> Update {
        let plain = start.device.clone().without_autodiff();
        let tensor = |matrix: &DMatrix<f64>, device: &burn::tensor::Device| {
            let shape = [matrix.nrows(), matrix.ncols()];
            Tensor::<2>::from_data(TensorData::new(row_major(matrix), shape), device)
        };
        Update {
            origin: Some(Origin { a: Fixed::new(tensor(&a, &plain)), b: Fixed::new(tensor(&b, &plain)) }),
            a: Param::from_tensor(tensor(&a, start.device)),
            b: Param::from_tensor(tensor(&b, start.device)),
            scale,
        }
    }
}

fn row_major(matrix: &DMatrix<f64>) -> Vec<f32> {
    matrix.transpose().iter().map(|value| *value as f32).collect()
}

impl Learner for Lora {
    fn rate(&self, parameter: &str) -> f64 {
        if parameter.ends_with(".b") { self.b_rate } else { 1.0 }
    }
}

impl Sites for Lora {
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
        self.sites.get(at).map_or(LinearChange::None, |update| LinearChange::LowRank(update.factors()))
    }

    fn linear(&self, base: LinearBase<'_>, input: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        let Some(update) = self.sites.get(base.at) else { return base.forward(input) };
        base.forward(input.clone()) + update.apply(dropped(base.at, input, self.dropout, pass))
    }

    fn folds(&self) -> bool {
        true
    }

    fn fold(&self, at: LinearSite, layer: &Linear) -> Option<Linear> {
        let weight = Param::from_tensor(layer.weight.val() + self.sites.get(at)?.change());
        Some(Linear { weight, bias: layer.bias.clone() })
    }
}
