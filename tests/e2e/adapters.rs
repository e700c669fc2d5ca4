//! Fit, evaluate, predict: what a user does on the first day.

use super::Program;
use super::program::{adapter_bytes, sample, short_fit};

const METHODS: [&str; 3] = ["linear-probe", "coop", "lora"];

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
    let program = Program::new();
    for method in METHODS {
        for (seed, output) in [("1", "a"), ("1", "b"), ("2", "c")] {
            program.succeed(&short_fit(method, seed, &format!("{method}-{output}")));
        }
        let [a, b, c] = ["a", "b", "c"].map(|run| adapter_bytes(&program.path(&format!("{method}-{run}"))));
        assert!(a == b, "{method}");
        assert!(a != c, "{method}");
    }
}

#[test]
fn a_written_recipe_makes_the_adapter_again() {
    let program = Program::new();
    program.succeed(&short_fit("lora", "3", "first"));
    program.succeed(&["fit", "first/recipe.toml", "-o", "second"]);
    assert!(adapter_bytes(&program.path("first")) == adapter_bytes(&program.path("second")));
}

#[test]
fn what_a_run_replaces_is_said_where_it_is_of_another_method() {
    let program = Program::new();
    let fit = |method: &str| {
        let run = program.run(&short_fit(method, "1", "out"));
        assert_eq!(run.code, 0, "{}", run.stderr);
        run.stderr.lines().filter(|line| line.contains("replace")).map(String::from).collect::<Vec<_>>()
    };
    assert!(fit("linear-probe").is_empty() && fit("linear-probe").is_empty());
    let notes = fit("coop");
    let said = |words: &str| notes.iter().any(|note| note.contains(words));
    assert!(notes.len() == 1 && said("`out`") && said("`linear-probe`") && said("`coop`"), "{notes:?}");
    let eval = program.json(&["eval", "-b", "pocket", "-d", sample(), "-a", "out"]);
    assert_eq!(eval["model"], "pocket+coop");
}

#[test]
fn evaluation_agrees_with_the_report_of_the_fit() {
    let program = Program::new();
    for method in METHODS {
        let fit = program.json(&short_fit(method, "1", method));
        let eval = program.json(&["eval", "-b", "pocket", "-d", sample(), "-a", method]);
        assert_eq!(fit["runs"][0]["accuracy"], eval["accuracy"], "{method}");
        assert_eq!(eval["n"], 179);
        let accuracy = eval["accuracy"].as_f64().expect("a number");
        assert!((0.0..=1.0).contains(&accuracy));
        for key in ["classes", "per_class", "confusion"] {
            assert_eq!(eval[key].as_array().map(Vec::len), Some(10), "{key}");
        }
        assert!(eval["ece"].is_f64() && eval["seconds"].is_f64());
        for file in ["report.json", "report.html", "recipe.toml"] {
            assert!(program.path(method).join(file).is_file(), "{method}/{file}");
        }
    }
}

#[test]
fn several_seeds_give_mean_and_spread() {
    let program = Program::new();
    let fit = program.json(&short_fit("coop", "1,2", "runs"));
    assert_eq!(fit["runs"].as_array().map(Vec::len), Some(2));
    assert_eq!(fit["accuracy"]["n"], 2);
    let read = |path: &str| -> serde_json::Value {
        inarch_core::file::read_json(&program.path(path), "report").expect("JSON")
    };
    assert_eq!(read("runs/report.json")["accuracy"], fit["accuracy"]);
    assert_eq!(read("runs/seed-2/report.json")["burn"], program.json(&["doctor"])["burn"]);
    assert!(program.path("runs/seed-2/adapter.json").is_file());
    let whole = ["eval", "-b", "pocket", "-d", sample(), "-a", "runs"];
    program.fail(&whole, 1, &["a run for each seed", "runs/seed-1"]);
}

#[test]
fn a_folder_of_photos_is_one_clip_and_that_is_said() {
    let program = Program::new();
    let folder = format!("{}/test/hat", sample());
    let run = program.run(&["predict", "-b", "pocket", "--classes", "hat,dress", &folder, "--json"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("taken as one clip of") && run.stderr.contains("test/hat/*"), "{}", run.stderr);
}

#[test]
fn predictions_are_probabilities_best_first() {
    let program = Program::new();
    program.succeed(&short_fit("linear-probe", "1", "probe"));
    let image = inarch_core::file::list(&std::path::Path::new(sample()).join("test/hat")).expect("images")[0].clone();
    let image = image.display().to_string();
    let result = program.json(&["predict", "-b", "pocket", "-a", "probe", "--top-k", "10", &image]);
    let predictions = result["images"][0]["predictions"].as_array().expect("a list");
    let scores: Vec<f64> = predictions.iter().map(|one| one["score"].as_f64().expect("a number")).collect();
    assert_eq!(scores.len(), 10);
    assert!((scores.iter().sum::<f64>() - 1.0).abs() < 1e-4);
    assert!(scores.is_sorted_by(|left, right| left >= right));
    let of = |classes: &str| program.json(&["predict", "-b", "pocket", "--classes", classes, &image])["images"].clone();
    assert_eq!(of("hat, a dog "), of("hat,a dog"), "blanks round a name are no part of it");
    let text = program.succeed(&["predict", "-b", "pocket", "--classes", "hat,a dog", "--top-k", "1", &image]);
    assert_eq!(text.lines().count(), 1);
    assert!(text.contains("hat") || text.contains("a dog"), "{text}");
}

#[test]
fn every_command_explains_itself() {
    let program = Program::new();
    for command in [
        "demo", "fit", "eval", "predict", "encode", "compare", "combine", "convert", "pretrain", "backbone",
        "registry", "doctor",
    ] {
        assert!(program.succeed(&[command, "--help"]).contains("Usage"), "{command}");
    }
    // What follows the options for clips does not stand under their heading.
    let help = program.succeed(&["fit", "--help"]);
    let clips = help.split("\nClips:\n").nth(1).and_then(|behind| behind.split("\nKept features:\n").next());
    let clips = clips.expect("a section");
    assert!(clips.contains("--clip-crops") && !clips.contains("--method") && !clips.contains("--output"), "{help}");
    assert!(program.succeed(&["--version"]).starts_with("inarch "));
    let doctor = program.json(&["doctor"]);
    assert!(doctor["devices"].as_array().is_some_and(|devices| devices.iter().any(|device| device["name"] == "cpu")));
    assert_eq!(program.json(&["backbone", "list"])["backbones"][0]["name"], "pocket");
    let (first, second) =
        (program.json(&["backbone", "show", "pocket"]), program.json(&["backbone", "show", "pocket"]));
    assert_eq!(first, second);
}
