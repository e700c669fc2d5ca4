//! Tip-Adapter: a cache of the training images' features votes beside zero-shot (Zhang et al., 2022, arXiv 2111.03930).
//!
//! `logits = s f t^T + alpha exp(-beta (1 - f K^T)) V` with normalised image features `f` `[images, dim]`, the logit scale
//! `s`, keys `K` `[n, dim]` (the mean of an image's views, normalised) and their one-hot classes `V` `[n, classes]`.
//! `tip-adapter` trains nothing; `tip-adapter-f` trains the keys, `n * dim`. Site: logits; features alone suffice.

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData};
use inarch_core::backbone::{Backbone, Entry, Pass, Scores, Sites, Touched, Tower, normalise, values};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::fixed::Fixed;
use crate::learner::Learner;
use crate::method::{Method, Start, Words};

/// Settings of Tip-Adapter without training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TipAdapterConfig {
    /// Weight of the cache.
    pub alpha: f64,
    /// Sharpness of the cache.
    pub beta: f64,
}

impl Default for TipAdapterConfig {
    fn default() -> Self {
        Self { alpha: 1.0, beta: 5.5 }
    }
}

/// Settings of Tip-Adapter with trained keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TipAdapterFConfig {
    /// Weight of the cache.
    pub alpha: f64,
    /// Sharpness of the cache.
    pub beta: f64,
}

impl Default for TipAdapterFConfig {
    fn default() -> Self {
        Self { alpha: 1.0, beta: 5.5 }
    }
}

/// A cache whose keys stay.
#[derive(Module, Debug)]
pub struct TipAdapter {
    keys: Fixed<2>,
    cache: Cache,
}

/// A cache whose keys are trained.
#[derive(Module, Debug)]
pub struct TipAdapterF {
    keys: Param<Tensor<2>>,
    cache: Cache,
}

/// What both know beside the keys.
#[derive(Module, Debug)]
struct Cache {
    /// The class of each key, `[n]`.
    labels: Fixed<1>,
    alpha: f64,
    beta: f64,
}

impl Cache {
    /// Keys and cache from the training images; zeros of the saved size when an artifact is read.
    fn new(start: &Start<'_>, keys: &str, alpha: f64, beta: f64) -> Result<(Tensor<2>, Self)> {
        for (setting, value) in [("alpha", alpha), ("beta", beta)] {
            if !(value.is_finite() && value >= 0.0) {
                let reason = format!("must be a number of at least 0, found {value}");
                return Err(Error::Setting { setting, reason });
            }
        }
        let device = start.device.clone().without_autodiff();
        let dim = start.backbone.spec().dim;
        let (keys, labels) = match start.support {
            Some(support) => {
                let features = normalise(support.features.clone());
                let means = features.reshape([support.images(), support.views, dim]).mean_dim(1);
                let labels: Vec<f32> = support.labels.iter().map(|label| *label as f32).collect();
                (normalise(means.reshape([support.images(), dim])), labels)
            }
            None => {
                // As many as the file holds, which is not more than was read.
                let count = start.saved_shape(keys).and_then(|shape| shape.first()).copied().unwrap_or(0);
                (Tensor::zeros([count, dim], &device), vec![0.0; count])
            }
        };
        let count = labels.len();
        let labels = Fixed::new(Tensor::from_data(TensorData::new(labels, [count]), &device));
        Ok((keys, Self { labels, alpha, beta }))
    }

    fn vote(&self, keys: Tensor<2>, scores: Scores<'_>, pass: &Pass<'_>) -> Tensor<2> {
        let [_, columns] = scores.logits.dims();
        let labels = values(self.labels.val());
        let mut votes = vec![0.0f32; labels.len() * columns];
        for (row, label) in labels.iter().enumerate() {
            for column in 0..columns {
                let class = pass.classes.map_or(column, |classes| classes[column]);
                if (label - class as f32).abs() < 0.5 {
                    votes[row * columns + column] = 1.0;
                }
            }
        }
        let votes =
            Tensor::<2>::from_data(TensorData::new(votes, [labels.len(), columns]), &self.labels.val().device());
        let similarity = scores.image.clone().matmul(keys.transpose());
        let affinity = ((similarity - 1.0) * self.beta).exp();
        scores.logits + affinity.matmul(votes) * self.alpha
    }
}

/// The settings of both, with what they train.
macro_rules! tip_adapter {
    ($config:ident, $adapter:ident, $keys:literal, $make:expr, $trained:expr) => {
        impl Method for $config {
            type Adapter = $adapter;

            /// [`Error::Setting`] for a negative alpha or beta.
            fn init(&self, start: &Start<'_>) -> Result<$adapter> {
                let (keys, cache) = Cache::new(start, $keys, self.alpha, self.beta)?;
                Ok($adapter { keys: $make(keys, start), cache })
            }

            fn black_box(&self) -> bool {
                true
            }

            fn words(&self) -> Words {
                Words::Replaced
            }

            fn trainable(&self, backbone: &Backbone, _classes: usize, images: usize) -> usize {
                $trained * images * backbone.spec().dim
            }

            fn starts_as_zero_shot(&self) -> bool {
                false
            }

            fn bound_to_classes(&self) -> bool {
                true
            }

            fn needs_support(&self) -> bool {
                true
            }
        }

        impl Learner for $adapter {}

        impl Sites for $adapter {
            fn entry(&self, _tower: Tower) -> Entry {
                Entry::Never
            }

            fn touched(&self) -> Touched {
                Touched::NONE
            }

            fn logits(&self, scores: Scores<'_>, pass: &Pass<'_>) -> Tensor<2> {
                self.cache.vote(self.keys.val(), scores, pass)
            }
        }
    };
}

tip_adapter!(TipAdapterConfig, TipAdapter, "keys.fixed", |keys, _: &Start<'_>| Fixed::new(keys), 0);
tip_adapter!(
    TipAdapterFConfig,
    TipAdapterF,
    "keys",
    |keys: Tensor<2>, start: &Start<'_>| Param::from_tensor(Tensor::from_data(keys.into_data(), start.device)),
    1
);
