//! How an adapter starts.

use inarch_core::backbone::{Frozen, Pass};
use inarch_core::text::Template;
use inarch_peft::{Adapter, Classifier, CoopConfig, Error, LoraConfig, MethodConfig};

use super::case::{fresh, methods, scores};
use crate::support::{classes, differs, pixels, plain, same, templates, tiny};

/// Scores without any adapter.
fn zero_shot(templates: &[Template]) -> burn::tensor::Tensor<2> {
    let classifier = Classifier::zero_shot(tiny(), &classes(), templates).expect("plain names");
    let image = tiny().encode_image(pixels(3), &Frozen, &Pass::evaluate());
    classifier.logits(&image, &classifier.features(&Frozen), &Frozen, &Pass::evaluate())
}

#[test]
fn a_fresh_adapter_scores_as_zero_shot() {
    for config in methods() {
        let (config, templates) = match config {
            // A random context is no prompt of anyone's; a context of words is that very prompt.
            MethodConfig::Coop(coop) => {
                let words = CoopConfig { words: "a photo of a".into(), ..coop };
                (MethodConfig::Coop(words), vec![Template::new("a photo of a {}.").expect("one place")])
            }
            other => (other, templates()),
        };
        let found = scores(&config, &fresh(&config, 1, &plain()), &classes(), pixels(3), &Pass::evaluate());
        same(config.name(), found, zero_shot(&templates), 1e-6);
    }
}

#[test]
fn random_values_are_no_zero_shot() {
    // Guards the other laws, which would hold for an adapter that is never asked.
    for config in methods() {
        let adapter = super::case::trained(&config, &plain());
        let found = scores(&config, &adapter, &classes(), pixels(3), &Pass::evaluate());
        differs(config.name(), found, zero_shot(&templates()));
    }
}

#[test]
fn one_seed_gives_one_adapter_and_another_seed_another() {
    for config in methods() {
        let parameters = |seed: u64| fresh(&config, seed, &plain()).parameters();
        assert_eq!(parameters(1), parameters(1), "{}", config.name());
        let drawn = match &config {
            MethodConfig::LinearProbe(_) => false,
            MethodConfig::Coop(coop) => coop.words.is_empty(),
            MethodConfig::Lora(_) => true,
        };
        assert_eq!(parameters(1) != parameters(2), drawn, "{}", config.name());
    }
}

#[test]
fn the_number_of_trained_values_is_the_documented_one() {
    let spec = tiny().spec();
    for config in methods() {
        let expected = match &config {
            MethodConfig::LinearProbe(_) => classes().len() * spec.dim,
            MethodConfig::Coop(coop) => coop.context * spec.text.transformer.width,
            MethodConfig::Lora(lora) => [&spec.image.transformer, &spec.text.transformer]
                .map(|tower| tower.depth * lora.targets.len() * lora.rank * (tower.width + tower.width))
                .iter()
                .sum(),
        };
        let adapter = fresh(&config, 1, &plain());
        assert_eq!(adapter.trainable(), expected, "{}", config.name());
        assert_eq!(burn::module::Module::num_params(&adapter), expected, "{}", config.name());
    }
}

#[test]
fn a_setting_outside_its_domain_is_refused_by_name() {
    let lora = |change: fn(&mut LoraConfig)| {
        let mut config = LoraConfig::default();
        change(&mut config);
        MethodConfig::Lora(config)
    };
    let coop = |context: usize| MethodConfig::Coop(CoopConfig { context, words: String::new() });
    for (config, setting) in [
        (lora(|config| config.rank = 0), "rank"),
        (lora(|config| config.rank = 1_000_000_000_000), "rank"),
        (lora(|config| config.dropout = 1.0), "dropout"),
        (lora(|config| config.dropout = f64::NAN), "dropout"),
        (lora(|config| config.targets.clear()), "targets"),
        (coop(0), "context"),
        (coop(17), "context"),
        (coop(1_000_000_000_000), "context"),
    ] {
        let result = config.init(tiny(), &super::case::class_features(), inarch_core::Seed::new(1), &plain());
        match result.map(|adapter: Adapter| adapter.trainable()) {
            Err(Error::Setting { setting: found, .. }) => assert_eq!(found, setting),
            other => panic!("`{setting}` of {config:?}: {other:?}"),
        }
    }
    let config = lora(|config| config.targets = vec!["*.q_proj".into(), "*.query".into()]);
    let result = config.init(tiny(), &super::case::class_features(), inarch_core::Seed::new(1), &plain());
    let message = result.expect_err("a target that selects nothing").to_string();
    assert!(message.contains("`*.query`") && message.contains("image.blocks.0.q_proj"), "{message}");
}
