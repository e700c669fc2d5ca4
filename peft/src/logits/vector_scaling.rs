//! Vector scaling: a trained factor and offset on the score of each class (Guo et al., 2017, arXiv 1706.04599, section 4.2).
//!
//! `z'_c = a_c z_c + b_c` with factors `a` `[classes, 1]`, which start at 1, and offsets `b` `[classes, 1]`, which start at 0, so
//! that a fresh adapter is zero-shot. Trained: both. Count: `2 classes`. Site: logits. In a stack it belongs last, behind the
//! adapter that it calibrates. With values shared by the classes of an experience it is the bias correction of BiC (Wu et
//! al., 2019, arXiv 1905.13260).

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use inarch_core::backbone::{Backbone, Entry, Pass, Scores, Sites, Touched, Tower};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::feature::class_rows;
use crate::learner::Learner;
use crate::method::{Method, Start, Words};

/// Settings of vector scaling. There are none beyond its training.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VectorScalingConfig {}

/// A factor and an offset for each class.
#[derive(Module, Debug)]
pub struct VectorScaling {
    factors: Param<Tensor<2>>,
    offsets: Param<Tensor<2>>,
}

impl VectorScaling {
    /// Given factors and offsets, one of each for every class.
    pub fn of(factors: &[f32], offsets: &[f32], device: &Device) -> Self {
        let column = |values: &[f32]| {
            let data = TensorData::new(values.to_vec(), [values.len(), 1]);
            Param::from_tensor(Tensor::from_data(data, device))
        };
        Self { factors: column(factors), offsets: column(offsets) }
    }
}

impl Method for VectorScalingConfig {
    type Adapter = VectorScaling;

    fn init(&self, start: &Start<'_>) -> Result<VectorScaling> {
        let classes = start.classes();
        Ok(VectorScaling::of(&vec![1.0; classes], &vec![0.0; classes], start.device))
    }

    fn black_box(&self) -> bool {
        true
    }

    fn words(&self) -> Words {
        Words::Unneeded
    }

    fn crosses(&self) -> bool {
        true
    }

    fn trainable(&self, _backbone: &Backbone, classes: usize, _images: usize) -> usize {
        2 * classes
    }

    fn bound_to_classes(&self) -> bool {
        true
    }
}

impl Learner for VectorScaling {}

impl Sites for VectorScaling {
    fn entry(&self, _tower: Tower) -> Entry {
        Entry::Never
    }

    fn touched(&self) -> Touched {
        Touched::NONE
    }

    fn logits(&self, scores: Scores<'_>, pass: &Pass<'_>) -> Tensor<2> {
        let [_, classes] = scores.logits.dims();
        let row = |values: &Param<Tensor<2>>| class_rows(values.val(), classes, pass).transpose();
        scores.logits * row(&self.factors) + row(&self.offsets)
    }
}
