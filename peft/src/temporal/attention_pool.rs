//! Attention pooling: learned questions put to the frames of a clip, beside their mean.
//!
//! With directions `u_t = f_t / |f_t|` of the frames' features `f_t` `[dim]` and learned places `p_t`,
//! `z_t = u_t D + p_t`, `a_(t,j) = softmax_t(z_t . q_j / sqrt(hidden))`, `s_j = sum_t a_(t,j) z_t`, and the clip's feature is
//! `mean_t f_t + mean_t |f_t| [s_1 .. s_heads] U` with `D` `[dim, hidden]`, `q` `[heads, hidden]`, `U`
//! `[heads * hidden, dim]`. `U` starts at zero, so that the start is mean pooling. Places make it tell the order of frames:
//! two heads may ask for early and for late ones. Attention over frames is the pooling of, e.g., temporal attention in
//! ActionCLIP (Wang et al., 2021, arXiv 2109.08472) and of set pooling by learned queries (Lee et al., 2019, arXiv 1810.00825).
//! Count: `dim * hidden + (frames + heads) * hidden + heads * hidden * dim`. Site: pool; no tower is touched.

use burn::module::{Module, Param};
use burn::tensor::activation::softmax;
use burn::tensor::{Tensor, TensorData};
use inarch_core::backbone::{Backbone, Entry, Pass, PoolBase, Sites, Touched, Tower};
use serde::{Deserialize, Serialize};

use super::positions::Positions;
use super::{check_size, directions, drawn, map};
use crate::error::Result;
use crate::learner::Learner;
use crate::method::{Method, Start, Words};

/// Settings of attention pooling.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AttentionPoolConfig {
    /// Width in which frames are compared.
    pub hidden: usize,
    /// Number of questions.
    pub heads: usize,
    /// Number of learned places in time; clips of another length read between them.
    pub frames: usize,
}

impl Default for AttentionPoolConfig {
    fn default() -> Self {
        Self { hidden: 64, heads: 4, frames: 8 }
    }
}

/// Learned questions to the frames of a clip.
#[derive(Module, Debug)]
pub struct AttentionPool {
    down: Param<Tensor<2>>,
    positions: Positions,
    queries: Param<Tensor<2>>,
    up: Param<Tensor<2>>,
}

impl Method for AttentionPoolConfig {
    type Adapter = AttentionPool;

    /// [`Error::Setting`](crate::Error::Setting) for a size of 0 or beyond 4096.
    fn init(&self, start: &Start<'_>) -> Result<AttentionPool> {
        for (setting, value) in [("hidden", self.hidden), ("heads", self.heads), ("frames", self.frames)] {
            check_size(setting, value)?;
        }
        let Start { seed, device, .. } = *start;
        let (dim, hidden) = (start.backbone.spec().dim, self.hidden);
        // Questions as long as what they are put to, so that attention is not flat at the start.
        let queries = TensorData::new(seed.split("queries").normals(self.heads * hidden, 1.0), [self.heads, hidden]);
        Ok(AttentionPool {
            down: drawn(dim, hidden, seed.split("down"), device),
            positions: Positions::new(self.frames, hidden, seed.split("positions"), device),
            queries: Param::from_tensor(Tensor::from_data(queries, device)),
            up: Param::from_tensor(Tensor::zeros([self.heads * hidden, dim], device)),
        })
    }

    fn words(&self) -> Words {
        Words::Unneeded
    }

    fn trainable(&self, backbone: &Backbone, _classes: usize, _images: usize) -> usize {
        let (dim, hidden) = (backbone.spec().dim, self.hidden);
        dim * hidden + (self.frames + self.heads) * hidden + self.heads * hidden * dim
    }
}

impl Learner for AttentionPool {}

impl Sites for AttentionPool {
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
        let [clips, count, _] = frames.dims();
        let [heads, hidden] = self.queries.dims();
        let (directions, lengths) = directions(&frames);
        let seen = map(directions, &self.down) + self.positions.of(count).unsqueeze::<3>();
        let asked = seen.clone().matmul(self.queries.val().transpose().unsqueeze::<3>()) / (hidden as f64).sqrt();
        // [clips, heads, frames] x [clips, frames, hidden]
        let answers = softmax(asked, 1).swap_dims(1, 2).matmul(seen).reshape([clips, heads * hidden]);
        base.forward(frames) + answers.matmul(self.up.val()) * lengths.mean_dim(1).squeeze_dim::<2>(1)
    }
}
