//! Methods beside backbones that differ from CLIP: one tower, a text that no token begins, blocks that normalise afterwards.

use burn::tensor::Tensor;
use burn::tensor::activation::softmax;
use inarch_core::Seed;
use inarch_core::backbone::{Backbone, Frozen, Pass, Tower, normalise, values};
use inarch_core::text::Template;
use inarch_peft::{Adapter, Classifier, MethodConfig, Start, Support, Words};

use super::Case;
use crate::contract::case::{configured, methods};
use crate::support::{plain, randomised, same};

const CLASSES: [&str; 3] = ["cat", "dog", "mat"];

pub(super) fn classes() -> Vec<String> {
    CLASSES.map(String::from).to_vec()
}

pub(super) fn templates() -> Vec<Template> {
    vec![Template::new("a photo of a {}.").expect("a template")]
}

/// Members of a fusion in the text tower.
const TEXT_FUSION: &str = "members = [{ name = \"lora\", targets = [\"text.*.q_proj\"] }, \
                           { name = \"ia3\", targets = [\"text.*.k_proj\"], inputs = [] }]";

/// A method that fits towers this small.
fn fitted(config: MethodConfig) -> MethodConfig {
    match config.name() {
        "coop" => configured("coop", "context = 2"),
        "cocoop" => configured("cocoop", "context = 2\nreduction = 4"),
        "proda" => configured("proda", "prompts = 4\ncontext = 2"),
        "oft" => configured("oft", "block = 6"),
        "boft" => configured("boft", "block = 6\nfactors = 1"),
        "dual-prompt" => configured("dual-prompt", "general = 1"),
        "compacter" => configured("compacter", "products = 2"),
        // Not every tower has offsets of queries, keys and values.
        "bitfit" => configured("bitfit", "linear = [\"*.out_proj\", \"*.fc1\", \"*.fc2\"]"),
        _ => config,
    }
}

/// A fresh adapter with two support images of each class.
pub(super) fn fresh(config: &MethodConfig, backbone: &Backbone) -> inarch_peft::Result<Adapter> {
    let size = backbone.spec().image.size;
    let pixels = crate::support::draws("family support", [6, 3, size, size], 1.0, &plain());
    let features = backbone.encode_image(pixels.clone(), &Frozen, &Pass::evaluate());
    let class_features = match backbone.has_words() {
        true => Classifier::zero_shot(backbone, &classes(), &templates())?.features(&Frozen),
        false => normalise(features.clone()).reshape([3, 2, backbone.spec().dim]).mean_dim(1).squeeze_dim::<2>(1),
    };
    let visit = |take: &mut dyn FnMut(Tensor<4>)| {
        take(pixels.clone());
        Ok(())
    };
    let support = Support { features, views: 1, labels: &[0, 0, 1, 1, 2, 2], pixels: Some(&visit) };
    let device = plain();
    let start = Start::new(backbone, &class_features, Seed::new(1), &device);
    config.init(&Start { support: config.needs_support().then_some(&support), ..start })
}

fn scores(backbone: &Backbone, config: &MethodConfig, adapter: &Adapter, pixels: Tensor<4>) -> Tensor<2> {
    let sites = adapter.sites();
    let image = backbone.encode_image(pixels, sites, &Pass::evaluate());
    let classifier = Classifier::adapted(backbone, config, &classes(), &classes(), &templates()).expect("classes");
    let condition = normalise(image.clone());
    let pass = Pass { condition: sites.conditions_text().then_some(&condition), ..Pass::evaluate() };
    let text = classifier.text(classifier.start(sites), sites, &pass);
    classifier.logits(&image, &text, sites, &pass)
}

#[test]
fn every_method_that_needs_no_words_works_on_an_image_tower_alone() {
    for name in ["vit", "deit", "dinov2", "vit_pytorch"] {
        let case = Case::open(name);
        let backbone = &case.backbone;
        for config in methods() {
            let config = fitted(config).resolved(backbone).expect("settings");
            let what = format!("{} on {name}", config.name());
            if config.words() == Words::Needed {
                let refused = fresh(&config, backbone).expect_err(&what).to_string();
                assert!(refused.contains("image tower only"), "{what}: {refused}");
                continue;
            }
            assert_eq!(config.words(), Words::Replaced, "{what}: nothing tells its classes");
            let adapter = fresh(&config, backbone).unwrap_or_else(|error| panic!("{what}: {error}"));
            let adapter = randomised(adapter, 0.3, &plain());
            let whole = scores(backbone, &config, &adapter, case.pixels());
            for image in 0..3 {
                let one = scores(backbone, &config, &adapter, case.pixels().narrow(0, image, 1));
                same(&what, one, whole.clone().narrow(0, image, 1), 1e-4);
            }
        }
    }
}

#[test]
fn every_method_starts_as_zero_shot_on_two_other_towers_or_says_why_not() {
    for name in ["siglip", "biomed", "align", "resnet"] {
        starts_as_zero_shot(&Case::open(name));
    }
}

fn starts_as_zero_shot(case: &Case) {
    let backbone = &case.backbone;
    let mut refused = Vec::new();
    for config in methods() {
        let config = match config.name() {
            "coop" => configured("coop", "words = \"a photo of a\""),
            "oft" => {
                configured("oft", if ["biomed", "resnet"].contains(&case.name) { "block = 8" } else { "block = 6" })
            }
            "boft" if ["biomed", "resnet"].contains(&case.name) => configured("boft", "block = 8"),
            // Those of the preset stand in the image tower.
            "stack" | "fusion" if backbone.depth(Tower::Image) == 0 => {
                let members =
                    "members = [{ name = \"lora\", targets = [\"text.*.q_proj\"] }, { name = \"linear-probe\" }]";
                configured(config.name(), if config.name() == "stack" { members } else { TEXT_FUSION })
            }
            _ => fitted(config),
        };
        let what = format!("{} on {}", config.name(), case.name);
        let convolutional = backbone.depth(Tower::Image) == 0;
        if config.image_blocks() && convolutional {
            let refused = fresh(&config, backbone).expect_err(&what).to_string();
            assert!(refused.contains("transformer blocks in the image tower") && refused.contains("Net"), "{refused}");
            continue;
        }
        if !config.starts_as_zero_shot() && !convolutional {
            continue;
        }
        let adapter = match fresh(&config, backbone) {
            Ok(adapter) => adapter,
            Err(error) => {
                refused.push(format!("{what}: {error}"));
                continue;
            }
        };
        if !config.starts_as_zero_shot() {
            if Classifier::adapted(backbone, &config, &classes(), &classes(), &templates()).is_err() {
                continue; // Its own templates are longer than twelve tokens.
            }
            let found = values(scores(backbone, &config, &adapter, case.pixels()));
            assert!(
                found.len() == 3 * case.pixels().dims()[0] && found.iter().all(|score| score.is_finite()),
                "{what}"
            );
            continue;
        }
        let own = config.templates().expect("templates");
        let templates = if own.is_empty() { templates() } else { own };
        let Ok(classifier) = Classifier::zero_shot(backbone, &classes(), &templates) else {
            continue; // Its own templates are longer than twelve tokens.
        };
        let frozen = backbone.encode_image(case.pixels(), &Frozen, &Pass::evaluate());
        let expected = classifier.logits(&frozen, &classifier.features(&Frozen), &Frozen, &Pass::evaluate());
        // The offset of SigLIP's scores is the same for all classes, and methods that bring their own scores leave it out.
        let found = scores(backbone, &config, &adapter, case.pixels());
        same(&what, softmax(found, 1), softmax(expected, 1), 1e-4);
    }
    // The text tower of this ResNet has one block, and TCP enters behind the first.
    refused.retain(|refusal| !(refusal.starts_with("tcp on resnet") && refusal.contains("at least two blocks")));
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

#[test]
fn every_method_of_layers_starts_as_a_lone_text_tower_and_the_others_say_why_not() {
    for name in ["bert", "minilm"] {
        let case = Case::open(name);
        let (backbone, rows) = (&case.backbone, case.rows());
        let frozen = backbone.encode_text(&rows, &Frozen, &Pass::evaluate());
        let (class_features, device) = (Tensor::ones([CLASSES.len(), backbone.spec().dim], &plain()), plain());
        let mut started = 0;
        for config in methods() {
            let config = fitted(config);
            let what = format!("{} on {name}", config.name());
            if config.black_box() {
                continue; // It enters at features or scores and asks no tower.
            }
            let outcome = config.init(&Start::new(backbone, &class_features, Seed::new(1), &device));
            if !config.either_tower() {
                let refused = outcome.expect_err(&what).to_string();
                assert!(refused.contains("with an image tower") && refused.contains("text tower only"), "{refused}");
                continue;
            }
            let adapter = outcome.unwrap_or_else(|error| panic!("{what}: {error}"));
            same(&what, backbone.encode_text(&rows, adapter.sites(), &Pass::evaluate()), frozen.clone(), 1e-5);
            // With values of its own it changes the features, of a row alone as of a row among others.
            let adapter = randomised(adapter, 0.3, &plain());
            let whole = backbone.encode_text(&rows, adapter.sites(), &Pass::evaluate());
            assert_ne!(values(whole.clone()), values(frozen.clone()), "{what} changes nothing");
            for (at, row) in rows.iter().enumerate() {
                let one = backbone.encode_text(std::slice::from_ref(row), adapter.sites(), &Pass::evaluate());
                same(&what, one, whole.clone().narrow(0, at, 1), 1e-4);
            }
            started += 1;
        }
        assert!(started >= 10, "{name}: {started} methods");
    }
}

#[test]
fn a_folded_adapter_gives_the_features_of_one_that_is_passed_in() {
    for name in ["vit", "dinov2", "siglip", "biomed", "vit_pytorch", "align", "resnet"] {
        let case = Case::open(name);
        let backbone = &case.backbone;
        for method in ["lora", "dora", "ssf", "ln-tuning", "bitfit"] {
            let config = fitted(configured(method, ""));
            let adapter = randomised(fresh(&config, backbone).expect("settings that fit"), 0.3, &plain());
            let sites = adapter.sites();
            let folded = backbone.fold(sites).expect("an adapter of weights");
            let passed = backbone.encode_image(case.pixels(), sites, &Pass::evaluate());
            let found = folded.encode_image(case.pixels(), &Frozen, &Pass::evaluate());
            same(&format!("{method} on {name}"), found, passed, 1e-4);
        }
    }
    // Blocks that normalise afterwards, and rows of several lengths.
    let case = Case::open("bert");
    let features = Tensor::ones([1, case.backbone.spec().dim], &plain());
    let device = plain();
    for method in ["lora", "dora", "ln-tuning"] {
        let config = configured(method, "");
        let start = Start::new(&case.backbone, &features, Seed::new(1), &device);
        let adapter = config.init(&start).expect("a method that changes layers");
        let adapter = randomised(adapter, 0.3, &plain());
        let passed = case.backbone.encode_text(&case.rows(), adapter.sites(), &Pass::evaluate());
        let folded = case.backbone.fold(adapter.sites()).expect("an adapter of weights");
        let found = folded.encode_text(&case.rows(), &Frozen, &Pass::evaluate());
        same(&format!("{method} on bert"), found, passed, 1e-4);
        assert!(case.backbone.depth(Tower::Image) == 0);
    }
}
