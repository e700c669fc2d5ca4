//! How sure answers are: those that are withheld, and a temperature.

use serde_json::Value;

use super::{Program, halves, share};

#[test]
fn unsure_answers_are_withheld() {
    let program = Program::new();
    for number in 0..24u32 {
        let class = ["left", "plain"][number as usize % 2];
        halves(&program, &format!("data/test/{class}/{number}.png"), class == "left", false, number);
    }
    let found = program.json(&["eval", "-b", "pocket", "-d", "data", "--abstain", "0.55"]);
    let points = found["selective"]["points"].as_array().expect("points");
    let at = |threshold: f64| points.iter().find(|point| share(&point["threshold"]) == threshold).expect("a point");
    assert_eq!(share(&at(0.0)["coverage"]), 1.0);
    assert_eq!(share(&at(0.0)["accuracy"]), share(&found["accuracy"]));
    let images: Vec<String> = (0..24).map(|n| format!("data/test/{}/{n}.png", ["left", "plain"][n % 2])).collect();
    let images: Vec<&str> = images.iter().map(String::as_str).collect();
    let predict = ["predict", "-b", "pocket", "--classes", "left,plain", "--abstain", "0.55"];
    let answers = program.json(&[&predict[..], &images].concat());
    let answers = answers["images"].as_array().expect("images");
    let given = answers.iter().filter(|image| image["abstained"] == false).count();
    assert!((given as f64 / 24.0 - share(&at(0.55)["coverage"])).abs() < 1e-9);
    for image in answers {
        assert_eq!(image["abstained"] == true, share(&image["predictions"][0]["score"]) < 0.55);
    }
    program.fail(&["eval", "-b", "pocket", "-d", "data", "--abstain", "2"], 2, &["from 0 to 1"]);
    // The threshold that answers half of the images answers them.
    let surest = found["selective"]["surest"].as_array().expect("points");
    assert_eq!(surest.iter().map(|point| share(&point["share"])).collect::<Vec<_>>(), [1.0, 0.9, 0.8, 0.5]);
    assert_eq!(share(&surest[0]["accuracy"]), share(&found["accuracy"]));
    // Read back from text, it may be off by its last bit.
    let threshold = share(&surest[3]["threshold"]) - 1e-9;
    let found = program.json(&["eval", "-b", "pocket", "-d", "data", "--abstain", &threshold.to_string()]);
    let points = found["selective"]["points"].as_array().expect("points");
    let close = |point: &&Value| (share(&point["threshold"]) - threshold).abs() < 1e-12;
    let point = points.iter().find(close).expect("the threshold");
    for key in ["coverage", "accuracy"] {
        assert_eq!(share(&point[key]), share(&surest[3][key]), "{key}");
    }
    assert!(share(&point["coverage"]) >= 0.5);
}

#[test]
fn a_temperature_from_validation_images_changes_probabilities_and_no_answer() {
    let program = Program::new();
    for number in 0..24u32 {
        let class = ["left", "plain"][number as usize % 2];
        // The same images twice, so that what is likeliest there is likeliest here.
        for split in ["val", "test"] {
            halves(&program, &format!("data/{split}/{class}/{number}.png"), class == "left", false, number);
        }
        halves(&program, &format!("data/train/{class}/{number}.png"), class == "left", false, 24 + number);
    }
    let budget = "train.budget={ iterations = 20 }";
    program.json(&["fit", "-b", "pocket", "-d", "data", "-m", "linear-probe", "--set", budget, "-o", "run"]);
    let eval = ["eval", "-b", "pocket", "-d", "data"];
    for (given, folder) in [(&[][..], "zero-shot"), (&["-a", "run"][..], "probe")] {
        let before = program.json(&[&eval[..], given].concat());
        let after = program.json(&[&eval[..], given, &["--calibrate", folder]].concat());
        assert_eq!((&after["accuracy"], &after["confusion"]), (&before["accuracy"], &before["confusion"]));
        let temperature = share(&after["temperature"]);
        assert!(temperature > 0.0 && (temperature - 1.0).abs() > 1e-3, "{temperature}");
        assert!(share(&after["nll"]) < share(&before["nll"]), "{folder}: {} {}", after["nll"], before["nll"]);
        // What was written is what was measured.
        let again = program.json(&[&eval[..], &["-a", folder]].concat());
        assert!((share(&again["nll"]) - share(&after["nll"])).abs() < 1e-6, "{} {}", again["nll"], after["nll"]);
        assert!(again["temperature"].is_null());
    }
    // It remembers the window of its images, as an adapter does.
    program.json(&[&eval[..], &["--window", "full", "--calibrate", "shown"]].concat());
    let manifest: Value =
        inarch_core::file::read_json(&program.path("shown/adapter.json"), "manifest").expect("a manifest");
    assert_eq!(manifest["window"], "full");
    std::fs::remove_dir_all(program.path("data/val")).expect("a folder");
    program.fail(&[&eval[..], &["--calibrate", "none"]].concat(), 1, &["no validation images"]);
}
