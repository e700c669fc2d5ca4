//! Contrastive training from images and captions.

use std::path::Path;

use super::Program;
use super::program::sample;

/// The pocket recipe, shrunk to seconds.
fn recipe(program: &Program) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes/pocket/recipe.toml");
    std::fs::copy(path, program.path("recipe.toml")).expect("copies");
}

fn arguments<'a>(tokenizer: &'a str, output: &'a str) -> Vec<&'a str> {
    let mut arguments =
        vec!["pretrain", "recipe.toml", "-d", sample(), "--tokenizer", tokenizer, "-o", output, "--set", "merges=0"];
    for setting in [
        "train.epochs=2",
        "train.batch=40",
        "captions.names={}",
        "model.dim=16",
        "model.image={ width = 32, depth = 2, heads = 2, mlp = 64 }",
        "model.text={ width = 32, depth = 1, heads = 2, mlp = 64 }",
    ] {
        arguments.extend(["--set", setting]);
    }
    arguments
}

#[test]
fn a_backbone_is_trained_and_opens_again() {
    let program = Program::new();
    recipe(&program);
    // The tokenizer of pocket is on disk once the backbone has been used.
    let home = program.json(&["backbone", "show", "pocket"])["path"].as_str().expect("a path").to_string();
    let tokenizer = format!("{home}/tokenizer.json");
    let first = program.json(&arguments(&tokenizer, "one"));
    assert_eq!(first["kind"], "backbone");
    assert!(first["accuracy"].as_f64().is_some_and(|accuracy| (0.0..=1.0).contains(&accuracy)));
    program.succeed(&arguments(&tokenizer, "two"));
    let [one, two] =
        ["one", "two"].map(|name| std::fs::read(program.path(name).join("model.safetensors")).expect(name));
    assert!(one == two, "the same seed gives the same bytes");
    let digest = program.json(&["backbone", "show", "./one"])["digest"].clone();
    assert_eq!(digest, program.json(&["backbone", "show", "./two"])["digest"]);
    assert_eq!(program.json(&["eval", "-b", "./one", "-d", sample(), "--templates", "a photo of a {}."])["n"], 179);
}

#[test]
fn an_adapter_is_trained_on_captions() {
    let program = Program::new();
    let mut captions = String::from("path,caption\n");
    for class in ["hat", "shoes", "dress"] {
        let images = inarch_core::file::list(&Path::new(sample()).join("train").join(class)).expect("images");
        for image in images.iter().take(6) {
            captions.push_str(&format!("{},a photo of {class} on the floor\n", image.display()));
        }
    }
    std::fs::write(program.path("captions.csv"), &captions).expect("writes");
    let arguments = ["pretrain", "-b", "pocket", "-d", "captions.csv", "-o", "adapted", "--set", "train.batch=6"];
    let trained = program.json(&[&arguments[..], &["--set", "train.budget={ iterations = 5 }"]].concat());
    assert_eq!((trained["kind"].as_str(), trained["steps"].as_u64()), (Some("adapter"), Some(5)));
    let eval = program.json(&["eval", "-b", "pocket", "-d", sample(), "-a", "adapted"]);
    assert_eq!(eval["n"], 179);

    std::fs::write(program.path("captions.csv"), format!("{captions}nowhere.jpg,a lost picture\n")).expect("writes");
    program.fail(&arguments, 1, &["nowhere.jpg"]);
    program.fail(&[&arguments[..], &["-m", "linear-probe"]].concat(), 2, &["linear-probe"]);
}
