//! DoRA (Liu et al., 2024, arXiv 2402.09353): `W' = m (W + s A B) / ||W + s A B||`, lengths taken over each column of
//! burn's `[d_input, d_output]`, that is for each output. It needs the frozen weight itself, not only its product.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{Device, Tensor};
use inarch_core::backbone::{Entry, Frozen, LinearBase, LinearSite, Pass, Sites, Tower, values};
use inarch_peft::{LinearSites, all_sites};

use crate::support::{differs, features, layer_name, learned, plain, product, rebuilt, rows_of, same_features, tiny};

const RANK: usize = 3;
const SCALE: f64 = 0.7;

#[derive(Module, Debug)]
pub(super) struct Direction {
    a: Param<Tensor<2>>,
    b: Param<Tensor<2>>,
    magnitude: Param<Tensor<1>>,
}

impl Direction {
    /// The update, `[d_input, d_output]`.
    fn update(&self) -> Tensor<2> {
        self.a.val().matmul(self.b.val()) * SCALE
    }

    /// What each output of `W + s A B` is multiplied with, `[1, d_output]`.
    fn gain(&self, layer: &Linear) -> Tensor<2> {
        let length = (layer.weight.val() + self.update()).powf_scalar(2.0).sum_dim(0).sqrt();
        self.magnitude.val().unsqueeze::<2>() / length
    }
}

#[derive(Module, Debug)]
pub(super) struct Dora {
    sites: LinearSites<Direction>,
}

impl Dora {
    pub(super) fn random(device: &Device) -> Self {
        Self::make(|name, [inputs, outputs]| Direction {
            a: learned(&format!("{name}.a"), [inputs, RANK], 0.3, device),
            b: learned(&format!("{name}.b"), [RANK, outputs], 0.3, device),
            magnitude: learned(&format!("{name}.m"), [outputs], 1.0, device),
        })
    }

    /// As the paper starts: no update, lengths those of the frozen weight.
    fn fresh() -> Self {
        let device = plain();
        let sites = ["*.q_proj", "*.fc2"].map(String::from);
        let sites = LinearSites::select(tiny(), &sites, |site, [inputs, outputs]| {
            let weight = tiny().linear(site).expect("a selected site").weight.val();
            let length = weight.powf_scalar(2.0).sum_dim(0).sqrt().reshape([outputs]);
            Ok(Direction {
                a: learned("a", [inputs, RANK], 0.3, &device),
                b: Param::from_tensor(Tensor::zeros([RANK, outputs], &device)),
                magnitude: Param::from_tensor(length),
            })
        });
        Self { sites: sites.expect("sites of every backbone") }
    }

    fn make(mut one: impl FnMut(String, [usize; 2]) -> Direction) -> Self {
        let patterns = ["*.v_proj", "image.blocks.1.fc1", "*.projection"].map(String::from);
        let sites = LinearSites::select(tiny(), &patterns, |site, shape| Ok(one(site.to_string(), shape)));
        Self { sites: sites.expect("sites of every backbone") }
    }
}

impl Sites for Dora {
    fn folds(&self) -> bool {
        true
    }

    fn entry(&self, tower: Tower) -> Entry {
        self.sites.entry(tower)
    }

    fn linear(&self, base: LinearBase<'_>, input: Tensor<3>, _pass: &Pass<'_>) -> Tensor<3> {
        let Some(direction) = self.sites.get(base.at) else { return base.forward(input) };
        let frozen = base.forward(input.clone());
        let update = input.matmul(direction.a.val().unsqueeze()).matmul(direction.b.val().unsqueeze()) * SCALE;
        let gain = direction.gain(base.layer).unsqueeze::<3>();
        match base.layer.bias.as_ref().map(|bias| bias.val().unsqueeze::<3>()) {
            // The bias is no part of the direction.
            Some(bias) => (frozen - bias.clone() + update) * gain + bias,
            None => (frozen + update) * gain,
        }
    }

    fn fold(&self, at: LinearSite, layer: &Linear) -> Option<Linear> {
        let direction = self.sites.get(at)?;
        let weight = (layer.weight.val() + direction.update()) * direction.gain(layer);
        Some(Linear { weight: Param::from_tensor(weight), bias: layer.bias.clone() })
    }
}

#[test]
fn a_fresh_one_is_the_frozen_backbone() {
    same_features("fresh", features(tiny(), &Dora::fresh()), features(tiny(), &Frozen), 1e-5);
}

#[test]
fn it_equals_the_composed_weights() {
    let dora = Dora::random(&plain());
    let composed = rebuilt(|tensors| {
        for site in all_sites(tiny()) {
            let Some(direction) = dora.sites.get(site) else { continue };
            let (a, b) = (rows_of(direction.a.val()), rows_of(direction.b.val()));
            let update = product(&a, &b);
            let magnitude = values(direction.magnitude.val());
            let weight = tensors.get_mut(&format!("{}.weight", layer_name(site))).expect("a canonical name");
            let inputs = weight.shape[1];
            for (output, row) in weight.data.chunks_mut(inputs).enumerate() {
                let moved: Vec<f64> =
                    row.iter().enumerate().map(|(at, value)| f64::from(*value) + SCALE * update[at][output]).collect();
                let length = moved.iter().map(|value| value * value).sum::<f64>().sqrt();
                for (value, moved) in row.iter_mut().zip(moved) {
                    *value = (f64::from(magnitude[output]) * moved / length) as f32;
                }
            }
        }
    });
    let found = features(tiny(), &dora);
    same_features("composed", found.clone(), features(&composed, &Frozen), 1e-5);
    same_features("folded", features(&tiny().fold(&dora).expect("folds"), &Frozen), found.clone(), 1e-5);
    let [image, text] = features(tiny(), &Frozen);
    let [found_image, found_text] = found;
    differs("image", found_image, image);
    differs("text", found_text, text);
}

#[test]
fn over_another_weight_update_it_must_be_folded() {
    // In a stack DoRA reads the frozen weight, not the sum below it: its lengths are those of `W + s A B` alone. The
    // folded copy takes the lengths of the whole sum. This is why the two are equal only with DoRA innermost.
    let dora = Dora::random(&plain());
    let other = super::fold::lora(&["*.v_proj"], &plain());
    let inner = inarch_core::backbone::Stack(vec![&dora, &other]);
    same_features("innermost", features(&tiny().fold(&inner).expect("folds"), &Frozen), features(tiny(), &inner), 1e-5);
    let outer = inarch_core::backbone::Stack(vec![&other, &dora]);
    let [folded, _] = features(&tiny().fold(&outer).expect("folds"), &Frozen);
    let [unfolded, _] = features(tiny(), &outer);
    differs("outermost", folded, unfolded);
}
