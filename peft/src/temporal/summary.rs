//! A summary of each frame that knows the others of its clip.

use burn::module::{Module, Param};
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};
use inarch_core::Seed;

use super::norm::Norm;
use crate::affine::{Affine, glorot};

/// `z + attention(norm(z))` over the frames of a clip, with a query, key, value and output of the same width. Keys have no
/// offset: it would add one number to all scores of a query, which the softmax takes out again.
#[derive(Module, Debug)]
pub(super) struct Summary {
    norm: Norm,
    query: Affine,
    key: Param<Tensor<2>>,
    value: Affine,
    output: Affine,
}

impl Summary {
    pub(super) fn new(width: usize, seed: Seed, device: &Device) -> Self {
        let square = |name: &str| Affine::glorot([width; 2], seed.split(name), device);
        Self {
            norm: Norm::new(width, device),
            query: square("query"),
            key: glorot([width; 2], seed.split("key"), device),
            value: square("value"),
            output: square("output"),
        }
    }

    /// Number of values.
    pub(super) fn count(width: usize) -> usize {
        3 * Affine::count([width; 2]) + width * width + 2 * width
    }

    /// `[clips, frames, width]` to the same.
    pub(super) fn forward(&self, frames: Tensor<3>, heads: usize) -> Tensor<3> {
        let [clips, count, width] = frames.dims();
        let rows = self.norm.forward(frames.clone()).reshape([clips * count, width]);
        let split = |rows: Tensor<2>| rows.reshape([clips, count, heads, width / heads]).swap_dims(1, 2);
        let query = split(self.query.forward(rows.clone()));
        let key = split(rows.clone().matmul(self.key.val()));
        let value = split(self.value.forward(rows));
        let scores = query.matmul(key.swap_dims(2, 3)) / ((width / heads) as f64).sqrt();
        let seen = softmax(scores, 3).matmul(value).swap_dims(1, 2).reshape([clips * count, width]);
        let change: Tensor<3> = self.output.forward(seen).reshape([clips, count, width]);
        frames + change
    }
}
