//! Adaptation at test time and damaged data, as a user meets them.

use std::path::Path;

use serde_json::Value;

use super::Program;
use super::program::{sample, short_fit};

/// A small data set of test images: two of each class of the sample, damaged.
fn damaged(program: &Program, kind: &str) -> String {
    let arguments = ["corrupt", "-d", sample(), "-o", "damaged", "--kind", kind, "--severity", "2", "--limit", "2"];
    let copies = program.json(&arguments)["copies"].clone();
    assert_eq!(copies[0]["images"], 20);
    copies[0]["folder"].as_str().expect("a folder").to_string()
}

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for path in inarch_core::file::list(folder).expect("a folder") {
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.display().to_string(), std::fs::read(&path).expect("a file")));
        }
    }
    found
}

#[test]
fn damage_is_reproducible_and_a_copy_is_a_data_set() {
    let (left, right) = (Program::new(), Program::new());
    let (one, other) = (damaged(&left, "noise"), damaged(&right, "noise"));
    assert_eq!(one, "damaged/noise-2");
    let bytes = |program: &Program, folder: &str| -> Vec<Vec<u8>> {
        files(&program.path(folder)).into_iter().map(|(_, bytes)| bytes).collect()
    };
    assert_eq!(bytes(&left, &one), bytes(&right, &other));
    assert_eq!(left.json(&["eval", "-b", "pocket", "-d", &one])["n"], 20);
    left.fail(
        &["corrupt", "-d", sample(), "-o", "damaged", "--kind", "noise", "--severity", "2"],
        2,
        &["exists already"],
    );
    left.fail(&["corrupt", "-d", sample(), "-o", "x", "--severity", "6"], 2, &["severity 6"]);
    left.fail(&["corrupt", "-d", sample(), "-o", "x", "--kind", "rain"], 2, &["rain", "low-contrast"]);
    assert!(!left.path("x").exists());
}

#[test]
fn an_evaluation_tells_what_the_adaptation_did() {
    let program = Program::new();
    let data = damaged(&program, "blur");
    let plain = program.json(&["eval", "-b", "pocket", "-d", &data]);
    assert_eq!(plain.get("test_time"), None);
    assert_eq!(
        program.json(&["eval", "-b", "pocket", "-d", &data, "--test-time", "none"])["confusion"],
        plain["confusion"]
    );
    for method in ["tda", "zero", "tpt"] {
        let arguments = ["eval", "-b", "pocket", "-d", &data, "--test-time", method, "--set", "test-time.views=4"];
        let found = program.json(&arguments);
        for key in ["accuracy", "n", "classes", "per_class", "ece", "seconds"] {
            assert!(found.get(key).is_some(), "{method}: {key}");
        }
        let report = &found["test_time"];
        assert_eq!(report["method"], *method);
        for key in ["seconds_per_image", "views_share", "admitted", "fell_back", "abstained", "memory_bytes"] {
            assert!(report[key].is_number(), "{method}: {key}");
        }
        let (own, before) = (report["unadapted"]["accuracy"].as_f64(), plain["accuracy"].as_f64());
        assert!((own.expect("a number") - before.expect("a number")).abs() < 1e-9, "{method}");
        assert_eq!(report["orders"].as_array().map(Vec::len), Some(if method == "tda" { 3 } else { 1 }));
        assert_eq!(report["admitted"].as_u64().expect("a number") > 0, method == "tda");
        let again = program.json(&arguments);
        assert_eq!((&again["nll"], &again["confusion"]), (&found["nll"], &found["confusion"]), "{method}: repeated");
    }
}

#[test]
fn wrong_names_and_settings_list_those_that_exist() {
    let program = Program::new();
    let eval = |rest: &[&'static str]| [&["eval", "-b", "pocket", "-d", sample()][..], rest].concat();
    program.fail(&eval(&["--test-time", "tpd"]), 2, &["tpd", "tpt", "boost-adapter"]);
    program.fail(&eval(&["--test-time", "tda", "--set", "test-time.alhpa=1"]), 2, &["alhpa", "negative_alpha"]);
    program.fail(&eval(&["--test-time", "tda", "--set", "alpha=1"]), 2, &["test-time.KEY=VALUE"]);
    program.fail(&eval(&["--set", "test-time.alpha=1"]), 2, &["no method", "--test-time"]);
    program.fail(&eval(&["--test-time", "rlcf"]), 2, &["test-time.judge"]);
    program.fail(&eval(&["--test-time", "tda", "--abstain", "0.5"]), 2, &["--abstain", "test-time.abstain"]);
}

#[test]
fn a_stream_goes_on_from_its_state() {
    let program = Program::new();
    let data = damaged(&program, "clean");
    let names: Vec<String> = files(&program.path(&data)).into_iter().map(|(path, _)| path).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let classes = "dress,hat,longsleeve,outwear,pants,shirt,shoes,shorts,skirt,t-shirt";
    let predict = |images: &[&str], rest: &[&str]| -> Value {
        program.json(
            &[&["predict", "-b", "pocket", "--classes", classes, "--test-time", "dmn-weak"], rest, images].concat(),
        )
    };
    let whole = predict(&names, &["--test-time-audit", "audit.jsonl"]);
    let first = predict(&names[..8], &["--test-time-state", "state.safetensors"]);
    let second = predict(&names[8..], &["--test-time-state", "state.safetensors"]);
    let images = |value: &Value| value["images"].as_array().expect("a list").clone();
    assert_eq!([images(&first), images(&second)].concat(), images(&whole));
    let audit = std::fs::read_to_string(program.path("audit.jsonl")).expect("an audit");
    assert_eq!(audit.lines().count(), 20);
    let withheld = predict(&names[..4], &["--abstain", "1"]);
    assert!(images(&withheld).iter().all(|image| image["abstained"] == true));
    assert_eq!(withheld["test_time"]["abstained"], 4);
    let line: Value = serde_json::from_str(audit.lines().next().expect("a line")).expect("JSON");
    assert_eq!((line["position"].as_u64(), line["memory"].as_str()), (Some(0), Some("memory")));
    let arguments = ["predict", "-b", "pocket", "--classes", classes, "--test-time", "tda", "--test-time-state"];
    program.fail(&[&arguments[..], &["state.safetensors", names[0]]].concat(), 3, &["method"]);
    std::fs::write(program.path("state.safetensors"), b"nothing").expect("writes");
    program.fail(&[&arguments[..], &["state.safetensors", names[0]]].concat(), 1, &["state.safetensors"]);
}

#[test]
fn a_trained_context_is_where_prompt_tuning_starts() {
    let program = Program::new();
    program.succeed(&short_fit("coop", "1", "coop"));
    let data = damaged(&program, "clean");
    let eval = |rest: &[&str]| program.json(&[&["eval", "-b", "pocket", "-d", &data, "-a", "coop"], rest].concat());
    let plain = eval(&[]);
    let still = eval(&["--test-time", "tpt", "--set", "test-time.views=3", "--set", "test-time.lr=0.0"]);
    assert_eq!(still["confusion"], plain["confusion"]);
    let moved = eval(&["--test-time", "tpt", "--set", "test-time.views=3", "--set", "test-time.lr=0.05"]);
    assert_ne!(moved["nll"], plain["nll"]);
    // Features stand in for images where one view is enough.
    program.succeed(&["encode", "-b", "pocket", "--images", &data, "-o", "f.safetensors"]);
    let images = program.json(&["eval", "-b", "pocket", "-d", &data, "--test-time", "tda"]);
    let features = program.json(&["eval", "-b", "pocket", "-d", "f.safetensors", "--test-time", "tda"]);
    assert_eq!(features["test_time"]["admitted"].as_u64().map(|admitted| admitted > 0), Some(true));
    assert_eq!(images["n"], features["n"]);
    // As much where the class features depend on the image.
    program.succeed(&short_fit("cocoop", "1", "cocoop"));
    let each = program.json(&["eval", "-b", "pocket", "-d", &data, "-a", "cocoop", "--test-time", "tda"]);
    assert_eq!(each["test_time"]["most_memory_bytes"], images["test_time"]["most_memory_bytes"]);
    program.fail(&["eval", "-b", "pocket", "-d", "f.safetensors", "--test-time", "tpt"], 1, &["64 views", "tda"]);
}

#[test]
fn views_from_files_take_the_place_of_random_ones() {
    let program = Program::new();
    let data = damaged(&program, "clean");
    let images: Vec<String> = files(&program.path(&data)).into_iter().map(|(path, _)| path).collect();
    let (photo, others) = images.split_first().expect("images");
    let stem = Path::new(photo).file_stem().expect("a name").to_string_lossy().into_owned();
    let views = program.path("views").join(stem);
    std::fs::create_dir_all(&views).expect("a folder");
    for (view, other) in others.iter().take(3).enumerate() {
        let name = Path::new(other).extension().expect("an ending").to_string_lossy().into_owned();
        std::fs::copy(other, views.join(format!("{view}.{name}"))).expect("a copy");
    }
    let predict = |seed: &str, from: &[&str]| {
        let classes = "--classes=cat,dog,ship,truck";
        let settings = ["--set", "test-time.views=4", "--set", seed];
        let words = ["predict", "-b", "pocket", classes, "--test-time", "tps"];
        program.json(&[&words[..], &settings, from, &[photo.as_str()]].concat())["images"].clone()
    };
    let from = ["--set", "test-time.views_from=views"];
    let seeds = ["test-time.seed=1", "test-time.seed=2"];
    let [random, other] = seeds.map(|seed| predict(seed, &[]));
    assert_ne!(random, other, "random views depend on the seed");
    let [given, again] = seeds.map(|seed| predict(seed, &from));
    assert_eq!(given, again, "there is room for no random one");
    assert_ne!(given, random);

    std::fs::write(views.join("0.jpg"), "no image").expect("a file");
    let faulty = ["predict", "-b", "pocket", "--classes=cat,dog", "--test-time", "tps", from[0], from[1], photo];
    program.fail(&faulty, 1, &["0.jpg", "cannot be decoded"]);
}
