//! Gated attention pooling: the feature of a bag of tiles is a weighted mean of theirs (Ilse et al., ICML 2018,
//! arXiv 1802.04712), for slides that are too large to be one image and are labelled as a whole.
//!
//! With directions `u_t = f_t / |f_t|` of the tiles' features `f_t` `[dim]`,
//! `a_t = softmax_t(w . (tanh(u_t V + b) * sigmoid(u_t U + c)))` with `V`, `U` `[dim, hidden]`, `b`, `c`, `w` `[hidden]`, and the
//! bag's feature is `sum_t a_t f_t`. `w` starts at zero, so that the start is mean pooling. Nothing tells the order of tiles.
//! In a stack what lies below gives the place of the mean, and the weights move it. Count: `2 dim * hidden + 3 hidden`. Site:
//! pool; no tower is touched.
//!
//! The authors put layers of their own in front and train them; here the frozen backbone stands in front.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::activation::{sigmoid, softmax};
use inarch_core::backbone::{Backbone, Entry, Pass, PoolBase, Sites, Touched, Tower};
use serde::{Deserialize, Serialize};

use super::{check_size, directions, drawn, map};
use crate::error::Result;
use crate::learner::Learner;
use crate::method::{Method, Start, Words};

/// Settings of gated attention pooling; the width is the paper's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatedPoolConfig {
    /// Width in which tiles are weighed.
    pub hidden: usize,
}

impl Default for GatedPoolConfig {
    fn default() -> Self {
        Self { hidden: 128 }
    }
}

/// Learned weights of the tiles of a bag.
#[derive(Module, Debug)]
pub struct GatedPool {
    value: Param<Tensor<2>>,
    value_offset: Param<Tensor<1>>,
    gate: Param<Tensor<2>>,
    gate_offset: Param<Tensor<1>>,
    weight: Param<Tensor<1>>,
}

impl Method for GatedPoolConfig {
    type Adapter = GatedPool;

    /// [`Error::Setting`](crate::Error::Setting) for a size of 0 or beyond 4096.
    fn init(&self, start: &Start<'_>) -> Result<GatedPool> {
        check_size("hidden", self.hidden)?;
        let Start { seed, device, .. } = *start;
        let (dim, hidden) = (start.backbone.spec().dim, self.hidden);
        let zeros = || Param::from_tensor(Tensor::zeros([hidden], device));
        Ok(GatedPool {
            value: drawn(dim, hidden, seed.split("value"), device),
            value_offset: zeros(),
            gate: drawn(dim, hidden, seed.split("gate"), device),
            gate_offset: zeros(),
            weight: zeros(),
        })
    }

    fn words(&self) -> Words {
        Words::Unneeded
    }

    fn trainable(&self, backbone: &Backbone, _classes: usize, _images: usize) -> usize {
        (2 * backbone.spec().dim + 3) * self.hidden
    }
}

impl Learner for GatedPool {}

impl Sites for GatedPool {
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
        let (directions, _) = directions(&frames);
        let row = |row: &Param<Tensor<1>>| row.val().unsqueeze::<3>();
        let value = (map(directions.clone(), &self.value) + row(&self.value_offset)).tanh();
        let gate = sigmoid(map(directions, &self.gate) + row(&self.gate_offset));
        // [bags, tiles, 1]: the weights less those of the mean, which what lies below has taken.
        let asked = (value * gate * row(&self.weight)).sum_dim(2);
        let tiles = frames.dims()[1];
        let weights = softmax(asked, 1) - 1.0 / tiles as f64;
        base.forward(frames.clone()) + (frames * weights).sum_dim(1).squeeze_dim::<2>(1)
    }
}
