//! Many methods on one data set, and adapters put together.

use std::path::Path;

use inarch_peft::METHODS;
use serde_json::{Value, json};

use super::Program;
use super::program::{adapter_bytes, sample, short_fit};
use super::update::part;
use crate::support::fixture;

/// A comparison of a few short runs.
fn compare<'a>(methods: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
    let fixed = ["compare", "-b", "pocket", "-d", sample(), "-m", methods, "--set", "train.budget={ iterations = 2 }"];
    fixed.iter().chain(rest).copied().collect()
}

fn runs(report: &Value) -> Vec<(String, Value)> {
    let list = report["runs"].as_array().expect("a list");
    list.iter().map(|run| (run["method"].as_str().expect("a name").to_string(), run["accuracy"].clone())).collect()
}

#[test]
fn every_method_runs_and_gives_the_same_adapter_twice() {
    let program = Program::new();
    let [first, second] = ["first", "second"].map(|folder| {
        let report = program.json(&compare("all", &["--shots", "1", "--seeds", "1", "-o", folder]));
        assert_eq!(report["lines"].as_array().map(Vec::len), Some(METHODS.len()));
        report
    });
    assert_eq!(runs(&first), runs(&second));
    for method in METHODS {
        let run = format!("runs/{method}-1-shot-seed-1");
        let [a, b] = ["first", "second"].map(|folder| adapter_bytes(&program.path(folder).join(&run)));
        assert!(a == b, "{method}");
    }
}

#[test]
fn a_comparison_goes_on_where_it_was() {
    let program = Program::new();
    let arguments = compare("taskres,linear-probe", &["--shots", "1,2", "--seeds", "1,2", "-o", "out"]);
    let whole = program.json(&arguments);
    assert_eq!((&whole["settings"], &whole["device"]), (&"fixed".into(), &"cpu".into()));
    assert_eq!(whole["burn"], program.json(&["doctor"])["burn"]);
    assert_eq!(whole["lines"][0]["accuracy"]["n"], 2);
    for file in ["report.json", "report.html", "table.md"] {
        assert!(program.path("out").join(file).is_file(), "{file}");
    }
    // Nothing is left to do.
    let ledger = program.path("out/runs.json");
    let before = std::fs::read(&ledger).expect("the list of runs");
    program.succeed(&arguments);
    assert!(std::fs::read(&ledger).expect("the list of runs") == before);
    // A list of an earlier version lacks the seconds of training, which the reports of the runs tell.
    let seconds = |report: &Value| -> Vec<f64> {
        let runs = report["runs"].as_array().expect("a list");
        runs.iter().map(|run| run["train_seconds"].as_f64().expect("seconds")).collect()
    };
    let mut old: Vec<Value> = serde_json::from_slice(&before).expect("a list");
    for run in &mut old {
        run.as_object_mut().expect("a run").remove("train_seconds").expect("seconds");
    }
    inarch_core::file::write_json(&ledger, &old).expect("a writable folder");
    let again = program.json(&arguments);
    for (found, expected) in seconds(&again).into_iter().zip(seconds(&whole)) {
        assert!((found - expected).abs() < 1e-9, "{found} for {expected}");
    }
    for run in whole["runs"].as_array().expect("a list") {
        assert!(run["train_seconds"].as_f64() <= run["seconds"].as_f64(), "{run}");
    }
    let table = std::fs::read_to_string(program.path("out/table.md")).expect("a table");
    assert!(table.contains("the seconds are those of training"), "{table}");
    // One run is lost; the others are not done again.
    let mut list: Vec<Value> = serde_json::from_slice(&before).expect("a list");
    let lost = list.pop().expect("a run");
    inarch_core::file::write_json(&ledger, &list).expect("a writable folder");
    let again = program.json(&arguments);
    let found = again["runs"].as_array().and_then(|runs| runs.last()).expect("a run");
    assert_eq!(found["accuracy"], lost["accuracy"]);
    assert_eq!(again["runs"][0], whole["runs"][0]);
    // A damaged list is named, not overwritten.
    std::fs::write(&ledger, &before[..before.len() / 2]).expect("a writable folder");
    program.fail(&arguments, 1, &["runs.json"]);
}

#[test]
fn an_image_that_has_changed_under_its_name_is_other_data() {
    let program = Program::new();
    let data = part(&program, "photos", &["hat", "pants", "shirt", "shoes"], 0, 4);
    let short = ["--set", "train.budget={ iterations = 2 }"];
    let compare =
        ["compare", "-b", "pocket", "-d", data.as_str(), "-m", "taskres", "--shots", "1", "--seeds", "1", "-o", "out"];
    let compare = [&compare[..], &short].concat();
    let stream = ["stream", "-b", "pocket", "-d", data.as_str(), "-s", "simple-cil", "-o", "parts", "--seeds", "1"];
    let stream = [&stream[..], &["--set", "stream.experiences=2"]].concat();
    let done = || {
        let list: Vec<Value> = inarch_core::file::read_json(&program.path("out/runs.json"), "list").expect("a list");
        list.len()
    };
    let before = program.json(&stream);
    program.succeed(&compare);
    let images = inarch_core::file::list(&Path::new(&data).join("test/hat")).expect("images");
    // Written anew it is the same image.
    let [one, other] = [&images[0], &images[1]].map(|image| std::fs::read(image).expect("an image"));
    std::fs::write(&images[0], &one).expect("writes");
    program.succeed(&compare);
    assert_eq!((done(), &program.json(&stream)["strategies"]), (1, &before["strategies"]));
    std::fs::write(&images[0], &other).expect("writes");
    program.succeed(&compare);
    assert_eq!(done(), 2);
    program.fail(&stream, 1, &["other settings or data"]);
}

#[test]
fn described_classes_are_other_runs_and_those_of_a_fit() {
    let program = Program::new();
    let folders = inarch_core::file::list(&Path::new(sample()).join("train")).expect("classes");
    let classes = folders.iter().map(|class| class.file_name().expect("a name").to_string_lossy().into_owned());
    let describe = |name: &str, how: &str| {
        let sentences =
            |class: String| (class.clone(), json!([format!("{how} {class}"), format!("{class} on a table")]));
        let words: serde_json::Map<String, Value> = classes.clone().map(sentences).collect();
        inarch_core::file::write_json(&program.path(name), &words).expect("a writable folder");
    };
    describe("words.json", "a drawing of");
    let one = ["--shots", "1", "--seeds", "1", "-o", "out"];
    let plain = program.json(&compare("taskres", &one));
    let described = compare("taskres", &[&one[..], &["--descriptions", "words.json"]].concat());
    let found = program.json(&described);
    assert_ne!(found["runs"][0]["key"], plain["runs"][0]["key"]);
    assert_ne!(found["zero_shot"], plain["zero_shot"]);
    assert_eq!(
        (found["config"]["templates"].as_array().map(Vec::len), plain["config"].get("templates")),
        (Some(2), None)
    );

    let fit = ["fit", "-b", "pocket", "-d", sample(), "-m", "taskres", "--shots", "1", "--descriptions", "words.json"];
    let short = ["--set", "train.budget={ iterations = 2 }", "-o", "fit"];
    let fitted = program.json(&[&fit[..], &short].concat());
    assert_eq!(fitted["zero_shot_accuracy"], found["zero_shot"]["accuracy"]);
    let [run, own] = ["out/runs/taskres-1-shot-seed-1", "fit"].map(|folder| adapter_bytes(&program.path(folder)));
    assert!(run == own, "compare and fit describe classes alike");

    // The list tells runs apart by the sentences: the same do nothing, others are a run of their own.
    let done = || {
        let list: Vec<Value> = inarch_core::file::read_json(&program.path("out/runs.json"), "list").expect("a list");
        list.len()
    };
    program.succeed(&described);
    assert_eq!(done(), 2);
    describe("words.json", "a blurred photo of");
    program.succeed(&described);
    assert_eq!(done(), 3);
    // Also where a setting names the file.
    let named = compare("taskres", &[&one[..], &["--set", "templates=words.json"]].concat());
    program.succeed(&named);
    let before = done();
    describe("words.json", "a sharp photo of");
    program.succeed(&named);
    assert_eq!(done(), before + 1);
    std::fs::write(program.path("words.json"), r#"{"hat": ["a red hat"]}"#).expect("writes");
    program.fail(&described, 1, &["class `dress`"]);
}

#[test]
fn settings_are_chosen_on_validation_images_only() {
    let program = Program::new();
    let tune = "train.optimizer.lr=0.000001,0.1";
    let report = program.json(&compare("taskres", &["--shots", "4", "--seeds", "1", "--tune", tune, "-o", "out"]));
    assert_eq!(report["settings"], "tuned on validation images");
    let chosen = report["runs"][0]["chosen"].as_str().expect("a choice");
    assert!(chosen.starts_with("train.optimizer.lr="), "{chosen}");
    program.fail(&compare("taskres", &["--tune", "train.optimizer.lr="]), 2, &["--tune", "no values"]);
    // A value may have spaces.
    let budgets = ["--shots", "1", "--seeds", "1", "--tune", "train.budget={ iterations = 1 },{ iterations = 3 }"];
    let report = program.json(&compare("taskres", &[&budgets[..], &["-o", "budgets"]].concat()));
    let chosen = report["runs"][0]["chosen"].as_str().expect("a choice");
    let steps = report["runs"][0]["steps"].as_u64().expect("a number");
    assert_eq!(chosen, format!("train.budget={{ iterations = {steps} }}"));
    // With every image in training there is none to choose on.
    let all = ["--shots", "1000", "--seeds", "1", "--tune", tune, "-o", "all"];
    program.fail(&compare("taskres", &all), 1, &["choose settings", "val"]);
}

#[test]
fn base_to_new_measures_both_halves() {
    let program = Program::new();
    let report =
        program.json(&compare("lora,taskres", &["--shots", "1", "--seeds", "1,2", "--base-to-new", "-o", "out"]));
    assert_eq!(report["classes"], 5);
    let line = |method: &str| {
        let lines = report["lines"].as_array().expect("lines");
        lines.iter().find(|line| line["method"] == method).expect("a line").clone()
    };
    let number = |value: &Value| value.as_f64().expect("a number");
    let lora = line("lora");
    let (base, new) = (number(&lora["accuracy"]["mean"]), number(&lora["base_to_new"]["new"]["mean"]));
    let of_means = number(&lora["base_to_new"]["harmonic_mean_of_means"]);
    assert!((of_means - 2.0 * base * new / (base + new)).abs() < 1e-12);
    assert!(number(&lora["base_to_new"]["mean_of_harmonic_means"]) <= of_means + 1e-12);
    // A method with a row for each class cannot name new ones.
    assert!(line("taskres")["base_to_new"].is_null());
    assert!(report["zero_shot"]["new_accuracy"].is_f64());
}

#[test]
fn without_words_both_halves_are_measured_as_far_as_classes_are_known() {
    let program = Program::new();
    let backbone = fixture("parity/families/vit").display().to_string();
    let compare = ["compare", "-b", &backbone, "-d", sample(), "-m", "lora,linear-probe", "--base-to-new", "-o", "out"];
    let short = ["--shots", "1", "--seeds", "1", "--set", "train.budget={ iterations = 2 }"];
    let report = program.json(&[&compare[..], &short].concat());
    assert!(report["zero_shot"].is_null());
    for line in report["lines"].as_array().expect("lines") {
        assert!(line["accuracy"]["mean"].is_f64() && line["base_to_new"].is_null(), "{line}");
    }
}

#[test]
fn shots_that_are_given_twice_are_one_run_beside_zero_shot_with_its_templates() {
    let program = Program::new();
    let drawn = ["--set", "templates=[\"a bad drawing of the {}\"]", "-o", "out"];
    let report = program.json(&compare("taskres", &[&["--shots", "1,1", "--seeds", "1"][..], &drawn].concat()));
    let counts = (report["runs"].as_array().map(Vec::len), report["lines"].as_array().map(Vec::len));
    assert_eq!((counts, &report["lines"][0]["accuracy"]["n"]), ((Some(1), Some(1)), &json!(1)));
    let run = program.path("out/runs/taskres-1-shot-seed-1/report.json");
    let run: Value = inarch_core::file::read_json(&run, "report").expect("a report");
    for measure in ["accuracy", "ece"] {
        assert_eq!(report["zero_shot"][measure], run["zero_shot"][measure], "{measure}");
    }
}

#[test]
fn a_wrong_comparison_is_refused_before_it_starts() {
    let program = Program::new();
    program.fail(&compare("lora,loro", &["-o", "out"]), 2, &["loro", "lora"]);
    program.fail(&compare("lora", &["--shots", "0", "-o", "out"]), 2, &["shots"]);
    program.fail(&compare("taskres", &["--set", "method.rank=3", "-o", "out"]), 2, &["rank"]);
    assert!(!program.path("out").exists());
}

#[test]
fn adapters_are_stacked_and_combined() {
    let program = Program::new();
    for (method, seed, output) in [("lora", "1", "a"), ("lora", "2", "b"), ("linear-probe", "1", "probe")] {
        program.succeed(&short_fit(method, seed, output));
    }
    let eval = |adapters: &[&str]| {
        let mut arguments = vec!["eval", "-b", "pocket", "-d", sample()];
        adapters.iter().for_each(|adapter| arguments.extend(["-a", adapter]));
        program.json(&arguments)["confusion"].clone()
    };
    assert_ne!(eval(&["a", "probe"]), eval(&["probe"]));
    let combined = program.json(&["combine", "-b", "pocket", "a", "b", "--weights", "1,0", "-o", "first"]);
    assert_eq!((&combined["method"], &combined["parts"]), (&"lora".into(), &2.into()));
    assert_eq!(eval(&["first"]), eval(&["a"]));
    program.fail(&["combine", "-b", "pocket", "a", "b", "--weights", "1", "-o", "none"], 2, &["one for each adapter"]);
    assert!(!program.path("none").exists());
}

#[test]
fn an_adapter_goes_to_peft_and_back() {
    let program = Program::new();
    program.succeed(&short_fit("lora", "1", "lora"));
    let written = program.json(&["convert", "lora", "out", "--from", "inarch", "--to", "peft", "-b", "pocket"]);
    assert_eq!(written["method"], "lora");
    program.succeed(&["convert", "out", "back", "--from", "peft", "--to", "inarch", "-b", "pocket"]);
    let [before, after] = ["lora", "back"].map(|run| adapter_bytes(&program.path(run)));
    assert!(before[0] == after[0], "the tensors changed on the way");
    let confusion =
        |adapter| program.json(&["eval", "-b", "pocket", "-d", sample(), "-a", adapter])["confusion"].clone();
    assert_eq!(confusion("out"), confusion("lora"));
    program.succeed(&short_fit("coop", "1", "coop"));
    program.fail(
        &["convert", "coop", "none", "--from", "inarch", "--to", "peft", "-b", "pocket"],
        3,
        &["coop", "lora"],
    );
    assert!(!program.path("none").exists());
    // A hint about backbones would lead astray.
    let peft = program.run(&["convert", "coop", "none", "--from", "inarch", "--to", "peft", "-b", "pocket"]);
    assert!(!peft.stderr.contains("hint:"), "{}", peft.stderr);
    let [keys, tiny] =
        ["parity/foreign/keys_2shots.pt", "parity/clip_tiny/quick"].map(|name| fixture(name).display().to_string());
    let arguments = ["convert", keys.as_str(), "none", "--from", "tip-adapter", "--to", "inarch", "-b", tiny.as_str()];
    program.fail(&arguments, 2, &["classes", "the 4 names", "`--classes A,B`", "`-d DATA`"]);
}
