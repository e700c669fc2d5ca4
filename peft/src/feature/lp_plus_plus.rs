//! LP++: a linear probe blended with the text features by one trained factor for each class, solved by full-batch
//! gradient steps of computed sizes (Huang et al., 2024, arXiv 2404.02285).
//!
//! `logits = f (W + diag(alpha) T)^T` with normalised image features `f` `[images, dim]`, prototypes `W` and normalised
//! text features `T` `[classes, dim]`, factors `alpha` `[classes]`. `W` starts at the class means, `alpha` at 250 times the
//! mean similarity between images and their own class's text. The solver runs in the initialisation: 300 steps with
//! momentum 0.9 and the step `4 n / lambda_max(f^T f)` for `W`; every tenth step `alpha` moves by `n / (4 max_c sum f t_c)^2`.
//! All constants are the authors'; none is tuned. Neither the logit scale nor a logit offset plays a part. Count: `classes * (dim + 1)`.
//! Site: logits; features alone suffice.

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData};
use inarch_core::backbone::{Backbone, Entry, Pass, Scores, Sites, Touched, Tower, normalise};
use nalgebra::{DMatrix, DVector};
use serde::{Deserialize, Serialize};

use super::class_rows::class_rows;
use crate::error::{Error, Result};
use crate::learner::Learner;
use crate::matrix::{Svd, to_host};
use crate::method::{Method, Start, Support};

/// Factor between mean similarity and first blend.
const BLEND: f64 = 250.0;
/// Momentum of the prototypes.
const MOMENTUM: f64 = 0.9;
/// Steps between two moves of the factors.
const FACTOR_STEPS: usize = 10;

/// Settings of LP++; the defaults are its authors'.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LpPlusPlusConfig {
    /// Steps of the solver.
    pub steps: usize,
}

impl Default for LpPlusPlusConfig {
    fn default() -> Self {
        Self { steps: 300 }
    }
}

/// Prototypes and blending factors.
#[derive(Module, Debug)]
pub struct LpPlusPlus {
    prototypes: Param<Tensor<2>>,
    /// `[classes, 1]`.
    alpha: Param<Tensor<2>>,
}

impl Method for LpPlusPlusConfig {
    type Adapter = LpPlusPlus;

    /// [`Error::Setting`] for more steps than anyone waits for.
    fn init(&self, start: &Start<'_>) -> Result<LpPlusPlus> {
        if self.steps > 100_000 {
            let reason = format!("must be at most 100000, found {}", self.steps);
            return Err(Error::Setting { setting: "steps", reason });
        }
        let (classes, dim) = (start.classes(), start.backbone.spec().dim);
        let (prototypes, alpha) = match start.support {
            Some(support) => solve(start.class_features, support, self.steps),
            None => (DMatrix::zeros(dim, classes), DVector::zeros(classes)),
        };
        // Stored by columns: one class after the other.
        let rows = prototypes.iter().map(|value| *value as f32).collect::<Vec<_>>();
        let alpha = alpha.iter().map(|value| *value as f32).collect::<Vec<_>>();
        let tensor = |data: Vec<f32>, shape: [usize; 2]| Tensor::from_data(TensorData::new(data, shape), start.device);
        Ok(LpPlusPlus {
            prototypes: Param::from_tensor(tensor(rows, [classes, dim])),
            alpha: Param::from_tensor(tensor(alpha, [classes, 1])),
        })
    }

    fn black_box(&self) -> bool {
        true
    }

    fn trainable(&self, backbone: &Backbone, classes: usize, _images: usize) -> usize {
        classes * (backbone.spec().dim + 1)
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
}

/// Prototypes `[dim, classes]` and factors `[classes]`.
fn solve(text: &Tensor<2>, support: &Support<'_>, steps: usize) -> (DMatrix<f64>, DVector<f64>) {
    let features = to_host(normalise(support.features.clone()));
    let text = to_host(normalise(text.clone())).transpose();
    let labels = support.row_labels();
    let (rows, classes) = (features.nrows(), text.ncols());
    let mut targets = DMatrix::<f64>::zeros(rows, classes);
    labels.iter().enumerate().for_each(|(row, label)| targets[(row, *label)] = 1.0);
    let counts: Vec<f64> = (0..classes).map(|class| targets.column(class).sum().max(1.0)).collect();

    let similarity = &features * &text;
    let mut prototypes = features.transpose() * &targets;
    for (class, count) in counts.iter().enumerate() {
        prototypes.column_mut(class).unscale_mut(*count);
    }
    let own = (0..classes).map(|class| similarity.column(class).dot(&targets.column(class)) / counts[class]);
    let mut alpha = DVector::from_element(classes, BLEND * own.sum::<f64>() / classes as f64);

    let greatest = Svd::leading(&(features.transpose() * &features), 1).s.first().copied().unwrap_or(1.0);
    let rate = 4.0 * rows as f64 / greatest.max(1e-12);
    let most = (0..classes).map(|class| similarity.column(class).norm_squared()).fold(1e-12, f64::max);
    let alpha_rate = rows as f64 / (4.0 * most);

    let mut velocity = DMatrix::zeros(prototypes.nrows(), classes);
    for step in 1..=steps {
        let blended = DMatrix::from_fn(rows, classes, |row, class| similarity[(row, class)] * alpha[class]);
        let error = (softmax(&features * &prototypes + blended) - &targets) / rows as f64;
        velocity = velocity * MOMENTUM + features.transpose() * &error;
        if step.is_multiple_of(FACTOR_STEPS) {
            for class in 0..classes {
                alpha[class] -= alpha_rate * error.column(class).dot(&similarity.column(class));
            }
        }
        prototypes -= &velocity * rate;
    }
    (prototypes, alpha)
}

fn softmax(mut logits: DMatrix<f64>) -> DMatrix<f64> {
    for mut row in logits.row_iter_mut() {
        let greatest = row.max();
        row.apply(|value| *value = (*value - greatest).exp());
        let sum = row.sum();
        row.unscale_mut(sum);
    }
    logits
}

impl Learner for LpPlusPlus {}

impl Sites for LpPlusPlus {
    fn entry(&self, _tower: Tower) -> Entry {
        Entry::Never
    }

    fn touched(&self) -> Touched {
        Touched::NONE
    }

    fn logits(&self, scores: Scores<'_>, pass: &Pass<'_>) -> Tensor<2> {
        let [_, count] = scores.logits.dims();
        let prototypes = class_rows(self.prototypes.val(), count, pass);
        let alpha = class_rows(self.alpha.val(), count, pass).transpose();
        scores.image.clone().matmul(prototypes.transpose()) + (scores.logits - scores.offset) / scores.scale * alpha
    }
}
