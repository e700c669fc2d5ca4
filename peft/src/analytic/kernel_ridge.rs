//! Dual RAIL: kernel ridge regression over stored features (Xu et al., NeurIPS 2024, arXiv 2406.18868).
//!
//! `A = (K + lambda I)^-1 Y` with `K_ij = exp(-gamma |u_i - u_j|^2)` over all samples' normalised features `u` and one-hot
//! classes `Y`; `logits = sharpness * k(u) A`. Classes without a row are answered as in primal RAIL. Nothing is trained;
//! stored are the features `[samples, dim]` and `A` `[samples, classes]`: it grows with the samples, so it is for few of them.
//! Site: logits.

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use inarch_core::backbone::{Backbone, Entry, Pass, Scores, Sites, Tower};
use nalgebra::DMatrix;
use serde::{Deserialize, Serialize};

use super::Analytic;
use super::cholesky::Cholesky;
use super::ridge::answer;
use super::simple_cil::raw_settings;
use super::statistics::{Second, Statistics};
use super::support::{class_names, statistics_of};
use crate::adapter::Adapter;
use crate::error::{Error, Result};
use crate::fixed::Fixed;
use crate::learner::Learner;
use crate::method::{Method, Start};

/// Samples beyond which the system would take gigabytes.
const MOST: usize = 12_000;
/// Factor between scores, about 0 to 1, and logits.
const SHARPNESS: f64 = 10.0;

/// Settings of dual RAIL.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RailDualConfig {
    /// Weight of the ridge.
    pub lambda: f64,
    /// Sharpness of the kernel; the authors' 0.1 is nearly linear for features of length 1.
    pub gamma: f64,
}

impl Default for RailDualConfig {
    fn default() -> Self {
        Self { lambda: 1e-3, gamma: 0.1 }
    }
}

/// A cache of features with solved votes.
#[derive(Module, Debug)]
pub struct KernelRidge {
    /// `[samples, dim]`.
    keys: Fixed<2>,
    /// `[samples, classes]`.
    votes: Fixed<2>,
    gamma: f64,
}

impl RailDualConfig {
    fn check(&self) -> Result<()> {
        for (setting, value) in [("lambda", self.lambda), ("gamma", self.gamma)] {
            if !(value.is_finite() && value > 0.0) {
                return Err(Error::Setting { setting, reason: format!("must be above 0, found {value}") });
            }
        }
        Ok(())
    }

    fn head(&self, statistics: &Statistics, classes: &[String], start: &Start<'_>) -> Result<KernelRidge> {
        self.check()?;
        let dim = start.backbone.spec().dim;
        let count = statistics.samples.len();
        if count > MOST {
            let reason = format!("{count} samples; the dual form solves for at most {MOST}: use `rail`");
            return Err(inarch_core::Error::invalid("rail-dual", reason).into());
        }
        let rows = || statistics.samples.values().flat_map(|(_, row)| row.iter().map(|value| f64::from(*value)));
        let keys = DMatrix::from_row_iterator(count, dim, rows());
        let mut kernel = &keys * keys.transpose();
        // For vectors of length 1, |u - v|^2 = 2 - 2 u v.
        kernel.apply(|cosine| *cosine = (-self.gamma * (2.0 - 2.0 * *cosine)).exp());
        (0..count).for_each(|at| kernel[(at, at)] += self.lambda);
        let mut targets = DMatrix::zeros(count, classes.len());
        for (row, (class, _)) in statistics.samples.values().enumerate() {
            if let Some(column) = classes.iter().position(|known| known == class) {
                targets[(row, column)] = 1.0;
            }
        }
        let votes = match Cholesky::new(kernel) {
            Some(factor) => factor.solve(targets),
            None => {
                let reason = "the ridge is too small for these samples; give a larger `lambda`";
                return Err(inarch_core::Error::invalid("rail-dual", reason).into());
            }
        };
        // As many as the file holds, which is not more than was read.
        let saved = start.saved_shape("keys.fixed").and_then(|shape| shape.first()).copied();
        Ok(KernelRidge {
            keys: fixed(&keys, saved, dim, start),
            votes: fixed(&votes, saved, classes.len(), start),
            gamma: self.gamma,
        })
    }
}

/// A matrix as a tensor; zeros of the saved number of rows when an artifact is read.
fn fixed(matrix: &DMatrix<f64>, saved: Option<usize>, columns: usize, start: &Start<'_>) -> Fixed<2> {
    let device = start.device.clone().without_autodiff();
    Fixed::new(match saved {
        Some(rows) => Tensor::zeros([rows, columns], &device),
        None => {
            let data: Vec<f32> = matrix.transpose().iter().map(|value| *value as f32).collect();
            Tensor::from_data(TensorData::new(data, [matrix.nrows(), columns]), &device)
        }
    })
}

impl Analytic for RailDualConfig {
    fn statistics(&self, dim: usize) -> Result<Statistics> {
        self.check()?;
        Ok(Statistics::new(raw_settings(dim, Second::Samples)))
    }

    fn solve(&self, statistics: &Statistics, classes: &[String], start: &Start<'_>) -> Result<Adapter> {
        Ok(Adapter::RailDual(self.head(statistics, classes, start)?))
    }
}

impl Method for RailDualConfig {
    type Adapter = KernelRidge;

    /// [`Error::Setting`] for a lambda or gamma that is not above 0.
    fn init(&self, start: &Start<'_>) -> Result<KernelRidge> {
        self.head(&statistics_of(self, start)?, &class_names(start), start)
    }

    fn black_box(&self) -> bool {
        true
    }

    fn trainable(&self, _backbone: &Backbone, _classes: usize, _images: usize) -> usize {
        0
    }

    fn starts_as_zero_shot(&self) -> bool {
        false
    }

    fn open_to_classes(&self) -> bool {
        true
    }

    fn needs_support(&self) -> bool {
        true
    }

    fn analytic(&self) -> Option<&dyn Analytic> {
        Some(self)
    }
}

impl Learner for KernelRidge {}

impl Sites for KernelRidge {
    fn entry(&self, _tower: Tower) -> Entry {
        Entry::Never
    }

    fn logits(&self, scores: Scores<'_>, pass: &Pass<'_>) -> Tensor<2> {
        let keys = self.keys.val();
        let lengths = keys.clone().powf_scalar(2.0).sum_dim(1).transpose();
        let distances = lengths + 1.0 - scores.image.clone().matmul(keys.transpose()) * 2.0;
        let kernel = (distances * -self.gamma).exp();
        answer(kernel.matmul(self.votes.val()) * SHARPNESS, scores, pass)
    }
}
