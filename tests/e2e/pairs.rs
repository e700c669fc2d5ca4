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
fn a_backbone_of_the_sigmoid_loss_keeps_its_offset() {
    let program = Program::new();
    recipe(&program);
    let home = program.json(&["backbone", "show", "pocket"])["path"].as_str().expect("a path").to_string();
    let tokenizer = format!("{home}/tokenizer.json");
    let sigmoid = ["--set", "train.pair_loss=sigmoid"];
    let trained = program.json(&[&arguments(&tokenizer, "own")[..], &sigmoid].concat());
    assert_eq!(trained["kind"], "backbone");
    let log = std::fs::read_to_string(program.path("own/log.jsonl")).expect("a log");
    let lines: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    assert_eq!(lines.len(), 2);
    let number = |line: usize, key: &str| lines[line][key].as_f64().expect("a number");
    assert!(number(1, "loss") < number(0, "loss"), "{log}");
    // Both start as in the paper and are trained.
    for (key, start) in [("logit_scale", 10.0), ("logit_bias", -10.0)] {
        let last = number(1, key);
        assert!((last - start).abs() > 1e-4 && (last - start).abs() < 3.0, "{key}: {last}");
    }
    let shown = program.json(&["backbone", "show", "./own"]);
    assert_eq!(shown["spec"]["logit_bias"], true);
    let scale = shown["logit_scale"].as_f64().expect("a number");
    assert!((scale - number(1, "logit_scale")).abs() < 0.02, "{scale}");
    // Scores with an offset are as good as any.
    assert_eq!(program.json(&["eval", "-b", "./own", "-d", sample(), "--templates", "a photo of a {}."])["n"], 179);
    let smooth = ["--set", "train.smoothing=0.1"];
    program.fail(&[&arguments(&tokenizer, "smooth")[..], &sigmoid, &smooth].concat(), 2, &["train.smoothing"]);
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
    let written = |folder: &str| std::fs::read_to_string(program.path(folder).join("recipe.toml")).expect("a recipe");
    assert!(written("adapted").contains("pair_loss = \"softmax\""), "{}", written("adapted"));
    let mut chosen = [&arguments[..], &["--set", "train.pair_loss=sigmoid"]].concat();
    chosen[6] = "chosen";
    program.succeed(&[&chosen[..], &["--set", "train.budget={ iterations = 5 }"]].concat());
    assert!(written("chosen").contains("pair_loss = \"sigmoid\""), "{}", written("chosen"));
    // The same by a recipe, which names its method.
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes/examples/sigmoid-pairs.toml");
    let example = example.display().to_string();
    let filed = ["pretrain", &example, "-b", "pocket", "-d", "captions.csv", "-o", "filed"];
    program.succeed(&[&filed[..], &["--set", "train.budget={ iterations = 2 }", "--set", "train.batch=6"]].concat());
    assert!(written("filed").contains("pair_loss = \"sigmoid\""), "{}", written("filed"));
    assert!(written("filed").contains("rank = 4"), "{}", written("filed"));
    program.fail(&[&filed[..], &["-m", "lora"]].concat(), 2, &["cannot be used with"]);
    // Classes are no pairs.
    let fit =
        ["fit", "-b", "pocket", "-d", sample(), "-m", "lora", "--set", "train.pair_loss=sigmoid", "-o", "classes"];
    program.fail(&fit, 2, &["train.pair_loss", "pretrain"]);

    std::fs::write(program.path("captions.csv"), format!("{captions}nowhere.jpg,a lost picture\n")).expect("writes");
    program.fail(&arguments, 1, &["nowhere.jpg"]);
    program.fail(&[&arguments[..], &["-m", "linear-probe"]].concat(), 2, &["linear-probe"]);
}
