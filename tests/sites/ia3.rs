//! IA3 (Liu et al., 2022, arXiv 2205.05638): learned gains on keys, on values and on the MLP's hidden values.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{Device, Tensor};
use inarch_core::backbone::{
    BlockSite, Entry, Frozen, LinearBase, LinearSite, Pass, Projection, Sites, StateDict, Tower, values,
};

use crate::support::{differs, features, layer_name, learned, plain, rebuilt, same_features, tiny};

#[derive(Module, Debug)]
struct Gains {
    key: Param<Tensor<1>>,
    value: Param<Tensor<1>>,
    hidden: Param<Tensor<1>>,
}

#[derive(Module, Debug)]
pub(super) struct Ia3 {
    image: Vec<Gains>,
    text: Vec<Gains>,
}

impl Ia3 {
    pub(super) fn random(device: &Device) -> Self {
        let tower = |tower: Tower| {
            let width = tiny().width(tower);
            let gains = |block: usize| {
                let one =
                    |part: &str, size: usize| learned(&format!("ia3.{tower}.{block}.{part}"), [size], 1.0, device);
                Gains { key: one("key", width), value: one("value", width), hidden: one("hidden", 2 * width) }
            };
            (0..tiny().depth(tower)).map(gains).collect()
        };
        Self { image: tower(Tower::Image), text: tower(Tower::Text) }
    }

    /// The gain at a site and whether it is on the output.
    fn gain(&self, at: LinearSite) -> Option<(Tensor<1>, bool)> {
        let LinearSite::Block(BlockSite { tower, block }, projection) = at else { return None };
        let gains = match tower {
            Tower::Image => &self.image[block],
            Tower::Text => &self.text[block],
        };
        match projection {
            Projection::Key => Some((gains.key.val(), true)),
            Projection::Value => Some((gains.value.val(), true)),
            Projection::Down => Some((gains.hidden.val(), false)),
            _ => None,
        }
    }

    /// Writes the gains into canonical weights by hand.
    pub(super) fn compose(&self, tensors: &mut StateDict) {
        for site in inarch_peft::all_sites(tiny()) {
            let Some((gain, output)) = self.gain(site) else { continue };
            let gain = values(gain);
            let name = layer_name(site);
            let weight = tensors.get_mut(&format!("{name}.weight")).expect("a canonical name");
            let inputs = weight.shape[1];
            for (at, value) in weight.data.iter_mut().enumerate() {
                *value *= if output { gain[at / inputs] } else { gain[at % inputs] };
            }
            if output {
                let bias = tensors.get_mut(&format!("{name}.bias")).expect("a canonical name");
                bias.data.iter_mut().zip(gain).for_each(|(value, gain)| *value *= gain);
            }
        }
    }
}

impl Sites for Ia3 {
    fn folds(&self) -> bool {
        true
    }

    fn entry(&self, _tower: Tower) -> Entry {
        Entry::Block(0)
    }

    fn linear(&self, base: LinearBase<'_>, input: Tensor<3>, _pass: &Pass<'_>) -> Tensor<3> {
        match self.gain(base.at) {
            None => base.forward(input),
            Some((gain, true)) => base.forward(input) * gain.unsqueeze::<3>(),
            Some((gain, false)) => base.forward(input * gain.unsqueeze::<3>()),
        }
    }

    fn fold(&self, at: LinearSite, layer: &Linear) -> Option<Linear> {
        let (gain, output) = self.gain(at)?;
        let weight = layer.weight.val();
        Some(if output {
            let bias = layer.bias.as_ref().map(|bias| Param::from_tensor(bias.val() * gain.clone()));
            Linear { weight: Param::from_tensor(weight * gain.unsqueeze::<2>()), bias }
        } else {
            let weight = Param::from_tensor(weight * gain.unsqueeze_dim::<2>(1));
            Linear { weight, bias: layer.bias.clone() }
        })
    }
}

#[test]
fn it_equals_the_composed_weights() {
    let ia3 = Ia3::random(&plain());
    let composed = rebuilt(|tensors| ia3.compose(tensors));
    let found = features(tiny(), &ia3);
    same_features("composed", found.clone(), features(&composed, &Frozen), 1e-5);
    same_features("folded", features(&tiny().fold(&ia3).expect("folds"), &Frozen), found.clone(), 1e-5);
    assert_eq!(tiny().fold(&ia3).expect("folds").spec(), composed.spec());
    let [image, _] = features(tiny(), &Frozen);
    let [found, _] = found;
    differs("image", found, image);
}
