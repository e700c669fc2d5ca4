//! A temporal transformer on the features of frames (the sequence head of CLIP4Clip: Luo et al., 2021, arXiv 2104.08860, and of
//! ActionCLIP: Wang et al., 2021, arXiv 2109.08472).
//!
//! With directions `u_t = f_t / |f_t|` of the frames' features and learned places `p_t`: `z_t = u_t D + p_t`, then blocks
//! `z + attention(norm(z))`, `z + gelu(norm(z) A) B` over the frames of a clip, and `f_t' = f_t + |f_t| norm(z_t) U` with `D`
//! `[dim, hidden]`, `A` `[hidden, 2 hidden]`, `B` its opposite, `U` `[hidden, dim]`. `U` starts at zero, so that the start is
//! mean pooling: as in those heads the new features are added to the old ones and then averaged. Unlike them it works in a
//! width of its own, and its projections have no offsets. Count with `h = hidden`:
//! `2 dim h + frames h + layers (8 h h + 4 h) + 2 h`. Site: pool; no tower is touched.

use burn::module::{Module, Param};
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};
use inarch_core::backbone::{Backbone, Entry, Pass, PoolBase, Sites, Touched, Tower};
use inarch_core::{Seed, gelu};
use serde::{Deserialize, Serialize};

use super::norm::Norm;
use super::positions::Positions;
use super::{check_size, directions, drawn, map};
use crate::error::{Error, Result};
use crate::learner::Learner;
use crate::method::{Method, Start, Words};

/// Settings of a temporal transformer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TemporalTransformerConfig {
    /// Its width.
    pub hidden: usize,
    /// Heads of its attention, by which the width can be divided.
    pub heads: usize,
    /// Its blocks.
    pub layers: usize,
    /// Number of learned places in time; clips of another length read between them.
    pub frames: usize,
}

impl Default for TemporalTransformerConfig {
    fn default() -> Self {
        Self { hidden: 128, heads: 4, layers: 1, frames: 8 }
    }
}

#[derive(Module, Debug)]
struct Layer {
    norm1: Norm,
    query: Param<Tensor<2>>,
    key: Param<Tensor<2>>,
    value: Param<Tensor<2>>,
    output: Param<Tensor<2>>,
    norm2: Norm,
    wide: Param<Tensor<2>>,
    narrow: Param<Tensor<2>>,
}

impl Layer {
    fn new(hidden: usize, seed: Seed, device: &Device) -> Self {
        let square = |name: &str| drawn(hidden, hidden, seed.split(name), device);
        Self {
            norm1: Norm::new(hidden, device),
            query: square("query"),
            key: square("key"),
            value: square("value"),
            output: square("output"),
            norm2: Norm::new(hidden, device),
            wide: drawn(hidden, 2 * hidden, seed.split("wide"), device),
            narrow: drawn(2 * hidden, hidden, seed.split("narrow"), device),
        }
    }

    /// `[clips, frames, hidden]` to the same.
    fn forward(&self, input: Tensor<3>, heads: usize) -> Tensor<3> {
        let [clips, frames, hidden] = input.dims();
        let normed = self.norm1.forward(input.clone());
        let split = |weight: &Param<Tensor<2>>| {
            map(normed.clone(), weight).reshape([clips, frames, heads, hidden / heads]).swap_dims(1, 2)
        };
        let scores = split(&self.query).matmul(split(&self.key).swap_dims(2, 3)) / ((hidden / heads) as f64).sqrt();
        let seen = softmax(scores, 3).matmul(split(&self.value)).swap_dims(1, 2).reshape([clips, frames, hidden]);
        let stream = input + map(seen, &self.output);
        let wide = gelu(map(self.norm2.forward(stream.clone()), &self.wide));
        stream + map(wide, &self.narrow)
    }
}

/// A temporal transformer.
#[derive(Module, Debug)]
pub struct TemporalTransformer {
    down: Param<Tensor<2>>,
    positions: Positions,
    layers: Vec<Layer>,
    norm: Norm,
    up: Param<Tensor<2>>,
    heads: usize,
}

impl Method for TemporalTransformerConfig {
    type Adapter = TemporalTransformer;

    /// [`Error::Setting`] for a size of 0 or beyond all use, or heads that do not divide the width.
    fn init(&self, start: &Start<'_>) -> Result<TemporalTransformer> {
        for (setting, value) in [("hidden", self.hidden), ("heads", self.heads), ("frames", self.frames)] {
            check_size(setting, value)?;
        }
        if !self.hidden.is_multiple_of(self.heads) {
            let reason = format!("must divide the width {}, found {}", self.hidden, self.heads);
            return Err(Error::Setting { setting: "heads", reason });
        }
        if !(1..=24).contains(&self.layers) {
            return Err(Error::Setting {
                setting: "layers",
                reason: format!("must be 1 to 24, found {}", self.layers),
            });
        }
        let Start { seed, device, .. } = *start;
        let (dim, hidden) = (start.backbone.spec().dim, self.hidden);
        Ok(TemporalTransformer {
            down: drawn(dim, hidden, seed.split("down"), device),
            positions: Positions::new(self.frames, hidden, seed.split("positions"), device),
            layers: (0..self.layers)
                .map(|layer| Layer::new(hidden, seed.split("layer").split(layer), device))
                .collect(),
            norm: Norm::new(hidden, device),
            up: Param::from_tensor(Tensor::zeros([hidden, dim], device)),
            heads: self.heads,
        })
    }

    fn words(&self) -> Words {
        Words::Unneeded
    }

    fn trainable(&self, backbone: &Backbone, _classes: usize, _images: usize) -> usize {
        let (dim, hidden) = (backbone.spec().dim, self.hidden);
        2 * dim * hidden + self.frames * hidden + self.layers * (8 * hidden * hidden + 4 * hidden) + 2 * hidden
    }
}

impl Learner for TemporalTransformer {}

impl Sites for TemporalTransformer {
    fn entry(&self, tower: Tower) -> Entry {
        match tower {
            Tower::Image => Entry::Pool,
            Tower::Text => Entry::Never,
        }
    }

    fn touched(&self) -> Touched {
        Touched::NONE
    }

    fn pool(&self, base: PoolBase<'_>, frames: Tensor<3>, _pass: &Pass<'_>) -> Tensor<2> {
        let [_, count, _] = frames.dims();
        let (directions, lengths) = directions(&frames);
        let stream = map(directions, &self.down) + self.positions.of(count).unsqueeze::<3>();
        let stream = self.layers.iter().fold(stream, |stream, layer| layer.forward(stream, self.heads));
        let change = map(self.norm.forward(stream), &self.up);
        base.forward(frames + change * lengths)
    }
}
