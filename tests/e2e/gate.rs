//! The gate of `update` says no to data with wrong labels: by its own thresholds, by further probes, and by zero-shot.

use std::path::Path;

use serde_json::Value;

use super::Program;
use super::program::sample;
use super::update::{LENIENT, NEW, OLD, part, update};

/// Adds all images of the next class to the training images of each, twice.
fn mislabel(program: &Program, name: &str, classes: &[&str]) {
    for (at, class) in classes.iter().enumerate() {
        let into = program.path(name).join("train").join(class);
        std::fs::create_dir_all(&into).expect("creates");
        for split in ["train", "test"] {
            let source = Path::new(sample()).join(split).join(classes[(at + 1) % classes.len()]);
            for path in inarch_core::file::list(&source).expect("lists") {
                let file = path.file_name().expect("a name").to_string_lossy();
                for copy in ["once", "again"] {
                    std::fs::copy(&path, into.join(format!("{copy}-{file}"))).expect("copies");
                }
            }
        }
    }
}

#[test]
fn each_default_threshold_refuses_wrong_labels() {
    let program = Program::new();
    let (old, shifted) = (part(&program, "old", &OLD, 0, 1), part(&program, "shifted", &["hat"], 0, 1));
    mislabel(&program, "shifted", &OLD);
    program.json(&update("shop", &old, &["--init", "rail"]));
    let refused = program.run(&update("shop", &shifted, &["--json"]));
    assert_eq!(refused.code, 3, "{}", refused.stderr);
    let report: Value = serde_json::from_str(&refused.stdout).expect("JSON");
    let rules = report["verdict"]["rules"].as_array().expect("a list");
    let broken: Vec<&str> =
        rules.iter().filter(|rule| rule["passed"] == false).filter_map(|rule| rule["name"].as_str()).collect();
    assert_eq!(broken, ["class_drop", "accuracy_drop", "negative_flips"], "{report}");
    assert!(report["version"].is_null() && !program.path("shop/2").exists());
}

#[test]
fn a_further_probe_judges_what_was_not_held_out() {
    let program = Program::new();
    let (old, new) = (part(&program, "old", &OLD, 0, 1), part(&program, "new", &NEW, 0, 1));
    let (seen, unseen) = OLD.split_at(3);
    for class in unseen {
        std::fs::remove_dir_all(program.path("old/test").join(class)).expect("removes");
    }
    let probe = part(&program, "probe", unseen, 0, 1);
    let samples = |target: &str, more: &[&str]| {
        program.json(&update(target, &old, &["--init", "rail"]));
        let report = program.json(&update(target, &new, &[LENIENT, more].concat()));
        let classes = report["verdict"]["classes"].as_array().expect("a list").clone();
        OLD.map(|class| {
            let found = classes.iter().find(|one| one["class"] == class);
            found.map_or(0, |one| one["samples"].as_u64().expect("a number"))
        })
    };
    let (alone, probed) = (samples("alone", &[]), samples("probed", &["--probe", &probe]));
    let (same, mut more) = (0..seen.len(), seen.len()..OLD.len());
    assert_eq!(alone[same.clone()], probed[same]);
    assert!(more.all(|at| alone[at] < probed[at]), "{alone:?} {probed:?}");
    // What is held out, or given twice, is no further evidence.
    let again = samples("again", &["--probe", &probe, "--probe", &probe, "--probe", &old]);
    assert_eq!(again, probed);
    program.json(&update("fresh", &old, &["--init", "rail"]));
    let words = ["probe `new`", "knows none of its classes", "`hat`"];
    program.fail(&update("fresh", &new, &["--probe", &new]), 1, &words);
    // Nor is what is held out once more, under another name.
    part(&program, "new", &OLD[..1], 1, 4);
    assert_eq!(samples("renamed", &["--probe", &probe]), probed);
}

#[test]
fn zero_shot_on_other_classes_must_not_fall() {
    let program = Program::new();
    let (old, swapped) = (part(&program, "old", &OLD, 0, 1), part(&program, "swapped", &["dress"], 0, 1));
    mislabel(&program, "swapped", &NEW);
    let other = part(&program, "other", &NEW, 0, 1);
    program.json(&update("shop", &old, &["--init", "rail"]));
    let refused = program.run(&update("shop", &swapped, &[&["--zero-shot", &other], LENIENT].concat()));
    assert_eq!(refused.code, 3, "{}", refused.stderr);
    assert!(refused.stderr.contains("zero_shot_drop: on `other`"), "{}", refused.stderr);
    assert!(!refused.stderr.contains("class_drop"), "{}", refused.stderr);
    // Nobody asked: then it is published.
    assert_eq!(program.json(&update("shop", &swapped, LENIENT))["version"], "shop/2");
}
