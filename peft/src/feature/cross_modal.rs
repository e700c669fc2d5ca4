//! Cross-modal adaptation: texts are training samples of a linear head, beside the images (Lin et al., 2023,
//! arXiv 2301.06267).
//!
//! `logits = s f W^T` with normalised features `f` of images or texts `[rows, dim]`, the logit scale `s`, and a head `W`
//! `[classes, dim]` that starts as the normalised text features, so that a fresh adapter is zero-shot. The loss is the
//! mean of the cross entropy over the images of the batch and that over the texts of all classes. Trained: `W`. Count:
//! `classes * dim`. Site: logits; no tower is touched.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use inarch_core::backbone::{Backbone, Entry, Pass, Scores, Sites, Touched, Tower, normalise};
use serde::{Deserialize, Serialize};

use super::class_rows::class_rows;
use crate::error::Result;
use crate::judgement::cross_entropy;
use crate::learner::{Learner, Loss, Step};
use crate::method::{Method, Prior, Start};

/// Settings of cross-modal adaptation. There are none beyond its training.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CrossModalConfig {}

/// A linear head over both modalities.
#[derive(Module, Debug)]
pub struct CrossModal {
    head: Param<Tensor<2>>,
}

impl Method for CrossModalConfig {
    type Adapter = CrossModal;

    fn init(&self, start: &Start<'_>) -> Result<CrossModal> {
        let head = normalise(start.class_features.clone());
        Ok(CrossModal { head: Param::from_tensor(Tensor::from_data(head.into_data(), start.device)) })
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

    fn prior(&self) -> Prior {
        Prior::Run
    }
}

impl Learner for CrossModal {
    fn loss(&self, step: &Step<'_>) -> Loss {
        let images = step.cross_entropy();
        let Some(texts) = step.prior else { return Loss::plain(images) };
        let logits = normalise(texts.clone()).matmul(self.head.val().transpose()) * step.scale;
        let labels: Vec<usize> = (0..texts.dims()[0]).collect();
        Loss::plain((images + cross_entropy(logits, &labels)) / 2.0)
    }
}

impl Sites for CrossModal {
    fn entry(&self, _tower: Tower) -> Entry {
        Entry::Never
    }

    fn touched(&self) -> Touched {
        Touched::NONE
    }

    fn logits(&self, scores: Scores<'_>, pass: &Pass<'_>) -> Tensor<2> {
        let [_, count] = scores.logits.dims();
        let head = class_rows(self.head.val(), count, pass);
        scores.image.clone().matmul(head.transpose()) * scores.scale
    }
}
