//! IA3: one trained gain for each key, value and hidden MLP unit (Liu et al., 2022, arXiv 2205.05638).
//!
//! `y = (x W + b) * l` with `l` `[d_output]`, or `y = (x * l) W + b` with `l` `[d_input]` where the layer is named in `inputs`
//! (the second MLP layer, whose input are the hidden units). `l` starts at one, so that the start is the identity. Count:
//! `d_output`, or `d_input`, for each target. Sites: linear, in both towers. Folds.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::Tensor;
use inarch_core::backbone::{Backbone, Entry, LinearBase, LinearSite, Mode, Pass, Sites, Touched, Tower};
use serde::{Deserialize, Serialize};

use super::factors::check_targets;
use super::sites::{LinearSites, matches, selected_sites};
use crate::error::{Error, Result};
use crate::learner::Learner;
use crate::method::{Method, Start, Words};

/// Settings of IA3; the defaults are the paper's layers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ia3Config {
    /// Which linear sites, by name; `*` stands for anything.
    pub targets: Vec<String>,
    /// At which of them the input is multiplied in place of the output.
    pub inputs: Vec<String>,
}

impl Default for Ia3Config {
    fn default() -> Self {
        Self { targets: ["*.k_proj", "*.v_proj", "*.fc2"].map(String::from).to_vec(), inputs: vec!["*.fc2".into()] }
    }
}

impl Ia3Config {
    fn at_input(&self, site: LinearSite) -> bool {
        let name = site.to_string();
        self.inputs.iter().any(|pattern| matches(pattern, &name))
    }
}

#[derive(Module, Debug)]
struct Gain {
    gain: Param<Tensor<1>>,
    input: bool,
}

/// Gains at linear layers.
#[derive(Module, Debug)]
pub struct Ia3 {
    sites: LinearSites<Gain>,
}

impl Method for Ia3Config {
    type Adapter = Ia3;

    /// [`Error::Setting`] for a pattern in `inputs` that fits no target, or [`Error::NoTarget`].
    fn init(&self, start: &Start<'_>) -> Result<Ia3> {
        check_targets(&self.targets)?;
        for pattern in &self.inputs {
            if !selected_sites(start.backbone, &self.targets).any(|(site, _)| matches(pattern, &site.to_string())) {
                let reason = format!("`{pattern}` fits none of the sites that `targets` selects");
                return Err(Error::Setting { setting: "inputs", reason });
            }
        }
        let sites = LinearSites::select(start.backbone, &self.targets, |site, [inputs, outputs]| {
            let input = self.at_input(site);
            let width = if input { inputs } else { outputs };
            Ok(Gain { gain: Param::from_tensor(Tensor::ones([width], start.device)), input })
        })?;
        Ok(Ia3 { sites })
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
        let count = |(site, [inputs, outputs]): (LinearSite, [usize; 2])| {
            if self.at_input(site) { inputs } else { outputs }
        };
        selected_sites(backbone, &self.targets).map(count).sum()
    }
}

impl Learner for Ia3 {}

impl Sites for Ia3 {
    fn entry(&self, tower: Tower) -> Entry {
        self.sites.entry(tower)
    }

    fn shares_beginnings(&self, _mode: Mode) -> bool {
        true
    }

    fn touched(&self) -> Touched {
        Touched::LINEAR
    }

    fn linear(&self, base: LinearBase<'_>, input: Tensor<3>, _pass: &Pass<'_>) -> Tensor<3> {
        let Some(Gain { gain, input: at_input }) = self.sites.get(base.at) else { return base.forward(input) };
        let gain = gain.val().unsqueeze::<3>();
        if *at_input { base.forward(input * gain) } else { base.forward(input) * gain }
    }

    fn folds(&self) -> bool {
        true
    }

    fn fold(&self, at: LinearSite, layer: &Linear) -> Option<Linear> {
        let Gain { gain, input } = self.sites.get(at)?;
        let gain = gain.val().without_autodiff();
        let weight = layer.weight.val();
        if *input {
            let weight = Param::from_tensor(weight * gain.unsqueeze::<2>().transpose());
            return Some(Linear { weight, bias: layer.bias.clone() });
        }
        let bias = layer.bias.as_ref().map(|bias| Param::from_tensor(bias.val() * gain.clone()));
        Some(Linear { weight: Param::from_tensor(weight * gain.unsqueeze::<2>()), bias })
    }
}
