//! Training passes can be repeated, evaluation draws nothing, and gradients change no value.

use inarch_core::Seed;
use inarch_core::backbone::{Entry, Pass, Products, Sites as _, Tower, values};
use inarch_peft::MethodConfig;
use serde_json::Value;

use super::case::{methods, scores, trained};
use crate::support::{classes, close, differs, pixels, plain, same, tracked};

#[test]
fn a_step_repeats_exactly() {
    for config in methods() {
        let adapter = trained(&config, &plain());
        let step = |seed: u64| scores(&config, &adapter, &classes(), pixels(3), &Pass::train(Seed::new(seed)));
        same(config.name(), step(1), step(1), 0.0);
        if matches!(&config, MethodConfig::Lora(lora) if lora.dropout > 0.0) {
            differs("dropout", step(1), step(2));
        }
    }
}

/// Sets every dropout among the settings, also those of members, to zero.
fn without_dropout(settings: &mut Value) {
    match settings {
        Value::Object(map) => map.iter_mut().for_each(|(key, value)| match key.as_str() {
            "dropout" => *value = 0.0.into(),
            _ => without_dropout(value),
        }),
        Value::Array(list) => list.iter_mut().for_each(without_dropout),
        _ => {}
    }
}

/// Methods that are not the same in training: there is noise on the gates of experts, and all images are of the last
/// experience.
const OTHERWISE_IN_TRAINING: &[&str] = &["moe-adapters"];

#[test]
fn a_training_pass_without_dropout_is_an_evaluation() {
    for config in methods() {
        let mut settings = serde_json::to_value(&config).expect("plain data");
        without_dropout(&mut settings);
        let config: MethodConfig = serde_json::from_value(settings).expect("the same settings");
        let adapter = trained(&config, &plain());
        let score = |pass: &Pass<'_>| scores(&config, &adapter, &classes(), pixels(3), pass);
        let [training, evaluation] = [Pass::train(Seed::new(1)), Pass::evaluate()].map(|pass| score(&pass));
        match OTHERWISE_IN_TRAINING.contains(&config.name()) {
            true => differs(config.name(), training, score(&Pass::train(Seed::new(2)))),
            false => same(config.name(), training, evaluation, 0.0),
        }
    }
}

#[test]
fn products_of_fewer_digits_are_near_to_those_of_all() {
    for config in methods() {
        let adapter = trained(&config, &plain());
        let score = |products| {
            let pass = Pass { products, ..Pass::evaluate() };
            values(scores(&config, &adapter, &classes(), pixels(3), &pass))
        };
        let (full, reduced) = (score(Products::Full), score(Products::Bf16));
        close(config.name(), &reduced, &full, 0.1);
        // What comes before an adapter is frozen work that may be shared, in all digits.
        let enters = [Tower::Image, Tower::Text].into_iter().any(|tower| adapter.entry(tower) < Entry::Head);
        assert!(full != reduced || !enters, "{}", config.name());
    }
}

#[test]
fn dropout_keeps_the_mean() {
    // Averaged over many masks, the update of a linear site is the update without dropout.
    let config = MethodConfig::preset("lora").expect("a preset");
    let adapter = trained(&config, &plain());
    let score = |pass: &Pass<'_>| scores(&config, &adapter, &classes(), pixels(2), pass);
    let steps = 200;
    let mut sum = score(&Pass::train(Seed::new(0)));
    for step in 1..steps {
        sum = sum + score(&Pass::train(Seed::new(step)));
    }
    // The towers are not linear in the update, so the means agree only roughly.
    same("mean of the scores", sum / steps as f64, score(&Pass::evaluate()), 0.1);
}

#[test]
fn the_autodiff_device_gives_the_same_scores() {
    for config in methods() {
        let [on, off] = [tracked(), plain()].map(|device| {
            let adapter = trained(&config, &device);
            scores(&config, &adapter, &classes(), pixels(3), &Pass::evaluate())
        });
        same(config.name(), on.inner(), off, 1e-5);
    }
}
