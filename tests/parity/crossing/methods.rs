//! Methods where images and texts meet before there is a score.

use burn::tensor::Tensor;
use inarch_core::Seed;
use inarch_core::backbone::{Backbone, Frozen, Pass, Sites, Tower, values};
use inarch_core::text::Template;
use inarch_peft::{Adapter, Artifact, Classifier, LoraConfig, MethodConfig, Provenance, Start, Support};

use super::Case;
use crate::contract::case::{configured, methods};
use crate::support::{close, gradients, plain, randomised, same, tracked};

const CASES: [&str; 3] = ["blip", "vilt", "vilt_words"];

fn classes() -> Vec<String> {
    ["cat", "dog", "mat"].map(String::from).to_vec()
}

fn templates() -> Vec<Template> {
    ["a photo of a {}.", "a {}"].map(|text| Template::new(text).expect("a template")).to_vec()
}

/// A method that fits towers this small.
fn fitted(config: MethodConfig) -> MethodConfig {
    match config.name() {
        "oft" => configured("oft", "block = 2"),
        "boft" => configured("boft", "block = 2"),
        "compacter" => configured("compacter", "products = 2"),
        // Not every tower has offsets of queries, keys and values.
        "bitfit" => configured("bitfit", "linear = [\"*.out_proj\", \"*.fc1\", \"*.fc2\"]"),
        _ => config,
    }
}

fn fresh(config: &MethodConfig, backbone: &Backbone, device: &burn::tensor::Device) -> inarch_peft::Result<Adapter> {
    let size = backbone.spec().image.size;
    let pixels = crate::support::draws("crossing support", [6, 3, size, size], 1.0, &plain());
    let features = backbone.encode_image(pixels.clone(), &Frozen, &Pass::evaluate());
    let visit = |take: &mut dyn FnMut(Tensor<4>)| {
        take(pixels.clone());
        Ok(())
    };
    let support = Support { features, views: 1, labels: &[0, 0, 1, 1, 2, 2], pixels: Some(&visit) };
    let classes = Tensor::zeros([3, backbone.spec().dim], &plain());
    let start = Start::new(backbone, &classes, Seed::new(1), device);
    config.init(&Start { support: config.needs_support().then_some(&support), ..start })
}

fn scores(case: &Case, sites: &dyn Sites, pass: &Pass<'_>) -> Tensor<2> {
    let image = case.backbone.encode_image(case.pixels(), sites, pass);
    let classifier = Classifier::zero_shot(&case.backbone, &classes(), &templates()).expect("classes");
    classifier.logits(&image, &classifier.features(sites), sites, pass)
}

/// Methods that have nothing to enter in a tower without blocks.
fn needs_image_blocks(name: &str) -> bool {
    ["vpt-shallow", "vpt-deep", "st-adapter", "aim", "temporal-shift", "vita-clip"].contains(&name)
}

#[test]
fn every_method_works_or_says_why_not() {
    for name in CASES {
        let case = Case::open(name);
        let frozen = scores(&case, &Frozen, &Pass::evaluate());
        let mut working = 0;
        for config in methods() {
            let config = fitted(config).resolved(&case.backbone).expect("settings");
            let what = format!("{} on {name}", config.name());
            if !config.crosses() {
                let refused = fresh(&config, &case.backbone, &plain()).expect_err(&what).to_string();
                assert!(refused.contains("features of their own"), "{what}: {refused}");
                continue;
            }
            let nothing = config.trainable(&case.backbone, 3, 6) == 0;
            if case.backbone.depth(Tower::Image) == 0 && (nothing || needs_image_blocks(config.name())) {
                continue;
            }
            let adapter = fresh(&config, &case.backbone, &plain()).expect(&what);
            assert_eq!(adapter.trainable(), config.trainable(&case.backbone, 3, 6), "{what}");
            let found = scores(&case, adapter.sites(), &Pass::evaluate());
            if config.starts_as_zero_shot() {
                same(&what, found, frozen.clone(), 1e-5);
            }
            let moved = scores(&case, randomised(adapter, 0.3, &plain()).sites(), &Pass::evaluate());
            let apart = values(moved - frozen.clone()).into_iter().fold(0.0f32, |most, value| most.max(value.abs()));
            assert!(apart > 1e-4 && apart.is_finite(), "{what}: {apart}");
            working += 1;
        }
        assert!(working >= 16, "{working} methods on {name}");
    }
}

#[test]
fn scores_of_a_class_are_the_mean_of_its_templates() {
    for name in CASES {
        let case = Case::open(name);
        let found = values(scores(&case, &Frozen, &Pass::evaluate()));
        let templates = templates();
        let each = templates.iter().map(|template| {
            let template = std::slice::from_ref(template);
            let classifier = Classifier::zero_shot(&case.backbone, &classes(), template).expect("classes");
            classifier.pairs(&case.image(), &Frozen, &Pass::evaluate())
        });
        let each: Vec<Tensor<2>> = each.collect();
        close(name, &found, &values((each[0].clone() + each[1].clone()) / 2.0), 1e-5);
    }
}

#[test]
fn gradients_reach_every_factor_and_nothing_else() {
    for name in CASES {
        let case = Case::open(name);
        let config =
            MethodConfig::Lora(LoraConfig { targets: vec!["*".into()], dropout: 0.0, ..LoraConfig::default() });
        let adapter = randomised(fresh(&config, &case.backbone, &tracked()).expect("settings"), 0.2, &tracked());
        let before = case.backbone.state_dict();
        let loss = scores(&case, adapter.sites(), &Pass::train(Seed::new(3))).powf_scalar(2.0).mean();
        let found = gradients(&adapter, &loss);
        assert_eq!(found.len(), adapter.parameters().len());
        for gradient in &found {
            assert!(gradient.greatest.is_some_and(|greatest| greatest > 0.0), "{name}: {gradient:?}");
        }
        let cross = found.iter().filter(|gradient| gradient.name.contains(".cross.")).count();
        assert_eq!(cross, if name == "blip" { 16 } else { 0 });
        assert_eq!(case.backbone.state_dict(), before);
    }
}

#[test]
fn weights_composed_with_an_update_give_the_same() {
    for name in CASES {
        let case = Case::open(name);
        for method in ["lora", "dora", "ln-tuning"] {
            let config = match method {
                "lora" => configured("lora", "targets = [\"*\"]"),
                _ => fitted(configured(method, "")),
            };
            let adapter = randomised(fresh(&config, &case.backbone, &plain()).expect("settings"), 0.3, &plain());
            let passed = case.scores(adapter.sites());
            let folded = case.backbone.fold(adapter.sites()).expect("an adapter of weights");
            let image = folded.encode_image(case.pixels(), &Frozen, &Pass::evaluate());
            let found = folded.cross(&image, &case.rows(), &Frozen, &Pass::evaluate());
            same(&format!("{method} on {name}"), found, passed, 1e-4);
        }
    }
}

#[test]
fn an_artifact_is_saved_and_read_again() {
    for name in CASES {
        let case = Case::open(name);
        let config = configured("lora", "targets = [\"text.*\"]");
        let adapter = randomised(fresh(&config, &case.backbone, &plain()).expect("settings"), 0.3, &plain());
        let expected = scores(&case, adapter.sites(), &Pass::evaluate());
        let provenance = Provenance {
            classes: classes(),
            templates: templates(),
            data: None,
            clips: None,
            metrics: Default::default(),
        };
        let artifact = Artifact::new(adapter, config, &case.backbone, provenance).expect("classes");
        let folder = tempfile::tempdir().expect("a folder");
        artifact.save(folder.path()).expect("a writable folder");
        let again = Artifact::load(folder.path(), &case.backbone).expect("what was saved");
        again.self_test(&case.backbone).expect("the same scores");
        same(name, scores(&case, again.adapter.sites(), &Pass::evaluate()), expected, 1e-6);
    }
}
