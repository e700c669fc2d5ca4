//! TaskRes: a trained residual on each class's text feature (Yu et al., 2023, arXiv 2211.10277).
//!
//! `w_c = t_c / |t_c| + alpha x_c` with text features `t` `[classes, dim]` and residuals `x` `[classes, dim]`, which start
//! at zero, so that a fresh adapter is zero-shot. Trained: `x`. Count: `classes * dim`. Site: the text feature.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use inarch_core::backbone::{Backbone, Entry, Pass, Sites, Touched, Tower, normalise};
use serde::{Deserialize, Serialize};

use super::class_rows::class_rows;
use crate::error::{Error, Result};
use crate::learner::Learner;
use crate::method::{Method, Start};

/// Settings of TaskRes; the default is its authors'.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TaskResConfig {
    /// Weight of the residual.
    pub alpha: f64,
}

impl Default for TaskResConfig {
    fn default() -> Self {
        Self { alpha: 0.5 }
    }
}

/// One residual for each class.
#[derive(Module, Debug)]
pub struct TaskRes {
    residuals: Param<Tensor<2>>,
    alpha: f64,
}

impl Method for TaskResConfig {
    type Adapter = TaskRes;

    /// [`Error::Setting`] for an alpha that is no number or zero.
    fn init(&self, start: &Start<'_>) -> Result<TaskRes> {
        if !self.alpha.is_finite() || self.alpha == 0.0 {
            let reason = format!("must be a number other than 0, found {}", self.alpha);
            return Err(Error::Setting { setting: "alpha", reason });
        }
        let residuals = Tensor::zeros([start.classes(), start.backbone.spec().dim], start.device);
        Ok(TaskRes { residuals: Param::from_tensor(residuals), alpha: self.alpha })
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
}

impl Learner for TaskRes {}

impl Sites for TaskRes {
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
            Tower::Text => {
                let [count, _] = feature.dims();
                normalise(feature) + class_rows(self.residuals.val(), count, pass) * self.alpha
            }
        }
    }
}
