//! The pointwise convolutions of a trunk: linear layers over the channels of each place of a map.

use burn::module::Param;
use burn::nn::Linear;
use burn::tensor::Tensor;

use super::pass::Pass;
use super::place::LinearSite;
use super::resnet::Convolution;
use super::site::{Base, LinearChange, Sites};

/// Which 1 x 1 convolution of a trunk's block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pointwise {
    /// Of a ResNet: to the inner channels.
    First,
    /// Of a ResNet: to the outer channels.
    Third,
    /// Of a ResNet: on the shortcut, where it changes shape.
    Downsample,
    /// Of an EfficientNet: to the inner channels.
    Expand,
    /// Of an EfficientNet: over the mean of the map, to the squeezed channels.
    Reduce,
    /// Of an EfficientNet: to a weight for each inner channel.
    Excite,
    /// Of an EfficientNet: to the outer channels.
    Project,
}

impl Pointwise {
    /// All, in the order in which data meets them.
    pub const ALL: [Self; 7] =
        [Self::First, Self::Third, Self::Downsample, Self::Expand, Self::Reduce, Self::Excite, Self::Project];

    /// The field's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::First => "conv1",
            Self::Third => "conv3",
            Self::Downsample => "downsample",
            Self::Expand => "expand",
            Self::Reduce => "reduce",
            Self::Excite => "excite",
            Self::Project => "project",
        }
    }
}

/// A pointwise convolution of the image tower's trunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TrunkSite {
    /// The block of the trunk, counted from 0 through all its stages.
    pub block: usize,
    /// Which of its layers.
    pub layer: Pointwise,
}

impl TrunkSite {
    /// Layer `layer` of block `block`.
    pub fn new(block: usize, layer: Pointwise) -> Self {
        Self { block, layer }
    }
}

/// What a block of a trunk must know beside its weights.
#[derive(Clone, Copy)]
pub(super) struct TrunkContext<'a> {
    pub(super) block: usize,
    pub(super) sites: &'a dyn Sites,
    pub(super) pass: &'a Pass<'a>,
}

impl TrunkContext<'_> {
    /// Runs a pointwise convolution through its site: a map `[batch, channels, height, width]` to one of as many
    /// places.
    ///
    /// The frozen layer is the plain convolution whatever stands around it, and where nothing does the map keeps its
    /// layout.
    pub(super) fn pointwise(self, layer: Pointwise, convolution: &Convolution, map: Tensor<4>) -> Tensor<4> {
        let Self { block, sites, pass } = self;
        let at = LinearSite::Trunk(TrunkSite { block, layer });
        if !sites.touched().linear || matches!(sites.linear_change(at), LinearChange::None) {
            return convolution.forward(map, 1);
        }
        let [_, _, height, width] = map.dims();
        let next = |places: Tensor<3>| as_places(convolution.forward(as_map(places, [height, width]), 1));
        let frozen = convolution.as_linear();
        as_map(sites.linear(Base::new(at, &frozen, &next), as_places(map), pass), [height, width])
    }
}

impl Convolution {
    /// The same layer over the channels of a place, of a 1 x 1 convolution.
    pub(super) fn as_linear(&self) -> Linear {
        let weight = self.weight.val();
        let [outputs, inputs, _, _] = weight.dims();
        let weight = Param::from_tensor(weight.reshape([outputs, inputs]).transpose());
        Linear { weight, bias: Some(self.bias.clone()) }
    }

    /// Takes on the weights of such a layer.
    pub(super) fn take(&mut self, layer: Linear) {
        let weight = layer.weight.val();
        let [inputs, outputs] = weight.dims();
        self.weight = Param::from_tensor(weight.transpose().reshape([outputs, inputs, 1, 1]));
        if let Some(bias) = layer.bias {
            self.bias = bias;
        }
    }
}

/// A map `[batch, channels, height, width]` as its places, row by row: `[batch, places, channels]`.
pub(super) fn as_places(map: Tensor<4>) -> Tensor<3> {
    let [batch, channels, height, width] = map.dims();
    map.reshape([batch, channels, height * width]).swap_dims(1, 2)
}

/// Places `[batch, places, channels]` as the map of so many rows and columns.
pub(super) fn as_map(places: Tensor<3>, [height, width]: [usize; 2]) -> Tensor<4> {
    let [batch, _, channels] = places.dims();
    places.swap_dims(1, 2).reshape([batch, channels, height, width])
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::module::Param;
    use burn::tensor::{Device, Tensor, TensorData};

    use super::super::pass::Pass;
    use super::super::place::{Entry, Tower};
    use super::super::resnet::Convolution;
    use super::super::site::{LinearBase, Sites};
    use super::super::state_dict::values;
    use super::{Pointwise, TrunkContext, as_map, as_places};

    fn convolution(device: &Device) -> Convolution {
        let mut layer = Convolution::zeros(2, 3, 1, device);
        let mut linear = layer.as_linear();
        let weight = TensorData::new(vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], [2, 3]);
        linear.weight = Param::from_tensor(Tensor::from_data(weight, device));
        layer.take(linear);
        layer
    }

    fn map(device: &Device) -> Tensor<4> {
        Tensor::from_data(TensorData::new((0..8).map(|value| value as f32).collect::<Vec<_>>(), [1, 2, 2, 2]), device)
    }

    #[test]
    fn the_linear_layer_of_a_convolution_gives_its_places() {
        let device = Device::flex();
        let layer = convolution(&device);
        // Place 1 has the channels 1 and 5: 1 * 1 + 5 * 4, 1 * 2 + 5 * 5, 1 * 3 + 5 * 6.
        let places = as_places(layer.forward(map(&device), 1));
        assert_eq!(values(places.clone().narrow(1, 1, 1)), [21.0, 27.0, 33.0]);
        assert_eq!(values(layer.as_linear().forward(as_places(map(&device)))), values(places.clone()));
        assert_eq!(values(as_places(as_map(places.clone(), [2, 2]))), values(places));
    }

    /// Adds one at every linear site.
    struct PlusOne;

    impl Sites for PlusOne {
        fn entry(&self, _tower: Tower) -> Entry {
            Entry::Trunk(0)
        }

        fn linear(&self, base: LinearBase<'_>, input: Tensor<3>, _pass: &Pass<'_>) -> Tensor<3> {
            assert_eq!(base.at.to_string(), "image.trunk.blocks.4.downsample");
            base.forward(input) + 1.0
        }
    }

    #[test]
    fn a_site_is_given_places_and_gives_a_map() {
        let device = Device::flex();
        let layer = convolution(&device);
        let context = TrunkContext { block: 4, sites: &PlusOne, pass: &Pass::evaluate() };
        let found = context.pointwise(Pointwise::Downsample, &layer, map(&device));
        assert_eq!(values(found), values(layer.forward(map(&device), 1) + 1.0));
    }
}
