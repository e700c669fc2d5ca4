//! ProLIP: the image tower's projection is tuned, and held to the frozen one (Fahes et al., 2024, arXiv 2410.05270).
//!
//! `f = x (W + D)` with pooled tokens `x` `[images, width]`, the frozen projection `W` and its change `D` `[width, dim]`,
//! which starts at zero. The loss is `CE + lambda |D|^2` with `lambda = strength * (s / 100) / shots`: the authors' 1 / shots
//! belongs to a logit scale `s` of 100, to which the gradient of the cross entropy is proportional. Trained: `D`. Count:
//! `width * dim`. Site: the image tower's last linear layer, so that everything before it is computed once. Folds.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::Tensor;
use inarch_core::backbone::{Backbone, Entry, LinearBase, LinearSite, Pass, Sites, Touched, Tower};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::learner::{Learner, Loss, Step};
use crate::method::{Method, Start};

/// The one layer that is tuned.
const SITE: LinearSite = LinearSite::Head(Tower::Image);

/// Settings of ProLIP; the default is its authors'.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProLipConfig {
    /// The weight of the distance to the frozen projection is this over the number of training images of a class, at a
    /// logit scale of 100.
    pub strength: f64,
}

impl Default for ProLipConfig {
    fn default() -> Self {
        Self { strength: 1.0 }
    }
}

/// A change of the image projection.
#[derive(Module, Debug)]
pub struct ProLip {
    change: Param<Tensor<2>>,
    lambda: f64,
}

impl Method for ProLipConfig {
    type Adapter = ProLip;

    /// [`Error::Setting`] for a strength that is negative or no number.
    fn init(&self, start: &Start<'_>) -> Result<ProLip> {
        if !(self.strength.is_finite() && self.strength >= 0.0) {
            let reason = format!("must be a number of at least 0, found {}", self.strength);
            return Err(Error::Setting { setting: "strength", reason });
        }
        let shots = start.support.map_or(1.0, |support| support.images() as f64 / start.classes().max(1) as f64);
        let change = Tensor::zeros([start.backbone.width(Tower::Image), start.backbone.spec().dim], start.device);
        let lambda = self.strength * f64::from(start.backbone.logit_scale()) / 100.0 / shots.max(1.0);
        Ok(ProLip { change: Param::from_tensor(change), lambda })
    }

    fn trainable(&self, backbone: &Backbone, _classes: usize, _images: usize) -> usize {
        backbone.width(Tower::Image) * backbone.spec().dim
    }

    fn needs_support(&self) -> bool {
        true
    }
}

impl Learner for ProLip {
    fn loss(&self, step: &Step<'_>) -> Loss {
        Loss::plain(step.cross_entropy() + self.change.val().powf_scalar(2.0).sum() * self.lambda)
    }
}

impl Sites for ProLip {
    fn entry(&self, tower: Tower) -> Entry {
        match tower {
            Tower::Image => Entry::Head,
            Tower::Text => Entry::Never,
        }
    }

    fn touched(&self) -> Touched {
        Touched::LINEAR
    }

    fn linear(&self, base: LinearBase<'_>, input: Tensor<3>, _pass: &Pass<'_>) -> Tensor<3> {
        if base.at != SITE {
            return base.forward(input);
        }
        base.forward(input.clone()) + input.matmul(self.change.val().unsqueeze::<3>())
    }

    fn folds(&self) -> bool {
        true
    }

    fn fold(&self, at: LinearSite, layer: &Linear) -> Option<Linear> {
        (at == SITE).then(|| {
            let weight = Param::from_tensor(layer.weight.val() + self.change.val().without_autodiff());
            Linear { weight, bias: layer.bias.clone() }
        })
    }
}
