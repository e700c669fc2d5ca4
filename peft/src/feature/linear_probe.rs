//! Linear probe with zero-shot initialisation: one trained prototype for each class (ZS-LP in Silva-Rodriguez et al.,
//! 2024, arXiv 2312.12730).
//!
//! `logits = s * normalise(f) normalise(W)^T` with image features `f` `[images, dim]` and prototypes `W`
//! `[classes, dim]`, which start as the class text features, so that the probe starts as zero-shot. Trained: `W`. Count:
//! `classes * dim`. Site: the text feature; neither tower is touched, so every feature is computed once.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use inarch_core::backbone::{Backbone, Entry, Pass, Sites, Touched, Tower, normalise};
use serde::{Deserialize, Serialize};

use super::class_rows::class_rows;
use crate::error::Result;
use crate::learner::Learner;
use crate::method::{Method, Start, Words};

/// Euclidean length of a fresh prototype, about that of CLIP's text features. Only directions count in the scores, but
/// the length decides how far a step turns them.
const LENGTH: f32 = 10.0;

/// Settings of the linear probe. There are none beyond its training.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LinearProbeConfig {}

/// One prototype for each class.
#[derive(Module, Debug)]
pub struct LinearProbe {
    prototypes: Param<Tensor<2>>,
}

impl LinearProbe {
    /// Given prototypes `[classes, dim]`, row-major.
    pub fn of(rows: Vec<f32>, dim: usize, device: &Device) -> Self {
        let classes = rows.len() / dim.max(1);
        Self { prototypes: Param::from_tensor(Tensor::from_data(TensorData::new(rows, [classes, dim]), device)) }
    }
}

impl Method for LinearProbeConfig {
    type Adapter = LinearProbe;

    /// Prototypes in the direction of the class text features.
    fn init(&self, start: &Start<'_>) -> Result<LinearProbe> {
        let values = prototypes(start).into_data();
        Ok(LinearProbe { prototypes: Param::from_tensor(Tensor::from_data(values, start.device)) })
    }

    fn black_box(&self) -> bool {
        true
    }

    fn words(&self) -> Words {
        Words::Replaced
    }

    fn trainable(&self, backbone: &Backbone, classes: usize, _images: usize) -> usize {
        classes * backbone.spec().dim
    }

    fn bound_to_classes(&self) -> bool {
        true
    }
}

/// One prototype `[classes, dim]` in the direction of each text feature.
pub(super) fn prototypes(start: &Start<'_>) -> Tensor<2> {
    normalise(start.class_features.clone()) * LENGTH
}

impl Learner for LinearProbe {}

impl Sites for LinearProbe {
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
