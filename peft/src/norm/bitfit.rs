//! BitFit: only the offsets of linear layers and normalisations are trained (Ben Zaken et al., 2022, arXiv 2106.10199).
//!
//! `y = x W + b + db` with the change `db` `[d_output]` of each offset, which starts at zero. Count: `d_output` for each
//! layer that has an offset. Sites: linear and norm, in both towers. Folds.

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

/// Settings of BitFit; the default is every offset of the blocks and normalisations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BitFitConfig {
    /// Which linear layers, by name; `*` stands for anything.
    pub linear: Vec<String>,
    /// Which normalisations, by name.
    pub norms: Vec<String>,
}

impl Default for BitFitConfig {
    fn default() -> Self {
        Self { linear: vec!["*.blocks.*".into()], norms: vec!["*".into()] }
    }
}

#[derive(Module, Debug)]
struct Offset {
    offset: Param<Tensor<1>>,
}

impl Offset {
    fn zeros(width: usize, device: &Device) -> Self {
        Self { offset: Param::from_tensor(Tensor::zeros([width], device)) }
    }

    fn apply(&self, output: Tensor<3>) -> Tensor<3> {
        output + self.offset.val().unsqueeze::<3>()
    }

    fn fold(&self, bias: Option<&Param<Tensor<1>>>) -> Option<Param<Tensor<1>>> {
        let offset = self.offset.val().without_autodiff();
        Some(Param::from_tensor(match bias {
            Some(bias) => bias.val() + offset,
            None => offset,
        }))
    }
}

/// Changed offsets.
#[derive(Module, Debug)]
pub struct BitFit {
    linear: LinearSites<Offset>,
    norms: NormSites<Offset>,
}

impl Method for BitFitConfig {
    type Adapter = BitFit;

    /// [`Error::Setting`], also for a layer without an offset, or [`Error::NoTarget`].
    fn init(&self, start: &Start<'_>) -> Result<BitFit> {
        let Start { backbone, device, .. } = *start;
        if self.linear.is_empty() && self.norms.is_empty() {
            let reason = "name linear layers here, normalisations in `norms`, or both".into();
            return Err(Error::Setting { setting: "linear", reason });
        }
        let linear = LinearSites::select(backbone, &self.linear, |site, [_, outputs]| {
            if backbone.linear(site).is_none_or(|layer| layer.bias.is_none()) {
                let reason = format!("`{site}` has no offset to be changed; leave it out, e.g. by `*.blocks.*`");
                return Err(Error::Setting { setting: "linear", reason });
            }
            Ok(Offset::zeros(outputs, device))
        })?;
        let norms = NormSites::select(backbone, &self.norms, |width| Offset::zeros(width, device))?;
        Ok(BitFit { linear, norms })
    }

    fn words(&self) -> Words {
        Words::Unneeded
    }

    fn crosses(&self) -> bool {
        true
    }

    fn trainable(&self, backbone: &Backbone, _classes: usize, _images: usize) -> usize {
        let linear: usize = selected_sites(backbone, &self.linear).map(|(_, [_, outputs])| outputs).sum();
        linear + selected_norms(backbone, &self.norms).iter().sum::<usize>()
    }
}

impl Learner for BitFit {}

impl Sites for BitFit {
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
        let bias = self.linear.get(at)?.fold(layer.bias.as_ref());
        Some(Linear { weight: layer.weight.clone(), bias })
    }

    fn fold_norm(&self, at: NormSite, layer: &LayerNorm) -> Option<LayerNorm> {
        let beta = self.norms.get(at)?.fold(layer.beta.as_ref());
        let mut folded = layer.clone();
        folded.beta = beta;
        Some(folded)
    }
}
