//! Frames of clips: how many rows of the image tower belong together, and how they become one.

use burn::tensor::Tensor;

use super::pass::Pass;
use super::site::Sites;

/// How many consecutive rows of the image tower are the frames of one clip, in the order of time: 1 for still images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frames(usize);

impl Frames {
    /// Still images.
    pub const STILL: Self = Self(1);

    /// Clips of `count` frames, at least 1.
    pub fn of(count: usize) -> Self {
        Self(count.max(1))
    }

    /// How many there are.
    pub fn count(self) -> usize {
        self.0
    }

    /// What is known of each clip, `[clips, dim]`, for each of its frames: `[clips * frames, dim]`.
    pub fn spread(self, clips: Tensor<2>) -> Tensor<2> {
        if self == Self::STILL {
            return clips;
        }
        let [count, dim] = clips.dims();
        clips.unsqueeze_dim::<3>(1).expand([count, self.0, dim]).reshape([count * self.0, dim])
    }
}

impl Default for Frames {
    fn default() -> Self {
        Self::STILL
    }
}

/// What lies below an adapter at the pool site: the rest of a stack, then the mean over frames.
pub struct PoolBase<'a> {
    next: &'a dyn Fn(Tensor<3>) -> Tensor<2>,
}

impl<'a> PoolBase<'a> {
    /// A pool site, with what runs it.
    pub fn new(next: &'a dyn Fn(Tensor<3>) -> Tensor<2>) -> Self {
        Self { next }
    }

    /// Makes one feature of the frames of each clip: `[clips, frames, dim]` to `[clips, dim]`.
    pub fn forward(&self, frames: Tensor<3>) -> Tensor<2> {
        (self.next)(frames)
    }
}

/// The mean of the features of a clip's frames, as they are (ViFi-CLIP: Rasheed et al., 2023, arXiv 2212.03640).
fn mean(frames: Tensor<3>) -> Tensor<2> {
    match frames.dims() {
        [_, 1, _] => frames.squeeze_dim::<2>(1),
        _ => frames.mean_dim(1).squeeze_dim::<2>(1),
    }
}

/// Features of frames `[clips * frames, dim]` through the pool site: `[clips, dim]`.
pub(super) fn pooled(features: Tensor<2>, sites: &dyn Sites, pass: &Pass<'_>) -> Tensor<2> {
    let ([rows, dim], frames) = (features.dims(), pass.frames.count());
    assert!(rows.is_multiple_of(frames), "{rows} rows are no whole clips of {frames} frames");
    sites.pool(PoolBase::new(&mean), features.reshape([rows / frames, frames, dim]), pass)
}
