//! SSF: every linear layer and normalisation is followed by a trained scale and shift (Lian et al., 2022, arXiv
//! 2210.08823).
//!
//! `y' = y * scale + shift` with the layer's output `y` `[batch, tokens, d_output]` and `scale`, `shift` `[d_output]`, which
//! start at one and zero (the paper draws them around these with deviation 0.02; exact values make a fresh adapter the
//! identity). Count: `2 * d_output` for each layer. Sites: linear and norm, in both towers. Folds into the layers.

use burn::module::{Module, Param};
use burn::nn::{LayerNorm, Linear};
use burn::tensor::{Device, Tensor};
use inarch_core::backbone::{Backbone, Entry, LinearBase, LinearSite, Mode, NormBase, NormSite, Pass, Sites, Tower};
use serde::{Deserialize, Serialize};

use super::sites::{NormSites, selected_norms};
use crate::error::{Error, Result};
use crate::learner::Learner;
use crate::linear::{LinearSites, selected_sites};
use crate::method::{Method, Start, Words};

/// Settings of SSF; the default is every layer of every block and every normalisation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SsfConfig {
    /// Which linear layers, by name; `*` stands for anything.
    pub linear: Vec<String>,
    /// Which normalisations, by name.
    pub norms: Vec<String>,
}

impl Default for SsfConfig {
    fn default() -> Self {
        Self { linear: vec!["*.blocks.*".into()], norms: vec!["*".into()] }
    }
}

#[derive(Module, Debug)]
struct ScaleShift {
    scale: Param<Tensor<1>>,
    shift: Param<Tensor<1>>,
}

impl ScaleShift {
    fn identity(width: usize, device: &Device) -> Self {
        Self {
            scale: Param::from_tensor(Tensor::ones([width], device)),
            shift: Param::from_tensor(Tensor::zeros([width], device)),
        }
    }

    fn apply(&self, output: Tensor<3>) -> Tensor<3> {
        output * self.scale.val().unsqueeze::<3>() + self.shift.val().unsqueeze::<3>()
    }

    fn plain(&self) -> (Tensor<1>, Tensor<1>) {
        (self.scale.val().without_autodiff(), self.shift.val().without_autodiff())
    }

    /// `bias * scale + shift`.
    fn offset(&self, bias: Option<&Param<Tensor<1>>>) -> Param<Tensor<1>> {
        let (scale, shift) = self.plain();
        Param::from_tensor(match bias {
            Some(bias) => bias.val() * scale + shift,
            None => shift,
        })
    }
}

/// Scales and shifts behind frozen layers.
#[derive(Module, Debug)]
pub struct Ssf {
    linear: LinearSites<ScaleShift>,
    norms: NormSites<ScaleShift>,
}

impl Method for SsfConfig {
    type Adapter = Ssf;

    /// [`Error::Setting`] or [`Error::NoTarget`].
    fn init(&self, start: &Start<'_>) -> Result<Ssf> {
        let Start { backbone, device, .. } = *start;
        if self.linear.is_empty() && self.norms.is_empty() {
            let reason = "name linear layers here, normalisations in `norms`, or both".into();
            return Err(Error::Setting { setting: "linear", reason });
        }
        Ok(Ssf {
            linear: LinearSites::select(backbone, &self.linear, |_, [_, outputs]| {
                Ok(ScaleShift::identity(outputs, device))
            })?,
            norms: NormSites::select(backbone, &self.norms, |width| ScaleShift::identity(width, device))?,
        })
    }

    fn words(&self) -> Words {
        Words::Unneeded
    }

    fn crosses(&self) -> bool {
        true
    }

    fn trainable(&self, backbone: &Backbone, _classes: usize, _images: usize) -> usize {
        let linear: usize = selected_sites(backbone, &self.linear).map(|(_, [_, outputs])| 2 * outputs).sum();
        linear + selected_norms(backbone, &self.norms).iter().map(|width| 2 * width).sum::<usize>()
    }
}

impl Learner for Ssf {}

impl Sites for Ssf {
    fn entry(&self, tower: Tower) -> Entry {
        self.linear.entry(tower).min(self.norms.entry(tower))
    }

    fn shares_beginnings(&self, _mode: Mode) -> bool {
        true
    }

    fn linear(&self, base: LinearBase<'_>, input: Tensor<3>, _pass: &Pass<'_>) -> Tensor<3> {
        let output = base.forward(input);
        match self.linear.get(base.at) {
            Some(change) => change.apply(output),
            None => output,
        }
    }

    fn norm(&self, base: NormBase<'_>, input: Tensor<3>, _pass: &Pass<'_>) -> Tensor<3> {
        let output = base.forward(input);
        match self.norms.get(base.at) {
            Some(change) => change.apply(output),
            None => output,
        }
    }

    fn folds(&self) -> bool {
        true
    }

    fn fold(&self, at: LinearSite, layer: &Linear) -> Option<Linear> {
        let change = self.linear.get(at)?;
        let (scale, _) = change.plain();
        let weight = Param::from_tensor(layer.weight.val() * scale.unsqueeze::<2>());
        Some(Linear { weight, bias: Some(change.offset(layer.bias.as_ref())) })
    }

    fn fold_norm(&self, at: NormSite, layer: &LayerNorm) -> Option<LayerNorm> {
        let change = self.norms.get(at)?;
        let mut folded = layer.clone();
        folded.gamma = Param::from_tensor(layer.gamma.val() * change.plain().0);
        folded.beta = Some(change.offset(layer.beta.as_ref()));
        Some(folded)
    }
}
