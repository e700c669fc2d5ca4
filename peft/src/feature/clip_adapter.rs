//! CLIP-Adapter: a bottleneck on the pooled features, mixed with what went in (Gao et al., 2021, arXiv 2110.04544).
//!
//! `f' = r relu(relu(f D) U) + (1 - r) f` with features `f` `[rows, dim]`, `D` `[dim, dim / reduction]`, `U`
//! `[dim / reduction, dim]`, for the image side, the text side or both. Both factors start uniform within
//! `1 / sqrt(inputs)`, so a fresh adapter is near zero-shot, not equal to it. Count: `2 * dim * dim / reduction` for each
//! side. Site: feature; no tower is touched.

use burn::module::{Module, Param};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor, TensorData};
use inarch_core::Seed;
use inarch_core::backbone::{Backbone, Entry, Pass, Sites, Touched, Tower};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::learner::Learner;
use crate::method::{Method, Start, Words};

/// Settings of CLIP-Adapter; the defaults are those of its code: image side, reduction 4, ratio 0.2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClipAdapterConfig {
    /// Width of the features over the width of the bottleneck.
    pub reduction: usize,
    /// Share `r` of the adapted features, 0 to 1.
    pub ratio: f64,
    /// Adapt image features.
    pub image: bool,
    /// Adapt text features.
    pub text: bool,
}

impl Default for ClipAdapterConfig {
    fn default() -> Self {
        Self { reduction: 4, ratio: 0.2, image: true, text: false }
    }
}

#[derive(Module, Debug)]
struct Bottleneck {
    down: Param<Tensor<2>>,
    up: Param<Tensor<2>>,
}

impl Bottleneck {
    fn new(dim: usize, hidden: usize, seed: Seed, device: &Device) -> Self {
        let factor = |name: &str, shape: [usize; 2]| {
            let values = seed.split(name).uniforms(shape[0] * shape[1], 1.0 / (shape[0] as f32).sqrt());
            Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), device))
        };
        Self { down: factor("down", [dim, hidden]), up: factor("up", [hidden, dim]) }
    }
}

/// Bottlenecks on pooled features.
#[derive(Module, Debug)]
pub struct ClipAdapter {
    image: Option<Bottleneck>,
    text: Option<Bottleneck>,
    ratio: f64,
}

impl Method for ClipAdapterConfig {
    type Adapter = ClipAdapter;

    /// [`Error::Setting`] for a ratio outside 0 to 1, a reduction that leaves nothing, or no side.
    fn init(&self, start: &Start<'_>) -> Result<ClipAdapter> {
        let dim = start.backbone.spec().dim;
        let fault = |setting, reason| Err(Error::Setting { setting, reason });
        if !(0.0..=1.0).contains(&self.ratio) {
            return fault("ratio", format!("must be 0 to 1, found {}", self.ratio));
        }
        if self.reduction == 0 || self.reduction > dim {
            return fault("reduction", format!("must be 1 to {dim}, found {}", self.reduction));
        }
        if !(self.image || self.text) {
            return fault("image", "adapt the image side, the text side or both".into());
        }
        let side = |wanted: bool, tower: Tower| {
            wanted.then(|| Bottleneck::new(dim, dim / self.reduction, start.seed.split(tower), start.device))
        };
        Ok(ClipAdapter { image: side(self.image, Tower::Image), text: side(self.text, Tower::Text), ratio: self.ratio })
    }

    fn black_box(&self) -> bool {
        true
    }

    fn words(&self) -> Words {
        Words::Unneeded
    }

    fn trainable(&self, backbone: &Backbone, _classes: usize, _images: usize) -> usize {
        let dim = backbone.spec().dim;
        (usize::from(self.image) + usize::from(self.text)) * 2 * dim * (dim / self.reduction.max(1))
    }

    fn starts_as_zero_shot(&self) -> bool {
        false
    }
}

impl Learner for ClipAdapter {}

impl ClipAdapter {
    fn side(&self, tower: Tower) -> Option<&Bottleneck> {
        match tower {
            Tower::Image => self.image.as_ref(),
            Tower::Text => self.text.as_ref(),
        }
    }
}

impl Sites for ClipAdapter {
    fn entry(&self, tower: Tower) -> Entry {
        if self.side(tower).is_some() { Entry::Feature } else { Entry::Never }
    }

    fn touched(&self) -> Touched {
        Touched::NONE
    }

    fn feature(&self, tower: Tower, feature: Tensor<2>, _pass: &Pass<'_>) -> Tensor<2> {
        let Some(Bottleneck { down, up }) = self.side(tower) else { return feature };
        let adapted = relu(relu(feature.clone().matmul(down.val())).matmul(up.val()));
        adapted * self.ratio + feature * (1.0 - self.ratio)
    }
}
