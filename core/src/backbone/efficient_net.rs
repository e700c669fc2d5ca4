//! EfficientNet (Tan and Le, 2019, arXiv 1905.11946), the image tower of ALIGN (Jia et al., 2021, arXiv 2102.05918): inverted
//! bottlenecks with squeeze and excitation (Hu et al., 2018, arXiv 1709.01507), then one pooled token.
//!
//! A frozen batch normalisation is a scale and a shift, so it is part of the convolution before it.

use burn::module::Module;
use burn::tensor::activation::{sigmoid, silu};
use burn::tensor::module::conv2d;
use burn::tensor::ops::{ConvOptions, PadMode};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::pass::Pass;
use super::pointwise::{Pointwise, TrunkContext};
use super::resnet::Convolution;
use super::site::Frozen;

/// Side of the filters of the stem, whose stride is 2.
const STEM_SIDE: usize = 3;

/// The sizes of a trunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EfficientNetSpec {
    /// Channels behind the stem.
    pub stem: usize,
    /// The bottlenecks.
    pub blocks: Vec<InvertedSpec>,
    /// How the last map becomes one token.
    #[serde(default, skip_serializing_if = "MapPool::is_mean")]
    pub pool: MapPool,
}

/// The sizes of an inverted bottleneck.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InvertedSpec {
    /// Channels inside; where there are as many as come in, nothing widens them.
    pub inner: usize,
    /// Channels that leave it.
    pub outer: usize,
    /// Channels of the squeezed map.
    pub squeezed: usize,
    /// Side of the filters, odd.
    pub side: usize,
    /// Stride, 1 or 2.
    pub stride: usize,
    /// Whether a stride of 2 pads all edges alike, instead of one row and column less in front.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub centred: bool,
    /// Whether what came in is added to what leaves.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub residual: bool,
}

/// How a map becomes one token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MapPool {
    /// The mean over its places.
    #[default]
    Mean,
    /// The greatest value of each channel.
    Max,
}

impl MapPool {
    fn is_mean(&self) -> bool {
        *self == Self::Mean
    }
}

impl EfficientNetSpec {
    /// Channels of the last map.
    pub fn channels(&self) -> usize {
        self.blocks.last().map_or(self.stem, |block| block.outer)
    }

    /// Pixels along one side for one place of the last map.
    pub fn stride(&self) -> usize {
        self.blocks.iter().fold(2, |stride, block| stride.saturating_mul(block.stride))
    }

    /// Side and channels of the map that enters a block, for images of `size` pixels; of the last map for the block behind
    /// the last.
    pub(super) fn map(&self, size: usize, block: usize) -> [usize; 2] {
        let before = self.blocks.iter().take(block);
        before.fold([size / 2, self.stem], |[side, _], InvertedSpec { stride, centred, outer, .. }| {
            let side = match (*stride, *centred) {
                (2, true) => side.div_ceil(2),
                (2, false) => side / 2,
                _ => side,
            };
            [side, *outer]
        })
    }

    /// Multiply-adds of a block for an image of `size` pixels.
    pub(super) fn products(&self, size: usize, block: usize) -> usize {
        let ([before, inputs], [behind, _]) = (self.map(size, block), self.map(size, block + 1));
        let InvertedSpec { inner, outer, squeezed, side, .. } = self.blocks[block];
        let widened = if inner == inputs { 0 } else { before * before * inputs * inner };
        widened + behind * behind * inner * (side * side + outer) + 2 * inner * squeezed
    }

    /// Whether there can be such a trunk.
    pub(super) fn fits(&self) -> bool {
        let mut inputs = self.stem;
        let block = |block: &InvertedSpec| {
            let sizes = [block.inner, block.outer, block.squeezed];
            let odd = block.side % 2 == 1 && block.side < 32 && (block.stride == 1 || block.side > 1);
            let adds = !block.residual || (block.stride == 1 && inputs == block.outer);
            inputs = block.outer;
            sizes.iter().all(|size| (1..=1 << 16).contains(size)) && odd && adds && matches!(block.stride, 1 | 2)
        };
        (1..=1 << 12).contains(&self.stem) && self.blocks.len() <= 1 << 8 && self.blocks.iter().all(block)
    }
}

/// Pixels `[batch, 3, size, size]` to `[batch, channels]`.
#[derive(Module, Debug)]
pub struct EfficientNet {
    /// The first convolution.
    pub stem: Convolution,
    /// The bottlenecks.
    pub blocks: Vec<InvertedBottleneck>,
}

/// Wide inside and narrow outside, each channel filtered by itself and weighed by what all of the map says.
#[derive(Module, Debug)]
pub struct InvertedBottleneck {
    /// 1 x 1, to the inner channels.
    pub expand: Option<Convolution>,
    /// Each channel by itself.
    pub depthwise: Convolution,
    /// 1 x 1 over the mean of the map, to the squeezed channels.
    pub reduce: Convolution,
    /// 1 x 1, to a weight for each inner channel.
    pub excite: Convolution,
    /// 1 x 1, to the outer channels.
    pub project: Convolution,
}

impl InvertedBottleneck {
    fn zeros(spec: &InvertedSpec, inputs: usize, device: &Device) -> Self {
        let InvertedSpec { inner, outer, squeezed, side, .. } = *spec;
        let convolution = |from: usize, to: usize, side: usize| Convolution::zeros(from, to, side, device);
        Self {
            expand: (inner != inputs).then(|| convolution(inputs, inner, 1)),
            depthwise: convolution(1, inner, side),
            reduce: convolution(inner, squeezed, 1),
            excite: convolution(squeezed, inner, 1),
            project: convolution(inner, outer, 1),
        }
    }

    /// A map `[batch, channels, height, width]` to the next.
    pub fn forward(&self, spec: &InvertedSpec, input: Tensor<4>) -> Tensor<4> {
        self.step(spec, input, TrunkContext { block: 0, sites: &Frozen, pass: &Pass::evaluate() })
    }

    /// The same through the sites of its pointwise convolutions.
    pub(super) fn step(&self, spec: &InvertedSpec, input: Tensor<4>, context: TrunkContext<'_>) -> Tensor<4> {
        let mut map = input.clone();
        if let Some(expand) = &self.expand {
            map = silu(context.pointwise(Pointwise::Expand, expand, map));
        }
        let behind = spec.side / 2;
        let before = if spec.stride == 1 || spec.centred { behind } else { behind - 1 };
        map = silu(convolve(&self.depthwise, padded(map, before, behind), spec.stride, spec.inner));
        let mean = map.clone().mean_dim(3).mean_dim(2);
        let squeezed = silu(context.pointwise(Pointwise::Reduce, &self.reduce, mean));
        map = map * sigmoid(context.pointwise(Pointwise::Excite, &self.excite, squeezed));
        map = context.pointwise(Pointwise::Project, &self.project, map);
        if spec.residual { map + input } else { map }
    }

    /// One of its 1 x 1 convolutions; `None` for one that it does not have.
    pub(super) fn pointwise(&self, layer: Pointwise) -> Option<&Convolution> {
        match layer {
            Pointwise::Expand => self.expand.as_ref(),
            Pointwise::Reduce => Some(&self.reduce),
            Pointwise::Excite => Some(&self.excite),
            Pointwise::Project => Some(&self.project),
            Pointwise::First | Pointwise::Third | Pointwise::Downsample => None,
        }
    }

    /// As [`pointwise`](Self::pointwise), to be replaced.
    pub(super) fn pointwise_mut(&mut self, layer: Pointwise) -> Option<&mut Convolution> {
        match layer {
            Pointwise::Expand => self.expand.as_mut(),
            Pointwise::Reduce => Some(&mut self.reduce),
            Pointwise::Excite => Some(&mut self.excite),
            Pointwise::Project => Some(&mut self.project),
            Pointwise::First | Pointwise::Third | Pointwise::Downsample => None,
        }
    }
}

impl EfficientNet {
    pub(super) fn zeros(spec: &EfficientNetSpec, device: &Device) -> Self {
        let mut inputs = spec.stem;
        let block = |block: &InvertedSpec| {
            let made = InvertedBottleneck::zeros(block, inputs, device);
            inputs = block.outer;
            made
        };
        Self {
            blocks: spec.blocks.iter().map(block).collect(),
            stem: Convolution::zeros(3, spec.stem, STEM_SIDE, device),
        }
    }

    /// The map that enters the first bottleneck.
    pub fn begin(&self, pixels: Tensor<4>) -> Tensor<4> {
        silu(convolve(&self.stem, padded(pixels, 0, 1), 2, 1))
    }

    /// The map that enters a bottleneck to the one that leaves it.
    pub(super) fn step(&self, spec: &EfficientNetSpec, map: Tensor<4>, context: TrunkContext<'_>) -> Tensor<4> {
        self.blocks[context.block].step(&spec.blocks[context.block], map, context)
    }
}

/// The last map as one token, `[batch, channels, height, width]` to `[batch, channels]`.
pub(super) fn token_of(map: Tensor<4>, pool: MapPool) -> Tensor<2> {
    let [batch, channels, height, width] = map.dims();
    let places = map.reshape([batch, channels, height * width]);
    let pooled = match pool {
        MapPool::Mean => places.mean_dim(2),
        MapPool::Max => places.max_dim(2),
    };
    pooled.squeeze_dim::<2>(2)
}

/// Rows and columns of zeros around a map: so many in front, and so many behind.
fn padded(map: Tensor<4>, before: usize, behind: usize) -> Tensor<4> {
    match (before, behind) {
        (0, 0) => map,
        edges => map.pad([edges, edges], PadMode::Constant(0.0)),
    }
}

/// A convolution that pads nothing, in so many groups of channels.
fn convolve(layer: &Convolution, map: Tensor<4>, stride: usize, groups: usize) -> Tensor<4> {
    let options = ConvOptions::new([stride; 2], [0; 2], [1; 2], groups);
    conv2d(map, layer.weight.val(), Some(layer.bias.val()), options)
}
