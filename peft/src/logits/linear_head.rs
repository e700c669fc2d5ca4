//! A dense head on image features, as classifiers of `transformers` have it (`ViTForImageClassification`).
//!
//! `logits = W f + b` with image features `f` `[images, dim]`, not normalised. Trained: `W` `[classes, dim]` and `b` `[classes]`, from zero.
//! Count: `classes (dim + 1)`. Site: the scores, whose place it takes; words play no part, so it works on an image tower alone.

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData};
use inarch_core::backbone::{Backbone, ClassHead, Entry, Pass, Scores, Sites, Touched, Tower, indices};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::learner::Learner;
use crate::method::{Method, Start, Words};

/// Settings of the dense head. There are none beyond its training.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LinearHeadConfig {}

/// One row of weights and one offset for each class.
#[derive(Module, Debug)]
pub struct LinearHead {
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
}

impl LinearHead {
    /// The head that came with a checkpoint.
    pub(crate) fn of(head: &ClassHead, backbone: &Backbone) -> Self {
        let device = backbone.device();
        let (classes, dim) = (head.classes.len(), backbone.spec().dim);
        let bias = head.bias.as_ref().map_or_else(|| vec![0.0; classes], |bias| bias.data.clone());
        let weight = TensorData::new(head.weight.data.clone(), [classes, dim]);
        Self {
            weight: Param::from_tensor(Tensor::from_data(weight, device)),
            bias: Param::from_tensor(Tensor::from_data(TensorData::new(bias, [classes]), device)),
        }
    }
}

impl Method for LinearHeadConfig {
    type Adapter = LinearHead;

    fn init(&self, start: &Start<'_>) -> Result<LinearHead> {
        let (classes, dim) = (start.classes(), start.backbone.spec().dim);
        Ok(LinearHead {
            weight: Param::from_tensor(Tensor::zeros([classes, dim], start.device)),
            bias: Param::from_tensor(Tensor::zeros([classes], start.device)),
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

    fn words(&self) -> Words {
        Words::Replaced
    }
}

impl Learner for LinearHead {}

impl Sites for LinearHead {
    fn entry(&self, _tower: Tower) -> Entry {
        Entry::Never
    }

    fn touched(&self) -> Touched {
        Touched::NONE
    }

    fn logits(&self, scores: Scores<'_>, pass: &Pass<'_>) -> Tensor<2> {
        let (mut weight, mut bias) = (self.weight.val(), self.bias.val());
        if let Some(classes) = pass.classes {
            let rows = indices(classes.iter().copied(), &weight.device());
            (weight, bias) = (weight.select(0, rows.clone()), bias.select(0, rows));
        }
        scores.feature.clone().matmul(weight.transpose()) + bias.unsqueeze::<2>()
    }
}
