//! What stands in place of patches in some image towers: a convolutional trunk.

use serde::{Deserialize, Serialize};

use super::efficient_net::EfficientNetSpec;
use super::resnet::{ResNetSpec, STRIDE};
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
                let blocks: usize = spec.stages.iter().sum();
                spec.width <= 1 << 10 && !spec.stages.contains(&0) && blocks <= 1 << 8
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
