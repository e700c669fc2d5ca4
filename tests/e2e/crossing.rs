//! Captioners, and models of one stream: what a user does with them.

use std::path::Path;

use serde_json::Value;

use super::Program;
use super::program::{adapter_bytes, sample};
use crate::support::fixture;

const FAMILIES: [&str; 3] = ["blip", "vilt", "vilt_words"];

fn backbone(name: &str) -> String {
    fixture(&format!("parity/crossing/{name}")).display().to_string()
}

/// Class folders with three classes of the sample.
fn folder(program: &Program) -> String {
    for split in ["train", "test"] {
        for class in ["hat", "shoes", "dress"] {
            let from = Path::new(sample()).join(split).join(class);
            let into = program.path("data").join(split).join(class);
            std::fs::create_dir_all(&into).expect("a folder");
            for image in inarch_core::file::list(&from).expect("images").iter().take(4) {
                std::fs::copy(image, into.join(image.file_name().expect("a name"))).expect("copies");
            }
        }
    }
    program.path("data").display().to_string()
}

/// A manifest of the same images with captions.
fn captions(program: &Program) -> String {
    let mut text = String::from("path,caption\n");
    for (class, words) in [("hat", "a hat"), ("shoes", "a photo of shoes"), ("dress", "a small dress on a mat")] {
        let images = inarch_core::file::list(&Path::new(sample()).join("train").join(class)).expect("images");
        images.iter().take(4).for_each(|image| text.push_str(&format!("{},{words}\n", image.display())));
    }
    let path = program.path("captions.csv");
    std::fs::write(&path, text).expect("writes");
    path.display().to_string()
}

fn fit<'a>(backbone: &'a str, data: &'a str, output: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let settings = ["--set", "train.budget={ iterations = 4 }", "--set", "train.batch=6", "--set", "views=1"];
    let start = ["fit", "-b", backbone, "-d", data, "-m", "lora", "--shots", "3", "-o", output];
    [&start[..], &settings, more].concat()
}

#[test]
fn an_adapter_is_fitted_evaluated_and_asked() {
    for family in FAMILIES {
        let program = Program::new();
        let (backbone, data) = (backbone(family), folder(&program));
        let text_only = ["--set", "method.targets=[\"text.*\"]"];
        let found = program.json(&fit(&backbone, &data, "one", &text_only));
        program.succeed(&fit(&backbone, &data, "two", &text_only));
        assert!(adapter_bytes(&program.path("one")) == adapter_bytes(&program.path("two")), "{family}");
        let eval = program.json(&["eval", "-b", &backbone, "-d", &data, "-a", "one"]);
        assert_eq!((&eval["accuracy"], eval["n"].as_u64()), (&found["runs"][0]["accuracy"], Some(12)), "{family}");
        let image = format!("{data}/test/hat");
        let image = inarch_core::file::list(Path::new(&image)).expect("images")[0].display().to_string();
        let predicted = program.json(&["predict", "-b", &backbone, "-a", "one", &image]);
        let answers = predicted["images"][0]["predictions"].as_array().expect("answers");
        let whole: f64 = answers.iter().filter_map(|answer| answer["score"].as_f64()).sum();
        assert!(answers.len() == 3 && (whole - 1.0).abs() < 1e-4, "{predicted}");
        let plan = program.json(&fit(&backbone, &data, "one", &["--explain"]));
        assert!(plan["text"]["blocks_run"].as_u64() == Some(2) && plan["tokens_run"].as_u64() > Some(0), "{plan}");
    }
}

#[test]
fn an_adapter_of_both_towers_learns() {
    let program = Program::new();
    let (backbone, data) = (backbone("blip"), folder(&program));
    let more =
        ["--set", "train.budget={ iterations = 30 }", "--set", "train.optimizer.lr=0.02", "--set", "method.dropout=0"];
    program.succeed(&fit(&backbone, &data, "run", &more));
    let report: Value =
        inarch_core::file::read_json(&program.path("run").join("report.json"), "report").expect("a report");
    let losses: Vec<f64> = report["losses"].as_array().expect("losses").iter().filter_map(Value::as_f64).collect();
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    assert!(mean(&losses[25..]) < mean(&losses[..5]), "{losses:?}");
}

#[test]
fn adapters_are_trained_on_captions() {
    for family in FAMILIES {
        let program = Program::new();
        let (backbone, manifest) = (backbone(family), captions(&program));
        let run = |output: &str, steps: &str| {
            let budget = format!("train.budget={{ iterations = {steps} }}");
            program.json(&[
                "pretrain",
                "-b",
                &backbone,
                "-d",
                &manifest,
                "-o",
                output,
                "--set",
                "train.batch=12",
                "--set",
                "augment={ crop = \"centre\", flip = 0.0 }",
                "--set",
                &budget,
                "--set",
                "train.optimizer.lr=0.02",
                "--set",
                "method.dropout=0",
                "--set",
                "method.targets=[\"*\"]",
            ])
        };
        let (short, long) = (run("short", "1"), run("long", "40"));
        let [short, long] = [&short, &long].map(|found| found["loss"].as_f64().expect("a loss"));
        assert!(long < 0.9 * short, "{family}: {short} to {long}");
        run("again", "40");
        assert!(adapter_bytes(&program.path("long")) == adapter_bytes(&program.path("again")), "{family}");
        let data = folder(&program);
        let eval = program.json(&["eval", "-b", &backbone, "-d", &data, "-a", "long"]);
        assert_eq!(eval["n"], 12);
    }
}

#[test]
fn a_captioner_writes() {
    let program = Program::new();
    let (backbone, data) = (backbone("blip"), folder(&program));
    let images = inarch_core::file::list(Path::new(&format!("{data}/test/hat"))).expect("images");
    let [first, second] = [0, 1].map(|at| images[at].display().to_string());
    let found = program.json(&["predict", "-b", &backbone, "--beams", "2", &first, &second]);
    let captions = found["images"].as_array().expect("images");
    assert!(captions.len() == 2 && captions.iter().all(|one| one["caption"].is_string()), "{found}");
    assert!(captions.iter().all(|one| one["score"].as_f64().is_some_and(|score| score < 0.0)), "{found}");
    assert_eq!(found, program.json(&["predict", "-b", &backbone, "--beams", "2", &first, &second]));
    // After training on captions it writes what it was told.
    let manifest = told(&program, &images[..2]);
    program.succeed(&[
        "pretrain",
        "-b",
        &backbone,
        "-d",
        &manifest,
        "-o",
        "told",
        "--set",
        "train.batch=2",
        "--set",
        "train.budget={ iterations = 80 }",
        "--set",
        "train.optimizer.lr=0.02",
        "--set",
        "method.dropout=0",
        "--set",
        "method.targets=[\"*\"]",
        "--set",
        "method.rank=8",
    ]);
    let text = program.succeed(&["predict", "-b", &backbone, "-a", "told", &first]);
    assert!(text.contains("a small dress on a mat"), "{text}");
    let classes = program.json(&["predict", "-b", &backbone, "--classes", "hat,dress", &first]);
    assert_eq!(classes["images"][0]["predictions"].as_array().map(Vec::len), Some(2));
}

/// A manifest that says the same of all images.
fn told(program: &Program, images: &[std::path::PathBuf]) -> String {
    let rows = images.iter().map(|image| format!("{},a small dress on a mat\n", image.display()));
    let path = program.path("told.csv");
    std::fs::write(&path, format!("path,caption\n{}", rows.collect::<String>())).expect("writes");
    path.display().to_string()
}

#[test]
fn what_needs_features_of_either_side_is_refused() {
    let program = Program::new();
    let (backbone, data) = (backbone("vilt"), folder(&program));
    let reason = "meet before there is a score";
    for method in ["coop", "tip-adapter", "clip-adapter", "linear-probe", "maple"] {
        program.fail(&["fit", "-b", &backbone, "-d", &data, "-m", method, "-o", "x"], 3, &[reason, method]);
    }
    let image_alone = ["--set", "method.text=false", "-o", "x"];
    let prefix = [&["fit", "-b", &backbone, "-d", &data, "-m", "prefix-tuning"], image_alone.as_slice()].concat();
    program.fail(&prefix, 3, &["prefix-tuning", "no block"]);
    program.fail(&["encode", "-b", &backbone, "--images", &data, "-o", "x.safetensors"], 3, &[reason]);
    program.fail(&["eval", "-b", &backbone, "-d", &data, "--test-time", "tpt"], 3, &[reason]);
    program.fail(&["predict", "-b", &backbone, &format!("{data}/test/hat")], 2, &["--classes"]);
}
