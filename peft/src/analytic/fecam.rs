//! FeCAM: Mahalanobis distances to class means under shrunk class covariances (Goswami et al., NeurIPS 2023,
//! arXiv 2309.14062).
//!
//! `logits_c = -(u - m_c)^T P_c (u - m_c) / dim` with normalised image features `u`, class means `m` and precisions `P`, the
//! inverse of the class covariance after shrinkage `S + g1 a I + g2 b (1 - I)` (`a`, `b`: mean of the diagonal and of the other
//! entries of `S`) and scaling to a unit diagonal. Tukey's transform of the authors' ReLU features is left out: CLIP's features
//! have both signs. A class without samples has `m = 0` and `P = p I`, with `p` so great that it comes last for every image, where it
//! would come first as soon as an image is a little apart from the other means. Nothing is trained; stored are `m` `[classes, dim]`
//! and `P` `[classes, dim, dim]`. Site: logits.

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use inarch_core::backbone::{Backbone, Entry, Pass, Scores, Sites, Tower};
use nalgebra::DMatrix;
use serde::{Deserialize, Serialize};

use super::Analytic;
use super::cholesky::Cholesky;
use super::simple_cil::raw_settings;
use super::statistics::{ClassSums, Second, Statistics};
use super::support::{class_names, statistics_of};
use crate::adapter::Adapter;
use crate::error::{Error, Result};
use crate::feature::class_rows;
use crate::fixed::Fixed;
use crate::learner::Learner;
use crate::method::{Method, Start, Words};

/// Settings of FeCAM; the defaults are its authors' for many samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FecamConfig {
    /// Shrinkage of the diagonal; 100 for few samples.
    pub diagonal: f64,
    /// Shrinkage of the other entries; 100 for few samples.
    pub others: f64,
}

impl Default for FecamConfig {
    fn default() -> Self {
        Self { diagonal: 1.0, others: 1.0 }
    }
}

/// Class means and precisions.
#[derive(Module, Debug)]
pub struct Fecam {
    means: Fixed<2>,
    precisions: Fixed<3>,
}

impl FecamConfig {
    fn check(&self) -> Result<()> {
        for (setting, value) in [("diagonal", self.diagonal), ("others", self.others)] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::Setting { setting, reason: format!("must be at least 0, found {value}") });
            }
        }
        Ok(())
    }

    fn head(&self, statistics: &Statistics, classes: &[String], start: &Start<'_>) -> Result<Fecam> {
        self.check()?;
        let whole = statistics.whole();
        let dim = start.backbone.spec().dim;
        let solved = |class: &String| {
            let sums = whole.classes.get(class)?;
            Some((sums, self.precision(sums, sums.gram.as_ref()?, dim)))
        };
        // A feature of length 1 and a mean of 1 at most are 2 apart at most, and no eigenvalue is beyond the trace.
        let mut farthest = 1.0f64;
        let (mut means, mut precisions): (Vec<f32>, Vec<f32>) = (Vec::new(), Vec::new());
        let mut without = Vec::new();
        for (at, class) in classes.iter().enumerate() {
            match solved(class) {
                Some((sums, precision)) => {
                    farthest = farthest.max(4.0 * precision.trace());
                    means.extend(sums.sum.iter().skip(1).map(|value| (value / sums.count as f64) as f32));
                    precisions.extend(precision.iter().map(|value| *value as f32));
                }
                None => {
                    without.push(at);
                    means.extend(std::iter::repeat_n(0.0, dim));
                    precisions.extend(std::iter::repeat_n(0.0, dim * dim));
                }
            }
        }
        for at in without {
            (0..dim).for_each(|own| precisions[(at * dim + own) * dim + own] = (2.0 * farthest) as f32);
        }
        let device = start.device.clone().without_autodiff();
        let means = Tensor::<2>::from_data(TensorData::new(means, [classes.len(), dim]), &device);
        let precisions = Tensor::<3>::from_data(TensorData::new(precisions, [classes.len(), dim, dim]), &device);
        Ok(Fecam { means: Fixed::new(means), precisions: Fixed::new(precisions) })
    }

    fn precision(&self, sums: &ClassSums, gram: &DMatrix<f64>, dim: usize) -> DMatrix<f64> {
        let count = sums.count as f64;
        let mean = sums.sum.rows(1, dim) / count;
        let mut covariance = gram.view((1, 1), (dim, dim)) / count - &mean * mean.transpose();
        let diagonal = (covariance.trace() / dim as f64).max(1e-9);
        let others = (covariance.sum() - covariance.trace()) / ((dim * dim - dim).max(1)) as f64;
        covariance.add_scalar_mut(self.others * others);
        (0..dim).for_each(|at| covariance[(at, at)] += self.diagonal * diagonal - self.others * others);
        let spread: Vec<f64> = (0..dim).map(|at| covariance[(at, at)].max(1e-12).sqrt()).collect();
        let scaled =
            DMatrix::from_fn(dim, dim, |row, column| covariance[(row, column)] / (spread[row] * spread[column]));
        // One sample has no covariance, and rounding may leave one slightly indefinite: then all directions count alike.
        match Cholesky::new(scaled) {
            Some(factor) => factor.solve(DMatrix::identity(dim, dim)),
            None => DMatrix::identity(dim, dim),
        }
    }
}

impl Analytic for FecamConfig {
    fn statistics(&self, dim: usize) -> Result<Statistics> {
        self.check()?;
        Ok(Statistics::new(raw_settings(dim, Second::ClassGrams)))
    }

    fn solve(&self, statistics: &Statistics, classes: &[String], start: &Start<'_>) -> Result<Adapter> {
        Ok(Adapter::Fecam(self.head(statistics, classes, start)?))
    }
}

impl Method for FecamConfig {
    type Adapter = Fecam;

    /// [`Error::Setting`] for a negative shrinkage.
    fn init(&self, start: &Start<'_>) -> Result<Fecam> {
        self.head(&statistics_of(self, start)?, &class_names(start), start)
    }

    fn black_box(&self) -> bool {
        true
    }

    fn words(&self) -> Words {
        Words::Replaced
    }

    fn trainable(&self, _backbone: &Backbone, _classes: usize, _images: usize) -> usize {
        0
    }

    fn starts_as_zero_shot(&self) -> bool {
        false
    }

    fn bound_to_classes(&self) -> bool {
        true
    }

    fn needs_support(&self) -> bool {
        true
    }

    fn analytic(&self) -> Option<&dyn Analytic> {
        Some(self)
    }
}

impl Learner for Fecam {}

impl Sites for Fecam {
    fn entry(&self, _tower: Tower) -> Entry {
        Entry::Never
    }

    fn logits(&self, scores: Scores<'_>, pass: &Pass<'_>) -> Tensor<2> {
        let [_, dim] = scores.image.dims();
        let [known, _] = self.means.val().dims();
        let (means, precisions) = (self.means.val(), self.precisions.val());
        let distances = (0..known)
            .map(|class| {
                let apart = scores.image.clone() - means.clone().narrow(0, class, 1);
                let precision = precisions.clone().narrow(0, class, 1).reshape([dim, dim]);
                (apart.clone().matmul(precision) * apart).sum_dim(1)
            })
            .collect();
        let own = Tensor::cat(distances, 1) / -(dim as f64);
        let [_, columns] = scores.logits.dims();
        class_rows(own.transpose(), columns, pass).transpose()
    }
}
