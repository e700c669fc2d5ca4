//! The convolutional trunk of CLIP's ResNets (Radford et al., 2021, arXiv 2103.00020, section 2.4; He et al., 2016): three
//! convolutions as a stem, and average pooling in place of strides.
//!
//! A frozen batch normalisation is a scale and a shift, so it is part of the convolution before it.

use burn::module::{Module, Param};
use burn::tensor::activation::relu;
use burn::tensor::module::{avg_pool2d, conv2d};
use burn::tensor::ops::{AvgPoolOptions, ConvOptions};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::parameter;
use super::pointwise::{Pointwise, TrunkContext};

/// Channels that leave a bottleneck for each that is inside of it.
pub(super) const EXPANSION: usize = 4;
/// Pixels along one side for one place of the last map.
pub(super) const STRIDE: usize = 32;

/// The sizes of a trunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResNetSpec {
    /// Channels behind the stem.
    pub width: usize,
    /// Bottlenecks in each of the four stages.
    pub stages: [usize; 4],
}

impl ResNetSpec {
    /// Channels of the last map.
    pub fn channels(&self) -> usize {
        8 * self.width * EXPANSION
    }

    /// Side and channels of the map that enters a block, for images of `size` pixels; of the last map for the block behind
    /// the last.
    pub(super) fn map(&self, size: usize, block: usize) -> [usize; 2] {
        let before = block.checked_sub(1).map(|before| self.stage(before));
        // The stem halves an image twice, and every stage but the first once more.
        before.map_or([size / 4, self.width], |stage| [(size / 4) >> stage, (self.width << stage) * EXPANSION])
    }

    /// Multiply-adds of a block for an image of `size` pixels.
    pub(super) fn products(&self, size: usize, block: usize) -> usize {
        let ([side, inputs], [behind, outputs]) = (self.map(size, block), self.map(size, block + 1));
        let (inner, before, behind) = (outputs / EXPANSION, side * side, behind * behind);
        let shortcut = if inputs == outputs { 0 } else { behind * inputs * outputs };
        before * inner * (inputs + 9 * inner) + behind * inner * outputs + shortcut
    }

    /// The stage of a block; the last one's for blocks beyond.
    fn stage(&self, block: usize) -> usize {
        let mut behind = 0;
        let ends = self.stages.iter().map(|blocks| {
            behind += blocks;
            behind
        });
        ends.take(self.stages.len() - 1).filter(|end| *end <= block).count()
    }
}

/// A convolution with an offset.
#[derive(Module, Debug)]
pub struct Convolution {
    /// `[out, in, height, width]`.
    pub weight: Param<Tensor<4>>,
    /// `[out]`.
    pub bias: Param<Tensor<1>>,
}

impl Convolution {
    pub(super) fn zeros(inputs: usize, outputs: usize, side: usize, device: &Device) -> Self {
        Self {
            weight: parameter::zeros([outputs, inputs, side, side], device),
            bias: Param::from_tensor(Tensor::zeros([outputs], device)),
        }
    }

    /// Padded so that a stride of 1 keeps the size.
    pub(super) fn forward(&self, input: Tensor<4>, stride: usize) -> Tensor<4> {
        let [_, _, side, _] = self.weight.val().dims();
        let options = ConvOptions::new([stride; 2], [side / 2; 2], [1; 2], 1);
        conv2d(input, self.weight.val(), Some(self.bias.val()), options)
    }
}

/// Three convolutions beside a shortcut.
#[derive(Module, Debug)]
pub struct Bottleneck {
    /// 1 x 1, 3 x 3 and 1 x 1.
    pub convolutions: Vec<Convolution>,
    /// 1 x 1, where the shortcut changes shape.
    pub downsample: Option<Convolution>,
}

impl Bottleneck {
    fn forward(&self, input: Tensor<4>, stride: usize, context: TrunkContext<'_>) -> Tensor<4> {
        let map = relu(context.pointwise(Pointwise::First, &self.convolutions[0], input.clone()));
        let map = relu(self.convolutions[1].forward(map, 1));
        let map = context.pointwise(Pointwise::Third, &self.convolutions[2], halved(map, stride));
        let shortcut = match &self.downsample {
            Some(convolution) => context.pointwise(Pointwise::Downsample, convolution, halved(input, stride)),
            None => input,
        };
        relu(map + shortcut)
    }

    /// One of its 1 x 1 convolutions; `None` for one that it does not have.
    fn pointwise(&self, layer: Pointwise) -> Option<&Convolution> {
        match layer {
            Pointwise::First => self.convolutions.first(),
            Pointwise::Third => self.convolutions.get(2),
            Pointwise::Downsample => self.downsample.as_ref(),
            Pointwise::Expand | Pointwise::Reduce | Pointwise::Excite | Pointwise::Project => None,
        }
    }

    /// As [`pointwise`](Self::pointwise), to be replaced.
    fn pointwise_mut(&mut self, layer: Pointwise) -> Option<&mut Convolution> {
        match layer {
            Pointwise::First => self.convolutions.first_mut(),
            Pointwise::Third => self.convolutions.get_mut(2),
            Pointwise::Downsample => self.downsample.as_mut(),
            Pointwise::Expand | Pointwise::Reduce | Pointwise::Excite | Pointwise::Project => None,
        }
    }
}

/// Pixels `[batch, 3, size, size]` to a map `[batch, channels, size / 32, size / 32]`.
#[derive(Module, Debug)]
pub struct ResNet {
    /// The stem.
    pub stem: Vec<Convolution>,
    /// The stages.
    pub stages: Vec<Vec<Bottleneck>>,
}

impl ResNet {
    pub(super) fn zeros(spec: &ResNetSpec, device: &Device) -> Self {
        let width = spec.width;
        let stem = [(3, width / 2), (width / 2, width / 2), (width / 2, width)];
        let mut inputs = width;
        let stage = |(index, count): (usize, &usize)| {
            let inner = width << index;
            let block = |block: usize| {
                let outputs = inner * EXPANSION;
                let changes = block == 0 && (index > 0 || inputs != outputs);
                let shapes = [(inputs, inner, 1), (inner, inner, 3), (inner, outputs, 1)];
                let convolutions = shapes.map(|(from, to, side)| Convolution::zeros(from, to, side, device)).to_vec();
                let downsample = changes.then(|| Convolution::zeros(inputs, outputs, 1, device));
                inputs = outputs;
                Bottleneck { convolutions, downsample }
            };
            (0..*count).map(block).collect()
        };
        Self {
            stages: spec.stages.iter().enumerate().map(stage).collect(),
            stem: stem.map(|(from, to)| Convolution::zeros(from, to, 3, device)).to_vec(),
        }
    }

    /// The map that enters the first bottleneck.
    pub(super) fn begin(&self, pixels: Tensor<4>) -> Tensor<4> {
        let mut map = pixels;
        for (place, convolution) in self.stem.iter().enumerate() {
            map = relu(convolution.forward(map, if place == 0 { 2 } else { 1 }));
        }
        halved(map, 2)
    }

    /// Bottlenecks of all stages.
    pub(super) fn blocks(&self) -> usize {
        self.stages.iter().map(Vec::len).sum()
    }

    /// The map that enters a bottleneck to the one that leaves it.
    pub(super) fn step(&self, map: Tensor<4>, context: TrunkContext<'_>) -> Tensor<4> {
        let mut within = context.block;
        for (place, stage) in self.stages.iter().enumerate() {
            if let Some(bottleneck) = stage.get(within) {
                return bottleneck.forward(map, if place > 0 && within == 0 { 2 } else { 1 }, context);
            }
            within -= stage.len();
        }
        unreachable!("the tower counts the blocks of its trunk")
    }

    /// A 1 x 1 convolution of a bottleneck, which is counted through all stages.
    pub(super) fn pointwise(&self, block: usize, layer: Pointwise) -> Option<&Convolution> {
        self.stages.iter().flatten().nth(block)?.pointwise(layer)
    }

    /// As [`pointwise`](Self::pointwise), to be replaced.
    pub(super) fn pointwise_mut(&mut self, block: usize, layer: Pointwise) -> Option<&mut Convolution> {
        self.stages.iter_mut().flatten().nth(block)?.pointwise_mut(layer)
    }
}

/// Means over squares of `stride` pixels.
fn halved(map: Tensor<4>, stride: usize) -> Tensor<4> {
    match stride {
        1 => map,
        _ => avg_pool2d(map, AvgPoolOptions::new([stride; 2])),
    }
}
