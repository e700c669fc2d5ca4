//! Layer-norm tuning: only gains and offsets of the normalisations are trained (Basu et al., 2023, arXiv 2304.01295; Qi et
//! al., 2022, arXiv 2211.08682).
//!
//! `y = x^ (g + dg) + (b + db)` with the normalised stream `x^` `[batch, tokens, width]`, frozen gain `g` and offset `b`
//! `[width]`, and their changes `dg`, `db` `[width]`, which start at zero. Count: `2 * width` for each normalisation. Sites:
//! norms, in both towers. Folds.

use burn::module::{Module, Param};
use burn::nn::LayerNorm;
use burn::tensor::{Device, Tensor};
use inarch_core::backbone::{Backbone, Entry, Mode, NormBase, NormSite, Pass, Sites, Touched, Tower};
use serde::{Deserialize, Serialize};

use super::sites::{NormSites, selected_norms};
use crate::error::{Error, Result};
use crate::learner::Learner;
use crate::method::{Method, Start, Words};

/// Settings of layer-norm tuning; the default is every normalisation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LnTuningConfig {
    /// Which normalisations, by name; `*` stands for anything.
    pub targets: Vec<String>,
}

impl Default for LnTuningConfig {
    fn default() -> Self {
        Self { targets: vec!["*".into()] }
    }
}

/// A change of one normalisation.
#[derive(Module, Debug)]
pub(crate) struct NormChange {
    gain: Param<Tensor<1>>,
    offset: Param<Tensor<1>>,
}

impl NormChange {
    pub(crate) fn zeros(width: usize, device: &Device) -> Self {
        let zeros = || Param::from_tensor(Tensor::zeros([width], device));
        Self { gain: zeros(), offset: zeros() }
    }

    /// Runs the frozen normalisation and adds what the change makes of it.
    pub(crate) fn forward(&self, base: &NormBase<'_>, input: Tensor<3>) -> Tensor<3> {
        let mut change = base.layer.clone();
        change.gamma = Param::from_tensor(self.gain.val());
        change.beta = Some(Param::from_tensor(self.offset.val()));
        base.forward(input.clone()) + change.forward(input)
    }

    pub(crate) fn fold(&self, layer: &LayerNorm) -> LayerNorm {
        let mut folded = layer.clone();
        folded.gamma = Param::from_tensor(layer.gamma.val() + self.gain.val().without_autodiff());
        let offset = self.offset.val().without_autodiff();
        folded.beta = Some(Param::from_tensor(match &layer.beta {
            Some(beta) => beta.val() + offset,
            None => offset,
        }));
        folded
    }
}

impl NormSites<NormChange> {
    /// Runs a normalisation with its change, if it has one.
    pub(crate) fn forward(&self, base: &NormBase<'_>, input: Tensor<3>) -> Tensor<3> {
        match self.get(base.at) {
            Some(change) => change.forward(base, input),
            None => base.forward(input),
        }
    }
}

/// Changed normalisations.
#[derive(Module, Debug)]
pub struct LnTuning {
    norms: NormSites<NormChange>,
}

impl Method for LnTuningConfig {
    type Adapter = LnTuning;

    /// [`Error::Setting`] or [`Error::NoTarget`].
    fn init(&self, start: &Start<'_>) -> Result<LnTuning> {
        if self.targets.is_empty() {
            let reason = "name at least one normalisation, e.g. `*.norm1`".into();
            return Err(Error::Setting { setting: "targets", reason });
        }
        let norms = NormSites::select(start.backbone, &self.targets, |width| NormChange::zeros(width, start.device))?;
        Ok(LnTuning { norms })
    }

    fn words(&self) -> Words {
        Words::Unneeded
    }

    fn crosses(&self) -> bool {
        true
    }

    fn either_tower(&self) -> bool {
        true
    }

    fn trainable(&self, backbone: &Backbone, _classes: usize, _images: usize) -> usize {
        selected_norms(backbone, &self.targets).iter().map(|width| 2 * width).sum()
    }
}

impl Learner for LnTuning {}

impl Sites for LnTuning {
    fn entry(&self, tower: Tower) -> Entry {
        self.norms.entry(tower)
    }

    fn shares_beginnings(&self, _mode: Mode) -> bool {
        true
    }

    fn touched(&self) -> Touched {
        Touched::NORM
    }

    fn norm(&self, base: NormBase<'_>, input: Tensor<3>, _pass: &Pass<'_>) -> Tensor<3> {
        self.norms.forward(&base, input)
    }

    fn folds(&self) -> bool {
        true
    }

    fn fold_norm(&self, at: NormSite, layer: &LayerNorm) -> Option<LayerNorm> {
        self.norms.get(at).map(|change| change.fold(layer))
    }
}
