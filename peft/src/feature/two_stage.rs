//! 2SFS: first the normalisations of both towers, then a linear head that starts from the tuned text features (Farina et
//! al., CVPR 2025, arXiv 2503.11609).
//!
//! `w_c = t_c + r_c` with the tuned text feature `t_c`, normalised, and a residual `r_c` `[dim]` that is zero until the second
//! stage; there the normalisations stand still, so that training `r` trains the head. A fresh adapter is zero-shot. Count:
//! `2 * width` for each normalisation and `classes * dim`. Sites: norms of both towers, feature of the text tower.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use inarch_core::backbone::{Backbone, Entry, NormBase, Pass, Sites, Touched, Tower, normalise};
use serde::{Deserialize, Serialize};

use super::class_rows::class_rows;
use crate::error::{Error, Result};
use crate::learner::Learner;
use crate::method::{Method, Start};
use crate::norm::{NormChange, NormSites, selected_norms};

/// Settings of 2SFS; the default is the paper's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TwoStageConfig {
    /// Share of the run that trains the normalisations, above 0 and below 1.
    pub first_stage: f64,
}

impl Default for TwoStageConfig {
    fn default() -> Self {
        Self { first_stage: 0.6 }
    }
}

/// Every normalisation.
fn all() -> Vec<String> {
    vec!["*".into()]
}

/// Tuned normalisations and the residuals of a head.
#[derive(Module, Debug)]
pub struct TwoStage {
    norms: NormSites<NormChange>,
    residuals: Param<Tensor<2>>,
    first_stage: f64,
    stage: usize,
}

impl Method for TwoStageConfig {
    type Adapter = TwoStage;

    /// [`Error::Setting`] for a share outside 0 to 1.
    fn init(&self, start: &Start<'_>) -> Result<TwoStage> {
        if !(self.first_stage > 0.0 && self.first_stage < 1.0) {
            let reason = format!("must be above 0 and below 1, found {}", self.first_stage);
            return Err(Error::Setting { setting: "first_stage", reason });
        }
        let norms = NormSites::select(start.backbone, &all(), |width| NormChange::zeros(width, start.device))?;
        let residuals = Tensor::zeros([start.classes(), start.backbone.spec().dim], start.device);
        Ok(TwoStage { norms, residuals: Param::from_tensor(residuals), first_stage: self.first_stage, stage: 0 })
    }

    fn trainable(&self, backbone: &Backbone, classes: usize, _images: usize) -> usize {
        let norms: usize = selected_norms(backbone, &all()).iter().map(|width| 2 * width).sum();
        norms + classes * backbone.spec().dim
    }

    fn bound_to_classes(&self) -> bool {
        true
    }
}

impl Learner for TwoStage {
    /// The residuals stand still in the first stage, all else in the second.
    fn rate(&self, parameter: &str) -> f64 {
        if (parameter == "residuals") == (self.stage > 0) { 1.0 } else { 0.0 }
    }

    fn stages(&self) -> Vec<f64> {
        vec![self.first_stage]
    }

    fn enter_stage(&mut self, stage: usize) {
        self.stage = stage;
    }
}

impl Sites for TwoStage {
    fn entry(&self, tower: Tower) -> Entry {
        self.norms.entry(tower)
    }

    fn touched(&self) -> Touched {
        Touched::NORM
    }

    fn norm(&self, base: NormBase<'_>, input: Tensor<3>, _pass: &Pass<'_>) -> Tensor<3> {
        self.norms.forward(&base, input)
    }

    fn feature(&self, tower: Tower, feature: Tensor<2>, pass: &Pass<'_>) -> Tensor<2> {
        match tower {
            Tower::Image => feature,
            Tower::Text => {
                let [count, _] = feature.dims();
                normalise(feature) + class_rows(self.residuals.val(), count, pass)
            }
        }
    }
}
