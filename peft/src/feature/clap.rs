//! CLAP: class prototypes that are held to the text features where these already work (Silva-Rodriguez et al., 2024,
//! arXiv 2312.12730).
//!
//! The linear probe `logits = s normalise(f) normalise(W)^T` with the loss `CE + mean_c lambda_c |w_c - t_c|^2`, where `t`
//! `[classes, dim]` are the text features at which `W` `[classes, dim]` starts, and `lambda_c` is the zero-shot
//! probability of the true class, averaged over the training images of class `c`. The multipliers stay as they are, as in
//! the authors' default. Trained: `W`. Count: `classes * dim`. Site: the text feature.

use burn::module::{Module, Param};
use burn::tensor::activation::softmax;
use burn::tensor::{Tensor, TensorData};
use inarch_core::backbone::{Backbone, Entry, Pass, Sites, Touched, Tower, normalise, values};
use serde::{Deserialize, Serialize};

use super::class_rows::class_rows;
use super::linear_probe::prototypes;
use crate::error::Result;
use crate::fixed::Fixed;
use crate::learner::{Learner, Loss, Step};
use crate::method::{Method, Start, Support};

/// Settings of CLAP. There are none beyond its training.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClapConfig {}

/// Prototypes with a pull towards where they started.
#[derive(Module, Debug)]
pub struct Clap {
    prototypes: Param<Tensor<2>>,
    /// `[classes, dim]`.
    origin: Fixed<2>,
    /// `[classes, 1]`.
    multipliers: Fixed<2>,
}

impl Method for ClapConfig {
    type Adapter = Clap;

    fn init(&self, start: &Start<'_>) -> Result<Clap> {
        let origin = prototypes(start);
        let classes = start.classes();
        let multipliers = start.support.map_or_else(|| vec![0.0; classes], |support| multipliers(start, support));
        let device = start.device.clone().without_autodiff();
        Ok(Clap {
            prototypes: Param::from_tensor(Tensor::from_data(origin.clone().into_data(), start.device)),
            origin: Fixed::new(origin),
            multipliers: Fixed::new(Tensor::from_data(TensorData::new(multipliers, [classes, 1]), &device)),
        })
    }

    fn black_box(&self) -> bool {
        true
    }

    fn trainable(&self, backbone: &Backbone, classes: usize, _images: usize) -> usize {
        classes * backbone.spec().dim
    }

    fn bound_to_classes(&self) -> bool {
        true
    }

    fn needs_support(&self) -> bool {
        true
    }
}

/// The mean zero-shot probability of the true class, for each class.
fn multipliers(start: &Start<'_>, support: &Support<'_>) -> Vec<f32> {
    let classes = start.classes();
    let text = normalise(start.class_features.clone());
    let logits = normalise(support.features.clone()).matmul(text.transpose()) * start.backbone.logit_scale();
    let probabilities = values(softmax(logits, 1));
    let (mut sums, mut counts) = (vec![0.0; classes], vec![0.0f32; classes]);
    for (row, label) in support.row_labels().into_iter().enumerate() {
        sums[label] += probabilities[row * classes + label];
        counts[label] += 1.0;
    }
    sums.iter().zip(&counts).map(|(sum, count)| sum / count.max(1.0)).collect()
}

impl Learner for Clap {
    fn loss(&self, step: &Step<'_>) -> Loss {
        let distance = (self.prototypes.val() - self.origin.val()).powf_scalar(2.0).sum_dim(1);
        Loss::plain(step.cross_entropy() + (distance * self.multipliers.val()).mean())
    }
}

impl Sites for Clap {
    fn entry(&self, tower: Tower) -> Entry {
        match tower {
            Tower::Image => Entry::Never,
            Tower::Text => Entry::Feature,
        }
    }

    fn touched(&self) -> Touched {
        Touched::NONE
    }

    fn feature(&self, tower: Tower, feature: Tensor<2>, pass: &Pass<'_>) -> Tensor<2> {
        match tower {
            Tower::Image => feature,
            Tower::Text => class_rows(self.prototypes.val(), feature.dims()[0], pass),
        }
    }
}
