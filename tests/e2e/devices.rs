//! Devices by name, and inference in half precision.

use inarch_core::checkpoint::read_safetensors;
use serde_json::Value;

use super::Program;
use super::program::{sample, short_fit};

/// Features of the sample in a precision, through an adapter where one is named.
fn features(program: &Program, precision: &str, adapter: &[&str]) -> Vec<f32> {
    let base = ["encode", "-b", "pocket", "--images", sample(), "--precision", precision, "-o", "f.st"];
    program.succeed(&[&base[..], adapter].concat());
    read_safetensors(&program.path("f.st")).expect("reads").0["features"].data.clone()
}

#[test]
fn half_precision_is_near_to_single_precision() {
    let program = Program::new();
    program.succeed(&short_fit("lora", "1", "adapted"));
    for adapter in [&[][..], &["-a", "adapted"]] {
        let exact = features(&program, "f32", adapter);
        let length = exact.iter().map(|value| value * value).sum::<f32>().sqrt();
        // A few units in the last place of each: 2^-11 and 2^-8.
        for (precision, most) in [("f16", 0.005), ("bf16", 0.04)] {
            let found = features(&program, precision, adapter);
            let squares: f32 = exact.iter().zip(&found).map(|(exact, found)| (exact - found).powi(2)).sum();
            let apart = squares.sqrt() / length;
            assert!(apart > 0.0 && apart < most, "{precision} {adapter:?}: {apart}");
        }
        let accuracy = |precision| {
            let eval = ["eval", "-b", "pocket", "-d", sample(), "--precision", precision];
            program.json(&[&eval[..], adapter].concat())["accuracy"].as_f64().expect("a number")
        };
        assert!((accuracy("f32") - accuracy("f16")).abs() <= 0.02);
    }
    program.fail(&["eval", "-b", "pocket", "-d", sample(), "--precision", "f8"], 2, &["bf16"]);
}

#[test]
fn training_with_products_of_fewer_digits_follows_that_with_all() {
    let program = Program::new();
    // One each for linear sites, tokens, both towers, the text tower behind shared beginnings, and features alone.
    for method in ["dora", "vpt-deep", "maple", "coop", "linear-probe"] {
        let losses = |precision: &str| {
            let (folder, setting) = (format!("{method}-{precision}"), format!("train.precision={precision:?}"));
            program.succeed(&[&short_fit(method, "1", &folder)[..], &["--set", &setting]].concat());
            let report = std::fs::read_to_string(program.path(&folder).join("report.json")).expect("a report");
            let report: Value = serde_json::from_str(&report).expect("JSON");
            // What comes out is an adapter like any other.
            program.succeed(&["eval", "-b", "pocket", "-d", sample(), "-a", &folder]);
            let losses = report["losses"].as_array().expect("losses").clone();
            losses.iter().map(|loss| loss.as_f64().expect("a number")).collect::<Vec<f64>>()
        };
        let (full, reduced) = (losses("f32"), losses("bf16"));
        assert_eq!(full.len(), reduced.len(), "{method}");
        for (full, reduced) in full.iter().zip(&reduced) {
            assert!((full - reduced).abs() < 0.03 * full.max(1.0), "{method}: {full} {reduced}");
        }
        // Nothing frozen runs in the steps of a probe.
        assert_eq!(full == reduced, method == "linear-probe", "{method}: {full:?}");
    }
}

#[test]
fn a_list_in_another_precision_is_another_list() {
    let program = Program::new();
    let work = |precision| {
        let shard = ["encode", "-b", "pocket", "--images", sample(), "--shard", "0/100", "-o", "0.st"];
        let made = program.json(&[&shard[..], &["--precision", precision]].concat());
        assert_eq!(made["reused"], false);
        made["work"].clone()
    };
    assert_ne!(work("f32"), work("f16"));
}

#[test]
fn devices_that_are_not_there_are_named_with_their_cure() {
    let program = Program::new();
    let on = |device| ["eval", "-b", "pocket", "-d", sample(), "--device", device];
    program.fail(&on("gpu"), 2, &["gpu", "cpu"]);
    program.fail(&on("cpu:1"), 1, &["expected `cpu`"]);
    let doctor = program.json(&["doctor"]);
    let devices = doctor["devices"].as_array().expect("devices");
    assert_eq!((&devices[0]["name"], &devices[0]["works"]), (&"cpu".into(), &true.into()));
    for device in devices.iter().filter(|device| device["compiled_in"] == false) {
        let name = device["name"].as_str().expect("a name");
        assert_eq!(device["works"], Value::Null, "{name}");
        assert!(device["cure"].as_str().is_some_and(|cure| cure.contains("--features")), "{name}");
        program.fail(&on(name), 1, &["not compiled in", "--features"]);
        if name == "remote" {
            program.fail(&["lend", "--listen", "127.0.0.1:0"], 1, &["not compiled in", "--features remote"]);
        }
    }
}
