//! Tip-Adapter (Zhang et al., 2022, arXiv 2207.09519): a cache of training features votes at the logits site.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use inarch_core::backbone::{Entry, Pass, Scores, Sites, Stack, Tower, normalise, values};
use inarch_peft::{Classifier, LinearProbeConfig, MethodConfig};

use super::cocoop::Cocoop;
use crate::support::{classes, close, differs, learned, pixels, plain, same, templates, tiny};

const ALPHA: f64 = 1.5;
const BETA: f64 = 5.5;
const SHOTS: usize = 2;

#[derive(Module, Debug)]
pub(super) struct Tip {
    /// Training features, `[classes * shots, dim]`, class-major.
    keys: Param<Tensor<2>>,
}

impl Tip {
    pub(super) fn random(device: &Device) -> Self {
        Self { keys: learned("tip.keys", [classes().len() * SHOTS, tiny().spec().dim], 1.0, device) }
    }

    /// One-hot labels `[classes * shots, columns]`, the columns being those classes that the pass scores.
    fn labels(&self, pass: &Pass<'_>, columns: usize) -> Tensor<2> {
        let scored: Vec<usize> = pass.classes.map_or_else(|| (0..columns).collect(), <[usize]>::to_vec);
        let rows = classes().len() * SHOTS;
        let labels: Vec<f32> = (0..rows)
            .flat_map(|row| scored.iter().map(move |class| if row / SHOTS == *class { 1.0 } else { 0.0 }))
            .collect();
        Tensor::from_data(TensorData::new(labels, [rows, columns]), &plain())
    }
}

impl Sites for Tip {
    fn entry(&self, _tower: Tower) -> Entry {
        Entry::Never
    }

    fn logits(&self, scores: Scores<'_>, pass: &Pass<'_>) -> Tensor<2> {
        let affinity = scores.image.clone().matmul(normalise(self.keys.val()).transpose());
        let votes = ((affinity - 1.0) * BETA).exp();
        let [_, columns] = scores.logits.dims();
        scores.logits + votes.matmul(self.labels(pass, columns)) * ALPHA
    }
}

/// The votes of one image for each class, by hand.
fn votes(image: &[f32], keys: &[f32]) -> Vec<f64> {
    let unit = |row: &[f32]| -> Vec<f64> {
        let length = row.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
        row.iter().map(|value| f64::from(*value) / length).collect()
    };
    let image = unit(image);
    let mut votes = vec![0.0; classes().len()];
    for (row, key) in keys.chunks(image.len()).enumerate() {
        let affinity: f64 = unit(key).iter().zip(&image).map(|(key, image)| key * image).sum();
        votes[row / SHOTS] += ALPHA * (-BETA * (1.0 - affinity)).exp();
    }
    votes
}

#[test]
fn the_cache_votes_as_computed_by_hand() {
    let tip = Tip::random(&plain());
    let classifier = Classifier::zero_shot(tiny(), &classes(), &templates()).expect("plain names");
    let pass = Pass::evaluate();
    let image = tiny().encode_image(pixels(3), &tip, &pass);
    let text = classifier.features(&tip);
    let plain = tiny().similarity(&image, &text, &inarch_core::backbone::Frozen, &pass);
    let found = classifier.logits(&image, &text, &tip, &pass);
    differs("votes", found.clone(), plain.clone());

    let keys = values(tip.keys.val());
    let dim = tiny().spec().dim;
    let votes = values(image).chunks(dim).flat_map(|image| votes(image, &keys)).collect::<Vec<_>>();
    let expected: Vec<f32> = values(plain).iter().zip(votes).map(|(plain, votes)| plain + votes as f32).collect();
    close("scores", &values(found), &expected, 1e-5);
}

#[test]
fn the_site_is_met_behind_an_image_conditioned_prompt() {
    let (tip, cocoop) = (Tip::random(&plain()), Cocoop::random(&plain()));
    let stack = Stack(vec![&cocoop, &tip]);
    let classifier = Classifier::zero_shot(tiny(), &classes(), &templates()[..1]).expect("plain names");
    let image = tiny().encode_image(pixels(3), &stack, &Pass::evaluate());
    let condition = normalise(image.clone());
    let pass = Pass { condition: Some(&condition), ..Pass::evaluate() };
    let text = classifier.text(classifier.start(&stack), &stack, &pass);
    let both = classifier.logits(&image, &text, &stack, &pass);
    let prompt = classifier.logits(&image, &text, &cocoop, &pass);
    let zero = Tensor::zeros_like(&prompt);
    let votes = tip.logits(
        Scores { feature: &condition, image: &condition, text: &text, logits: zero, scale: 1.0, offset: 0.0 },
        &pass,
    );
    same("scores", both, prompt + votes, 1e-5);
}

#[test]
fn a_subset_of_the_classes_in_another_order_gets_its_own_votes() {
    let tip = Tip::random(&plain());
    // A method with a row for each class, as a cache is.
    let bound = MethodConfig::LinearProbe(LinearProbeConfig::default());
    let image = tiny().encode_image(pixels(3), &tip, &Pass::evaluate());
    let scores = |classes: &[String]| {
        let classifier = Classifier::adapted(tiny(), &bound, &crate::support::classes(), classes, &templates());
        let classifier = classifier.expect("known classes");
        classifier.logits(&image, &classifier.features(&tip), &tip, &Pass::evaluate())
    };
    let all = scores(&classes());
    let order = [2, 0];
    let subset: Vec<String> = order.iter().map(|at| classes()[*at].clone()).collect();
    let expected = Tensor::cat(order.iter().map(|at| all.clone().narrow(1, *at, 1)).collect(), 1);
    same("subset", scores(&subset), expected, 1e-5);
}
