//! Temperature: one trained factor on all scores, so that probabilities say how often they are right (Guo et al., 2017,
//! arXiv 1706.04599).
//!
//! `logits' = e^t logits`, with `t` `[1]` starting at zero, so that a fresh adapter is zero-shot; the order of the classes
//! never changes. Count: 1. Site: logits. In a stack it belongs last, behind the adapter that it calibrates.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use inarch_core::backbone::{Backbone, Entry, Pass, Scores, Sites, Touched, Tower};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::learner::Learner;
use crate::method::{Method, Start, Words};

/// Settings of the temperature. There are none beyond its training.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TemperatureConfig {}

/// The natural logarithm of a factor on the scores.
#[derive(Module, Debug)]
pub struct Temperature {
    log_factor: Param<Tensor<1>>,
}

impl Temperature {
    /// One with a factor, greater than zero, that is known already.
    pub fn of(factor: f64, device: &Device) -> Self {
        let logarithm = TensorData::new(vec![factor.ln() as f32], [1]);
        Self { log_factor: Param::from_tensor(Tensor::from_data(logarithm, device)) }
    }
}

impl Method for TemperatureConfig {
    type Adapter = Temperature;

    fn init(&self, start: &Start<'_>) -> Result<Temperature> {
        Ok(Temperature { log_factor: Param::from_tensor(Tensor::zeros([1], start.device)) })
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

    fn trainable(&self, _backbone: &Backbone, _classes: usize, _images: usize) -> usize {
        1
    }
}

impl Learner for Temperature {}

impl Sites for Temperature {
    fn entry(&self, _tower: Tower) -> Entry {
        Entry::Never
    }

    fn touched(&self) -> Touched {
        Touched::NONE
    }

    fn logits(&self, scores: Scores<'_>, _pass: &Pass<'_>) -> Tensor<2> {
        scores.logits * self.log_factor.val().exp().unsqueeze::<2>()
    }
}
