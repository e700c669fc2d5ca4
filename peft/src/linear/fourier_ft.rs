//! FourierFT: the update of a weight is the real part of the inverse Fourier transform of a few trained coefficients (Gao
//! et al., 2024, arXiv 2405.03003).
//!
//! `D[p, q] = scale / (d_input d_output) sum_k c_k cos(2 pi (p u_k / d_input + q v_k / d_output))`, `W' = W + D`, with trained
//! coefficients `c` `[n]` at places `(u_k, v_k)` that are drawn once from `place_seed`, all different. `c` starts at zero, so
//! that the start is the identity (the paper also draws it). Count: `n` for each target, at most the number of entries.
//! Sites: linear, in both towers. Folds.
//!
//! By the addition theorem `D = Cu diag(c) Cv^T - Su diag(c) Sv^T` with tables of cosines and sines `[d, n]`, which are
//! made once.

use std::collections::BTreeSet;

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{Device, Tensor, TensorData};
use inarch_core::Seed;
use inarch_core::backbone::{Backbone, Entry, LinearBase, LinearSite, Mode, Pass, Sites, Touched, Tower};
use rand::RngExt as _;
use serde::{Deserialize, Serialize};

use super::factors::{check_finite, check_targets, dense};
use super::sites::{LinearSites, selected_sites};
use crate::error::{Error, Result};
use crate::learner::Learner;
use crate::method::{Method, Start, Words};

/// Settings of FourierFT; the defaults are the paper's number of coefficients and HF PEFT's scale.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FourierFtConfig {
    /// Number of trained coefficients.
    pub coefficients: usize,
    /// Factor of the update.
    pub scale: f64,
    /// Decides the places of the coefficients.
    pub place_seed: u64,
    /// Which linear sites, by name; `*` stands for anything.
    pub targets: Vec<String>,
}

impl Default for FourierFtConfig {
    fn default() -> Self {
        let targets = ["*.q_proj", "*.k_proj", "*.v_proj"].map(String::from).to_vec();
        Self { coefficients: 1000, scale: 150.0, place_seed: 777, targets }
    }
}

impl FourierFtConfig {
    /// Where in the spectrum of a layer `[d_input, d_output]` the coefficients are, in their order: `u * d_output + v`.
    pub fn places(&self, site: LinearSite, [inputs, outputs]: [usize; 2]) -> BTreeSet<usize> {
        let mut rng = Seed::new(self.place_seed).split(site).rng();
        let mut places = BTreeSet::new();
        while places.len() < self.coefficients.min(inputs * outputs) {
            places.insert(rng.random_range(0..inputs * outputs));
        }
        places
    }
}

#[derive(Module, Debug)]
struct Spectrum {
    coefficients: Param<Tensor<1>>,
    cos_in: Tensor<2>,
    sin_in: Tensor<2>,
    cos_out: Tensor<2>,
    sin_out: Tensor<2>,
}

impl Spectrum {
    fn new(places: &BTreeSet<usize>, [inputs, outputs]: [usize; 2], device: &Device) -> Self {
        let count = places.len();
        let plain = device.clone().without_autodiff();
        let table = |width: usize, frequency: &dyn Fn(usize) -> usize, wave: fn(f64) -> f64| {
            let data: Vec<f32> = (0..width)
                .flat_map(|at| places.iter().map(move |place| (at, *place)))
                // Whole turns are taken out in integers, where they cost no precision.
                .map(|(at, place)| {
                    wave(std::f64::consts::TAU * ((at * frequency(place)) % width) as f64 / width as f64) as f32
                })
                .collect();
            Tensor::<2>::from_data(TensorData::new(data, [width, count]), &plain)
        };
        let (u, v) = (|place: usize| place / outputs, |place: usize| place % outputs);
        Self {
            coefficients: Param::from_tensor(Tensor::zeros([count], device)),
            cos_in: table(inputs, &u, f64::cos),
            sin_in: table(inputs, &u, f64::sin),
            cos_out: table(outputs, &v, f64::cos),
            sin_out: table(outputs, &v, f64::sin),
        }
    }

    /// `[d_input, d_output]`.
    fn change(&self, scale: f64) -> Tensor<2> {
        let ([inputs, _], [outputs, _]) = (self.cos_in.dims(), self.cos_out.dims());
        let coefficients = (self.coefficients.val() * (scale / (inputs * outputs) as f64)).unsqueeze::<2>();
        (self.cos_in.clone() * coefficients.clone()).matmul(self.cos_out.clone().transpose())
            - (self.sin_in.clone() * coefficients).matmul(self.sin_out.clone().transpose())
    }
}

/// Updates by few Fourier coefficients.
#[derive(Module, Debug)]
pub struct FourierFt {
    sites: LinearSites<Spectrum>,
    scale: f64,
}

impl Method for FourierFtConfig {
    type Adapter = FourierFt;

    /// [`Error::Setting`] for more coefficients than half the entries of a weight, or [`Error::NoTarget`].
    fn init(&self, start: &Start<'_>) -> Result<FourierFt> {
        check_targets(&self.targets)?;
        check_finite("scale", self.scale)?;
        let sites = LinearSites::select(start.backbone, &self.targets, |site, dims| {
            let limit = dims[0] * dims[1] / 2;
            if self.coefficients == 0 || self.coefficients > limit {
                let reason = format!("must be 1 to {limit} at `{site}`, found {}", self.coefficients);
                return Err(Error::Setting { setting: "coefficients", reason });
            }
            Ok(Spectrum::new(&self.places(site, dims), dims, start.device))
        })?;
        Ok(FourierFt { sites, scale: self.scale })
    }

    fn words(&self) -> Words {
        Words::Unneeded
    }

    fn crosses(&self) -> bool {
        true
    }

    fn trainable(&self, backbone: &Backbone, _classes: usize, _images: usize) -> usize {
        selected_sites(backbone, &self.targets).count() * self.coefficients
    }
}

impl Learner for FourierFt {}

impl Sites for FourierFt {
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
        let Some(spectrum) = self.sites.get(base.at) else { return base.forward(input) };
        base.forward(input.clone()) + dense(input, spectrum.change(self.scale))
    }

    fn folds(&self) -> bool {
        true
    }

    fn fold(&self, at: LinearSite, layer: &Linear) -> Option<Linear> {
        let change = self.sites.get(at)?.change(self.scale).without_autodiff();
        Some(Linear { weight: Param::from_tensor(layer.weight.val() + change), bias: layer.bias.clone() })
    }
}
