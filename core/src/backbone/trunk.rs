//! What stands in place of patches in some image towers: a convolutional trunk.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::efficient_net::EfficientNetSpec;
use super::image_tower::Embedding;
use super::pointwise::{TrunkContext, TrunkSite};
use super::resnet::{Convolution, ResNetSpec, STRIDE};
use super::spec::TransformerSpec;
use crate::error::{Error, Result};

/// The sizes of a trunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TrunkSpec {
    /// That of CLIP's ResNets: the places of its last map are tokens.
    ResNet(ResNetSpec),
    /// That of ALIGN: its last map becomes one token.
    EfficientNet(EfficientNetSpec),
}

impl TrunkSpec {
    /// Channels of the last map, which are the width of a token.
    pub fn channels(&self) -> usize {
        match self {
            Self::ResNet(spec) => spec.channels(),
            Self::EfficientNet(spec) => spec.channels(),
        }
    }

    /// Pixels along one side for one place of the last map.
    pub fn stride(&self) -> usize {
        match self {
            Self::ResNet(_) => STRIDE,
            Self::EfficientNet(spec) => spec.stride(),
        }
    }

    /// Blocks of all its stages.
    pub fn blocks(&self) -> usize {
        match self {
            Self::ResNet(spec) => spec.stages.iter().sum(),
            Self::EfficientNet(spec) => spec.blocks.len(),
        }
    }

    /// Side and channels of the map that enters a block, for images of `size` pixels; of the last map for the block behind
    /// the last.
    pub fn map(&self, size: usize, block: usize) -> [usize; 2] {
        match self {
            Self::ResNet(spec) => spec.map(size, block),
            Self::EfficientNet(spec) => spec.map(size, block),
        }
    }

    /// Multiply-adds of a block for an image of `size` pixels.
    ///
    /// # Panics
    /// When there is no such block.
    pub fn products(&self, size: usize, block: usize) -> usize {
        match self {
            Self::ResNet(spec) => spec.products(size, block),
            Self::EfficientNet(spec) => spec.products(size, block),
        }
    }

    /// Its name, for people.
    pub fn name(&self) -> &'static str {
        match self {
            Self::ResNet(_) => "ResNet",
            Self::EfficientNet(_) => "EfficientNet",
        }
    }

    /// Whether the image comes out as one token.
    pub(super) fn pools(&self) -> bool {
        matches!(self, Self::EfficientNet(_))
    }

    /// Checks that it fits into a tower of such patches and tokens.
    pub(super) fn check(&self, patch: usize, transformer: &TransformerSpec) -> Result<()> {
        let sizes = match self {
            Self::ResNet(spec) => {
                let stages = spec.stages.iter().all(|blocks| (1..=1 << 8).contains(blocks));
                (2..=1 << 10).contains(&spec.width) && stages && spec.stages.iter().sum::<usize>() <= 1 << 8
            }
            Self::EfficientNet(spec) => spec.fits(),
        };
        if !sizes || transformer.width != self.channels() || patch != self.stride() || transformer.depth != 0 {
            let expected = format!("an {} that gives tokens of width {}", self.name(), transformer.width);
            let expected = expected.replace("an R", "a R");
            return Err(Error::mismatch("trunk of the image tower", expected, format!("{self:?}")));
        }
        if transformer.heads == 0 || !transformer.width.is_multiple_of(transformer.heads) {
            let expected = format!("a divisor of {}", transformer.width);
            return Err(Error::mismatch("heads of the attention pool", expected, transformer.heads));
        }
        Ok(())
    }
}

impl Embedding {
    /// Blocks of a trunk; none without one.
    pub(super) fn blocks(&self) -> usize {
        match self {
            Self::Patches(_) => 0,
            Self::Trunk(trunk) => trunk.blocks(),
            Self::EfficientNet(trunk) => trunk.blocks.len(),
        }
    }

    /// The map that enters a block of a trunk, `[batch, channels, height, width]`, to the one that leaves it.
    pub(super) fn step(&self, spec: Option<&TrunkSpec>, map: Tensor<4>, context: TrunkContext<'_>) -> Tensor<4> {
        match (self, spec) {
            (Self::Trunk(trunk), _) => trunk.step(map, context),
            (Self::EfficientNet(trunk), Some(TrunkSpec::EfficientNet(sizes))) => trunk.step(sizes, map, context),
            (Self::EfficientNet(_) | Self::Patches(_), _) => unreachable!("a tower is made by its own specification"),
        }
    }

    /// A pointwise convolution of a trunk.
    pub(super) fn pointwise(&self, TrunkSite { block, layer }: TrunkSite) -> Option<&Convolution> {
        match self {
            Self::Patches(_) => None,
            Self::Trunk(trunk) => trunk.pointwise(block, layer),
            Self::EfficientNet(trunk) => trunk.blocks.get(block)?.pointwise(layer),
        }
    }

    /// As [`pointwise`](Self::pointwise), to be replaced.
    pub(super) fn pointwise_mut(&mut self, TrunkSite { block, layer }: TrunkSite) -> Option<&mut Convolution> {
        match self {
            Self::Patches(_) => None,
            Self::Trunk(trunk) => trunk.pointwise_mut(block, layer),
            Self::EfficientNet(trunk) => trunk.blocks.get_mut(block)?.pointwise_mut(layer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::efficient_net::{EfficientNetSpec, InvertedSpec, MapPool};
    use super::super::spec::Activation;
    use super::{ResNetSpec, TransformerSpec, TrunkSpec};

    #[test]
    fn a_trunk_without_channels_is_refused() {
        let fits = |width: usize| {
            let trunk = TrunkSpec::ResNet(ResNetSpec { width, stages: [1; 4] });
            let transformer = TransformerSpec::new(trunk.channels(), 0, 1, 0, Activation::Gelu, 1e-5);
            trunk.check(trunk.stride(), &transformer).is_ok()
        };
        // The stem halves the width.
        assert_eq!([0, 1, 2, 64].map(fits), [false, false, true, true]);
    }

    #[test]
    fn maps_shrink_where_a_stage_begins() {
        // ResNet-50 of CLIP.
        let resnet = TrunkSpec::ResNet(ResNetSpec { width: 64, stages: [3, 4, 6, 3] });
        let maps = [0, 1, 3, 4, 7, 8, 13, 14, 16].map(|block| resnet.map(224, block));
        let expected =
            [[56, 64], [56, 256], [56, 256], [28, 512], [28, 512], [14, 1024], [14, 1024], [7, 2048], [7, 2048]];
        assert_eq!(maps, expected);
        let block = |outer: usize, stride: usize, centred: bool| InvertedSpec {
            inner: 8,
            outer,
            squeezed: 2,
            side: 3,
            stride,
            centred,
            residual: false,
        };
        let blocks = vec![block(16, 1, false), block(24, 2, false), block(40, 2, true)];
        let net = TrunkSpec::EfficientNet(EfficientNetSpec { stem: 32, blocks, pool: MapPool::Mean });
        assert_eq!([0, 1, 2, 3].map(|block| net.map(290, block)), [[145, 32], [145, 16], [72, 24], [36, 40]]);
        assert_eq!((resnet.blocks(), net.blocks()), (16, 3));
        // Block 3 of the ResNet: 256 to 128 channels at 56 x 56, 128 to 128 by 3 x 3, then 128 to 512 and 256 to 512 at
        // 28 x 28.
        assert_eq!(resnet.products(224, 3), 3136 * 128 * (256 + 9 * 128) + 784 * (128 + 256) * 512);
        // 16 to 8 channels at 145 x 145, each of 8 by 3 x 3, 8 to 24 at 72 x 72, and 8 to 2 to 8 once.
        assert_eq!(net.products(290, 1), 21025 * 16 * 8 + 5184 * 8 * (9 + 24) + 32);
    }
}
