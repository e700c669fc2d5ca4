//! One method on the tiny backbone, fresh or with random non-zero values in place of training.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use inarch_core::Seed;
use inarch_core::backbone::{Frozen, Pass, Sites as _, normalise};
use inarch_peft::{Adapter, Artifact, Classifier, CoopConfig, METHODS, MethodConfig, Provenance};

use crate::support::{classes, plain, randomised, templates, tiny};

/// Every method with its preset, where that fits the tiny backbone.
pub(super) fn methods() -> Vec<MethodConfig> {
    let preset = |name: &&str| match MethodConfig::preset(name).expect("a preset for every method") {
        // Sixteen tokens would leave no room for a class name in a context of twenty.
        MethodConfig::Coop(config) => MethodConfig::Coop(CoopConfig { context: 4, ..config }),
        other => other,
    };
    METHODS.iter().map(preset).collect()
}

/// The zero-shot class features.
pub(super) fn class_features() -> Tensor<2> {
    Classifier::zero_shot(tiny(), &classes(), &templates()).expect("plain names").features(&Frozen)
}

pub(super) fn fresh(config: &MethodConfig, seed: u64, device: &Device) -> Adapter {
    config.init(tiny(), &class_features(), Seed::new(seed), device).expect("a valid setting")
}

/// An adapter that has something to say.
pub(super) fn trained(config: &MethodConfig, device: &Device) -> Adapter {
    randomised(fresh(config, 1, device), 0.3, device)
}

/// A trained adapter as an artifact.
pub(super) fn artifact(config: &MethodConfig) -> Artifact {
    let metrics = BTreeMap::from([("accuracy".to_string(), 1.0 / 3.0)]);
    let provenance = Provenance { classes: classes(), templates: templates(), data: None, metrics };
    Artifact::new(trained(config, &plain()), config.clone(), tiny(), provenance).expect("plain names")
}

/// Scores of images for some classes, as the adapter gives them.
pub(super) fn scores(
    config: &MethodConfig,
    adapter: &Adapter,
    classes: &[String],
    pixels: Tensor<4>,
    pass: &Pass<'_>,
) -> Tensor<2> {
    let trained = crate::support::classes();
    let classifier =
        Classifier::adapted(tiny(), config, &trained, classes, &templates()).expect("classes of this adapter");
    let image = tiny().encode_image(pixels, adapter, pass);
    let condition = normalise(image.clone());
    let pass = Pass { condition: adapter.conditions_text().then_some(&condition), ..*pass };
    let text = classifier.text(classifier.start(adapter), adapter, &pass);
    classifier.logits(&image, &text, adapter, &pass)
}
