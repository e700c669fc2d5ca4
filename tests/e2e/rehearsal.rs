//! An adapter in production whose data is gone is updated from its memory alone, and judged by what was held out.

use serde_json::{Value, json};

use super::Program;
use super::update::{LENIENT, NEW, OLD, part};
use crate::support::data_folder;

/// Some classes of the clothing: every second training image to learn from, and all of a split to be judged by.
fn clothing(program: &Program, name: &str, classes: &[&str], held_out: &str) -> String {
    for class in classes {
        for (from, to, step) in [("train", "train", 2), (held_out, "test", 1)] {
            let into = program.path(name).join(to).join(class);
            std::fs::create_dir_all(&into).expect("creates");
            let source = data_folder().join("clothing").join(from).join(class);
            for path in inarch_core::file::list(&source).expect("lists").iter().step_by(step) {
                std::fs::copy(path, into.join(path.file_name().expect("a name"))).expect("copies");
            }
        }
    }
    program.path(name).display().to_string()
}

/// The names of the rules of a verdict that are kept, or that are not.
fn rules(report: &Value, kept: bool) -> Vec<&str> {
    let rules = report["verdict"]["rules"].as_array().expect("a list").iter();
    rules.filter(|rule| rule["passed"] == kept).filter_map(|rule| rule["name"].as_str()).collect()
}

/// How many samples of the classes known before a verdict rests on.
fn judged(report: &Value) -> u64 {
    let classes = report["verdict"]["classes"].as_array().expect("a list").iter();
    classes.map(|class| class["samples"].as_u64().expect("a number")).sum()
}

#[test]
fn new_classes_are_learned_from_the_memory_alone_and_naive_training_is_refused() {
    let program = Program::new();
    let (old, new) = (clothing(&program, "old", &OLD, "test"), clothing(&program, "new", &NEW, "test"));
    let probe = clothing(&program, "probe", &OLD, "validation");
    let other = clothing(&program, "other", &["outwear", "t-shirt"], "test");
    let first = program.json(&["update", "shop@prod", "--init", "linear-probe", "-b", "pocket", "-d", &old]);
    program.json(&["update", "sums@prod", "--init", "rail", "-b", "pocket", "-d", &old]);
    std::fs::remove_dir_all(&old).expect("the data is gone");
    let memory = program.json(&["memory", "show", "shop@prod"]);
    assert!(memory["bytes"].as_u64() <= memory["config"]["budget_bytes"].as_u64(), "{memory}");
    assert!(memory["samples"].as_u64() > Some(100), "{memory}");

    // Seven classes are harder to tell apart than five, and the memory has few samples of each, so that something may be lost.
    let update = |target: &str, more: &[&str]| {
        let own = ["update", target, "-b", "pocket", "-d", &new, "--probe", &probe, "--zero-shot", &other, "--json"];
        let lost = ["gate.class_drop=0.25", "gate.accuracy_drop=0.25", "gate.negative_flips=0.25"];
        let gate: Vec<&str> = lost.iter().flat_map(|rule| ["--set", rule]).collect();
        let run = program.run(&[&own[..], &gate[..], more].concat());
        let report: Value = serde_json::from_str(&run.stdout).expect("JSON");
        (run.code, report)
    };
    let (code, naive) = update("shop@prod", &["--set", "strategy.name=\"naive\""]);
    assert_eq!((code, rules(&naive, false)), (3, vec!["class_drop", "accuracy_drop", "negative_flips"]), "{naive}");
    assert!(naive["version"].is_null() && naive["accuracy"].as_f64() < Some(0.25), "{naive}");

    for (target, method, strategy) in [("shop", "linear-probe", "er"), ("sums", "rail", "rail")] {
        let (code, report) = update(&format!("{target}@prod"), &[]);
        assert_eq!((code, rules(&report, false)), (0, Vec::<&str>::new()), "{report}");
        assert!(rules(&report, true).contains(&"zero_shot_drop"), "{report}");
        assert_eq!((&report["method"], &report["strategy"]), (&json!(method), &json!(strategy)));
        assert_eq!((&report["version"], &report["new_classes"]), (&json!(format!("{target}@2")), &json!(NEW)));
        // By what was held out of the data that is gone, and by the further probe.
        assert!(judged(&report) > first["held_out"].as_u64().expect("a number") + 50, "{report}");
        let accuracy = report["accuracy"].as_f64();
        assert!(accuracy > Some(0.3) && accuracy > naive["accuracy"].as_f64(), "{report}");
    }
    let again = program.json(&["memory", "show", "shop@prod"]);
    assert!(again["bytes"].as_u64() <= again["config"]["budget_bytes"].as_u64(), "{again}");
    let classes = again["classes"].as_array().expect("a list");
    assert_eq!(classes.len(), OLD.len() + NEW.len(), "old and new are remembered: {again}");
}

#[test]
fn a_method_that_changes_the_image_tower_is_judged_by_images() {
    let program = Program::new();
    let (old, new) = (part(&program, "old", &OLD, 0, 2), part(&program, "new", &NEW, 0, 2));
    let settings = ["--set", "fit.train.budget={ iterations = 6 }", "--set", "fit.train.batch=8"];
    let first =
        program.json(&[&["update", "line", "--init", "lora", "-b", "pocket", "-d", &old], &settings[..]].concat());
    assert!(first["accuracy"].is_number(), "{first}");
    std::fs::remove_dir_all(&old).expect("the data is gone");
    let second = program.json(&[&["update", "line", "-b", "pocket", "-d", &new], &settings[..], LENIENT].concat());
    assert!(second["accuracy_before"].is_number() && second["accuracy"].is_number(), "{second}");
    assert_eq!(rules(&second, true), ["class_drop", "accuracy_drop", "negative_flips"], "{second}");
    assert!(judged(&second) > 40, "{second}");
    assert_eq!(program.json(&["memory", "show", "line"])["config"]["content"], "images");
}

#[test]
fn an_update_that_nothing_judges_says_so() {
    let program = Program::new();
    let (old, new) = (part(&program, "old", &OLD, 0, 2), part(&program, "new", &NEW, 0, 2));
    std::fs::remove_dir_all(program.path("old/test")).expect("removes");
    let run = |more: &[&str]| {
        let own = ["update", "shop", "-b", "pocket", "--set", "method.projections=200"];
        program.run(&[&own[..], more].concat())
    };
    // The time is told by any sample.
    let slow = run(&["--init", "rail", "-d", &old, "--set", "gate.most_ms=1e-9"]);
    assert!(slow.code == 3 && slow.stderr.contains("most_ms: "), "{}", slow.stderr);
    assert_eq!(run(&["--init", "rail", "-d", &old]).code, 0);
    let strict = run(&["-d", &new, "--set", "gate.strict=true"]);
    assert_eq!(strict.code, 3, "{}", strict.stderr);
    assert!(strict.stderr.contains("class_drop: no held-out sample judges `hat`, "), "{}", strict.stderr);
    let second = run(&["-d", &new]);
    assert_eq!(second.code, 0, "{}", second.stderr);
    assert!(second.stderr.contains("--probe"), "{}", second.stderr);
}

#[test]
fn merges_of_low_rank_updates_and_of_prompts_show_what_they_lost() {
    let program = Program::new();
    let (north, south) = (part(&program, "north", &OLD, 0, 4), part(&program, "south", &OLD, 1, 4));
    let settings = ["--set", "fit.train.budget={ iterations = 3 }", "--set", "fit.train.batch=8"];
    for method in ["lora", "coop"] {
        let lines = ["north", "south", "pooled", "merged"].map(|line| format!("{line}-{method}"));
        let [to_north, to_south, pooled, merged] = lines.each_ref().map(String::as_str);
        let update = |target: &str, data: &str, more: &[&str]| {
            program.json(&[&["update", target, "-b", "pocket", "-d", data], more, &settings, LENIENT].concat());
        };
        update(to_north, &north, &["--init", method]);
        update(to_south, &south, &["--init", method]);
        update(to_north, &south, &["-o", pooled]);
        let report = program.json(&["merge", to_north, to_south, "-b", "pocket", "-o", merged, "--pooled", pooled]);
        assert_eq!(report["exact"], false, "{method}: {report}");
        let [whole, joined, loss] =
            ["pooled", "accuracy", "loss"].map(|name| report[name].as_f64().expect("what was held out is asked"));
        assert!((whole - joined - loss).abs() < 1e-12 && whole > 0.1 && joined > 0.1, "{method}: {report}");
        let parts = report["parts"].as_array().expect("a list");
        assert!(parts.len() == 2 && parts.iter().all(Value::is_number), "{method}: {report}");
    }
}
