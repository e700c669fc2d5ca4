//! Clips through the program: generated, learned from, evaluated, predicted, encoded, kept.

use std::path::Path;

use serde_json::Value;

use super::Program;
use super::program::{adapter_bytes, sample};

/// A small set of actions, as folders of frames or GIFs.
fn actions(program: &Program, name: &str, more: &[&str]) -> Value {
    let numbers = ["--train", "2", "--test", "2", "--length", "12", "--side", "32"];
    program.json(&[&["data", "actions", sample(), "-o", name], &numbers[..], more].concat())
}

fn fit(program: &Program, method: &str, data: &str, more: &[&str], output: &str) {
    let base = ["fit", "-b", "pocket", "-d", data, "-m", method, "--set", "train.budget={ iterations = 4 }"];
    program.succeed(&[&base[..], &["--set", "views=2", "-o", output], more].concat());
}

fn first_clip(program: &Program, data: &str) -> String {
    program.path(data).join("test/growing/000").display().to_string()
}

#[test]
fn folders_of_frames_go_through_every_verb() {
    let program = Program::new();
    let made = actions(&program, "actions", &[]);
    assert_eq!(
        (made["classes"].as_u64(), made["train"].as_u64(), made["test"].as_u64()),
        (Some(10), Some(20), Some(20))
    );

    // Without a word they are images, and the program says what else they could be.
    let images = program.run(&["eval", "-b", "pocket", "-d", "actions", "--json"]);
    assert!(images.stderr.contains("--frames 8"), "{}", images.stderr);
    let found: Value = serde_json::from_str(&images.stdout).expect("JSON");
    assert_eq!(found["n"], 240);

    // Forwards and backwards are one and the same to mean pooling: each opposite pair gets one answer.
    let zero_shot = program.json(&["eval", "-b", "pocket", "-d", "actions", "--frames", "4"]);
    assert_eq!(zero_shot["n"], 20);
    let confusion = zero_shot["confusion"].as_array().expect("counts");
    let of = |class: &str| {
        let classes = zero_shot["classes"].as_array().expect("classes");
        &confusion[classes.iter().position(|name| name == class).expect("a class")]
    };
    for [forwards, backwards] in inarch_core::data::ACTIONS {
        assert_eq!(of(forwards), of(backwards), "{forwards}");
    }

    let store = ["--store", "1GiB"];
    for method in ["temporal-conv", "st-adapter"] {
        let folder = |end: &str| format!("{method}{end}");
        fit(&program, method, "actions", &["--frames", "4"], &folder(""));
        // A store changes nothing, whether it is empty or full.
        for end in ["-first", "-second"] {
            fit(&program, method, "actions", &[&["--frames", "4"][..], &store].concat(), &folder(end));
            assert!(
                adapter_bytes(&program.path(method)) == adapter_bytes(&program.path(&folder(end))),
                "{method}{end}"
            );
        }
    }
    let recipe = std::fs::read_to_string(program.path("temporal-conv/recipe.toml")).expect("the resolved recipe");
    assert!(recipe.contains("[clips]") && recipe.contains("frames = 4"), "{recipe}");

    // The adapter says how its clips are read.
    let report: Value =
        inarch_core::file::read_json(&program.path("temporal-conv/report.json"), "report").expect("JSON");
    let own = program.json(&["eval", "-b", "pocket", "-d", "actions", "-a", "temporal-conv"]);
    assert_eq!(own["accuracy"], report["test"]["accuracy"]);
    let views = ["--clip-views", "3"];
    let several =
        program.json(&[&["eval", "-b", "pocket", "-d", "actions", "-a", "temporal-conv"][..], &views].concat());
    assert_eq!(several["n"], 20);
    assert_ne!(several["ece"], own["ece"], "other frames were seen");

    let clip = first_clip(&program, "actions");
    let found = program.json(&["predict", "-b", "pocket", "-a", "temporal-conv", &clip, "--top-k", "10"]);
    assert_eq!(found["images"][0]["predictions"].as_array().map(Vec::len), Some(10));

    // Features of clips are rows like any other.
    program.succeed(&["encode", "-b", "pocket", "--images", "actions", "--frames", "4", "-o", "clips.safetensors"]);
    let of_rows = program.json(&["eval", "-b", "pocket", "-d", "clips.safetensors"]);
    assert_eq!(of_rows["accuracy"], zero_shot["accuracy"]);
    program.succeed(&["encode", "-b", "pocket", "-a", "temporal-conv", "--images", &clip, "-o", "one.safetensors"]);
    let one = inarch_core::data::FeatureFile::read(&program.path("one.safetensors")).expect("features");
    assert_eq!(one.rows(), 1);

    // What clips cannot do is said.
    program.fail(&["eval", "-b", "pocket", "-d", "actions", "--frames", "0"], 1, &["clips.frames"]);
    program.fail(
        &["eval", "-b", "pocket", "-d", sample(), "--frames", "4"],
        1,
        &["nothing in it has more than one frame"],
    );
    program.fail(
        &["eval", "-b", "pocket", "-d", "actions", "--frames", "4", "--test-time", "tpt"],
        1,
        &["still images"],
    );
}

#[test]
fn gifs_that_move_need_no_word_and_a_clip_that_cannot_be_read_is_left_out() {
    let program = Program::new();
    actions(&program, "gifs", &["--gif"]);
    actions(&program, "frames", &[]);
    let gifs = program.json(&["eval", "-b", "pocket", "-d", "gifs"]);
    let frames = program.json(&["eval", "-b", "pocket", "-d", "frames", "--frames", "8"]);
    assert_eq!((&gifs["n"], &frames["n"]), (&20.into(), &20.into()));
    fit(&program, "attention-pool", "gifs", &[], "adapter");
    let clip = program.path("gifs/test/growing/000.gif").display().to_string();
    let found = program.json(&["predict", "-b", "pocket", "-a", "adapter", &clip]);
    assert_eq!(found["images"].as_array().map(Vec::len), Some(1));

    let broken = program.path("frames/test/growing/001/003.png");
    std::fs::write(&broken, b"no image").expect("written");
    let eval = ["eval", "-b", "pocket", "-d", "frames", "--frames", "8"];
    program.fail(&eval, 1, &["003.png"]);
    let left = program.json(&[&eval[..], &["--on-bad-image", "skip"]].concat());
    assert_eq!((&left["n"], left["skipped"].as_array().map(Vec::len)), (&19.into(), Some(1)));
    // In training as well, where towers run in every step.
    let broken = program.path("frames/train/growing/001/003.png");
    std::fs::write(&broken, b"no image").expect("written");
    fit(&program, "st-adapter", "frames", &["--frames", "8", "--on-bad-image", "skip", "--set", "views=0"], "skipping");
    assert!(Path::new(&program.path("skipping/adapter.json")).is_file());
}
