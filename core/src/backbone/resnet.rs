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
            weight: Param::from_tensor(Tensor::zeros([outputs, inputs, side, side], device)),
            bias: Param::from_tensor(Tensor::zeros([outputs], device)),
        }
    }

    /// Padded so that a stride of 1 keeps the size.
    fn forward(&self, input: Tensor<4>, stride: usize) -> Tensor<4> {
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
    fn forward(&self, input: Tensor<4>, stride: usize) -> Tensor<4> {
        let mut map = input.clone();
        for convolution in &self.convolutions[..2] {
            map = relu(convolution.forward(map, 1));
        }
        map = self.convolutions[2].forward(halved(map, stride), 1);
        let shortcut = match &self.downsample {
            Some(convolution) => convolution.forward(halved(input, stride), 1),
            None => input,
        };
        relu(map + shortcut)
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

    pub(super) fn forward(&self, pixels: Tensor<4>) -> Tensor<4> {
        let mut map = pixels;
        for (place, convolution) in self.stem.iter().enumerate() {
            map = relu(convolution.forward(map, if place == 0 { 2 } else { 1 }));
        }
        map = halved(map, 2);
        for (place, stage) in self.stages.iter().enumerate() {
            for (block, bottleneck) in stage.iter().enumerate() {
                map = bottleneck.forward(map, if place > 0 && block == 0 { 2 } else { 1 });
            }
        }
        map
    }
}

/// Means over squares of `stride` pixels.
fn halved(map: Tensor<4>, stride: usize) -> Tensor<4> {
    match stride {
        1 => map,
        _ => avg_pool2d(map, AvgPoolOptions::new([stride; 2])),
    }
}
