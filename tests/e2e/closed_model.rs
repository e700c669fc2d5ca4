//! Embeddings only: a closed model's features, without its weights, carry every method that enters at features or scores.

use std::collections::HashMap;

use inarch_core::data::{FeatureFile, FeatureKind};
use inarch_peft::{METHODS, MethodConfig};
use serde_json::Value;

use super::Program;
use super::program::sample;

const BUDGET: &str = "train.budget={ iterations = 3 }";
const BACKBONE: &str = "embeddings:texts.safetensors";

/// A program beside features of the sample's images and of its classes' prompts, as `pocket` gives them.
fn with_features() -> (Program, Vec<String>) {
    let program = Program::new();
    program.succeed(&["encode", "-b", "pocket", "--images", sample(), "-o", "images.safetensors"]);
    let features = FeatureFile::read(&program.path("images.safetensors")).expect("features");
    let classes = features.classes.expect("classes");
    let prompts: Vec<String> = classes.iter().map(|class| format!("a photo of a {class}.")).collect();
    std::fs::write(program.path("texts.txt"), prompts.join("\n")).expect("a writable folder");
    program.succeed(&["encode", "-b", "pocket", "--texts", "texts.txt", "-o", "texts.safetensors"]);
    (program, classes)
}

fn accuracy(result: &Value) -> f64 {
    result["accuracy"].as_f64().or(result["runs"][0]["accuracy"].as_f64()).expect("an accuracy")
}

#[test]
fn features_alone_are_as_good_as_the_weights() {
    let (program, _) = with_features();
    let with_weights = program.json(&["eval", "-b", "pocket", "-d", "images.safetensors"]);
    let without = program.json(&["eval", "-b", BACKBONE, "-d", "images.safetensors"]);
    assert_eq!(with_weights["confusion"], without["confusion"]);
    let mut carried = 0;
    for method in METHODS.iter().filter(|name| MethodConfig::preset(name).expect("a method").black_box()) {
        let runs = [("pocket", format!("w-{method}")), (BACKBONE, format!("f-{method}"))].map(|(backbone, folder)| {
            let data = ["-d", "images.safetensors", "-m", method, "--shots", "2", "--set", BUDGET, "-o", &folder];
            program.json(&[&["fit", "-b", backbone][..], &data].concat())
        });
        assert_eq!(accuracy(&runs[0]), accuracy(&runs[1]), "{method}");
        let [with_weights, without] = ["w", "f"].map(|kind| {
            let path = program.path(&format!("{kind}-{method}/adapter.safetensors"));
            std::fs::read(path).expect("an adapter")
        });
        // Both texts and images are those of the weights, so the same values are learned.
        assert!(with_weights == without, "{method}");
        let folder = format!("f-{method}");
        let eval = program.json(&["eval", "-b", BACKBONE, "-d", "images.safetensors", "-a", &folder]);
        assert_eq!(accuracy(&eval), accuracy(&runs[1]), "{method}");
        carried += 1;
    }
    assert!(carried >= 9, "{carried}");
}

#[test]
fn predictions_are_made_of_features() {
    let (program, classes) = with_features();
    let arguments =
        ["fit", "-b", BACKBONE, "-d", "images.safetensors", "-m", "tip-adapter", "--shots", "2", "-o", "tip"];
    let plan = program.json(&[&arguments[..], &["--explain"]].concat());
    assert_eq!((&plan["step"], &plan["activation_bytes"]), (&Value::from(0), &Value::from(0)));
    program.succeed(&arguments);
    let found = program.json(&["predict", "-b", BACKBONE, "-a", "tip", "images.safetensors"]);
    let rows = found["images"].as_array().expect("a list");
    assert_eq!(rows.len(), 339);
    let label = rows[0]["predictions"][0]["label"].as_str().expect("a label");
    assert!(classes.iter().any(|class| class == label), "{label}");
    // The inputs of its self-test, made by the words of the guide, give the scores that it tells.
    let manifest = std::fs::read_to_string(program.path("tip/adapter.json")).expect("a manifest");
    let manifest: Value = serde_json::from_str(&manifest).expect("JSON");
    let (test, images) = (&manifest["self_test"], FeatureFile::read(&program.path("images.safetensors")));
    let images = images.expect("features");
    let told = &test["inputs"];
    assert_eq!((&told["formula"], &told["shape"]), (&"feature-waves".into(), &serde_json::json!([2, images.dim])));
    let dim = images.dim;
    let wave = |at: usize| {
        let turns = (at % dim * (at / dim + 1)) as f64 / dim as f64;
        ((2.0 * std::f64::consts::PI * turns).sin() + 0.1) as f32
    };
    let ids = ["0", "1"].map(String::from).to_vec();
    let values = (0..2 * dim).map(wave).collect();
    let waves = FeatureFile { ids, values, labels: None, classes: None, splits: None, ..images };
    waves.write(&program.path("waves.safetensors")).expect("a writable folder");
    let found = program.json(&["predict", "-b", BACKBONE, "-a", "tip", "waves.safetensors", "--top-k", "10"]);
    for row in 0..2 {
        let logarithm = |text: &Value| {
            let answers = found["images"][row]["predictions"].as_array().expect("a list");
            let answer = answers.iter().find(|answer| answer["label"] == *text).expect("all classes");
            answer["score"].as_f64().expect("a number").ln()
        };
        // Probabilities tell scores but for what all of them have in common.
        let texts = told["texts"].as_array().expect("a list");
        let logit = |at: usize| test["logits"][row * texts.len() + at].as_f64().expect("a number");
        for (at, text) in texts.iter().enumerate().filter(|(_, text)| logarithm(text) > -60.0) {
            let (apart, expected) = (logarithm(text) - logarithm(&texts[0]), logit(at) - logit(0));
            assert!((apart - expected).abs() < 0.02, "{text}: {apart} for {expected}");
        }
    }
    let picture = std::fs::read_dir(sample()).expect("a folder").flatten().find(|entry| entry.path().is_dir());
    let picture = picture.expect("a class").path().display().to_string();
    program.fail(&["predict", "-b", BACKBONE, "-a", "tip", "images.safetensors", &picture], 2, &["mixed"]);
    program.succeed(&[
        "fit",
        "-b",
        "pocket",
        "-d",
        sample(),
        "-m",
        "lora",
        "--shots",
        "1",
        "--set",
        BUDGET,
        "-o",
        "lora",
    ]);
    program.fail(&["predict", "-b", "pocket", "-a", "lora", "images.safetensors"], 2, &["image tower"]);
}

#[test]
fn all_methods_are_those_that_need_no_weights() {
    let (program, _) = with_features();
    let arguments =
        ["-d", "images.safetensors", "-m", "all", "--shots", "1", "--seeds", "1", "--set", BUDGET, "-o", "c"];
    let found = program.json(&[&["compare", "-b", BACKBONE][..], &arguments].concat());
    let text = found.to_string();
    assert!(text.contains("tip-adapter-f") && text.contains("linear-probe") && !text.contains("\"coop\""), "{text}");
}

#[test]
fn what_needs_weights_is_refused_with_its_reason() {
    let (program, classes) = with_features();
    for method in ["lora", "coop", "vpt-deep", "prolip", "2sfs", "ln-tuning"] {
        let arguments = ["fit", "-b", BACKBONE, "-d", "images.safetensors", "-m", method, "-o", "x"];
        program.fail(&arguments, 3, &[method, "texts", "features only"]);
    }
    program.fail(&["eval", "-b", BACKBONE, "-d", sample()], 3, &["features only", "features file"]);
    let adapted = ["eval", "-b", BACKBONE, "-d", "images.safetensors", "--test-time", "tda"];
    program.fail(&adapted, 3, &["test time", "features only"]);
    program.fail(&["encode", "-b", BACKBONE, "--images", sample(), "-o", "y.safetensors"], 3, &["features only"]);
    program.fail(&["eval", "-b", "embeddings:images.safetensors", "-d", "images.safetensors"], 1, &["rows are images"]);
    program.fail(&["eval", "-b", "embeddings:none.safetensors", "-d", "images.safetensors"], 1, &["none.safetensors"]);

    // Images of one model and texts of another lie in different spaces.
    let texts = FeatureFile::read(&program.path("texts.safetensors")).expect("features");
    let other = FeatureFile { backbone: "another model".into(), ..texts.clone() };
    other.write(&program.path("other.safetensors")).expect("a writable folder");
    program.fail(&["eval", "-b", "embeddings:other.safetensors", "-d", "images.safetensors"], 3, &["another model"]);

    let missing =
        FeatureFile { ids: texts.ids[1..].to_vec(), values: texts.values[texts.dim..].to_vec(), ..texts.clone() };
    missing.write(&program.path("missing.safetensors")).expect("a writable folder");
    let class = format!("`{}`", classes[0]);
    program.fail(&["eval", "-b", "embeddings:missing.safetensors", "-d", "images.safetensors"], 1, &[&class, "encode"]);

    let twice = FeatureFile { ids: vec![texts.ids[0].clone(); texts.ids.len()], ..texts };
    twice.write(&program.path("twice.safetensors")).expect("a writable folder");
    program.fail(&["eval", "-b", "embeddings:twice.safetensors", "-d", "images.safetensors"], 1, &["twice"]);
}

#[test]
fn names_of_classes_do_in_place_of_prompts() {
    // A closed model by hand: two directions, their names as texts, and no scale.
    let program = Program::new();
    let file = |kind, ids: &[&str], values: Vec<f32>, labels: Option<&[&str]>| FeatureFile {
        backbone: "a closed model".into(),
        adapter: None,
        kind,
        ids: ids.iter().map(ToString::to_string).collect(),
        labels: labels.map(|labels| labels.iter().map(ToString::to_string).collect()),
        classes: None,
        splits: Some(vec![inarch_core::data::Split::Test; ids.len()]).filter(|_| labels.is_some()),
        dim: 2,
        values,
    };
    let texts = file(FeatureKind::Text, &["white cat", "dog"], vec![1.0, 0.0, 0.0, 2.0], None);
    texts.write(&program.path("texts.safetensors")).expect("a writable folder");
    let labels = ["white_cat", "dog", "dog"];
    let images = file(FeatureKind::Image, &["a", "b", "c"], vec![3.0, 0.1, 0.1, 1.0, 1.0, 0.9], Some(&labels));
    images.write(&program.path("images.safetensors")).expect("a writable folder");
    let found = program.json(&["eval", "-b", BACKBONE, "-d", "images.safetensors", "--templates", "openai-7"]);
    assert!((accuracy(&found) - 2.0 / 3.0).abs() < 1e-9, "{found}");
    let shown = program.json(&["backbone", "show", BACKBONE]);
    assert_eq!((shown["parameters"].as_u64(), shown["logit_scale"].as_f64()), (Some(0), Some(100.0)));
    let dims: HashMap<String, Value> = serde_json::from_value(shown["spec"].clone()).expect("a shape");
    assert_eq!(dims["dim"], 2);
}
