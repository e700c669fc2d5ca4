//! `memory drift`: the state that is carried from batch to batch, and whose it is; images that cannot be read.

use serde_json::{Value, json};

use super::Program;
use super::update::{OLD, ids, part, record, update};
use crate::support::fixture;

#[test]
fn a_drift_state_holds_no_sample_and_belongs_to_its_memory() {
    let program = Program::new();
    let old = part(&program, "old", &OLD, 0, 2);
    program.succeed(&["memory", "key", "key"]);
    program.json(&["memory", "add", "ward", "-b", "pocket", "-d", &old, "--key", "key"]);
    let sealed = ["memory", "drift", "ward", "-b", "pocket", "-d", &old, "--key", "key", "--state", "ward.drift"];
    program.json(&sealed);
    let bytes = std::fs::read(program.path("ward.drift")).expect("a state");
    assert!(bytes.starts_with(b"INARCHE1"), "{}", String::from_utf8_lossy(&bytes));
    program.json(&sealed);

    program.json(&["memory", "add", "camera", "-b", "pocket", "-d", &old]);
    let drift = ["memory", "drift", "camera", "-b", "pocket", "-d", &old, "--state", "drift.json"];
    program.json(&drift);
    program.json(&drift);
    let state = record(&program, "drift.json");
    let names: Vec<&str> = state.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(names, ["schema", "fingerprint", "memory", "window", "batches"], "no latents");
    assert_eq!(state["batches"].as_u64(), Some(2));

    // Another backbone's memory is not compared with what was seen of this one.
    let tiny = fixture("parity/clip_tiny/quick").display().to_string();
    program.json(&["memory", "add", "other", "-b", &tiny, "-d", &old]);
    let other = ["memory", "drift", "other", "-b", &tiny, "-d", &old, "--state", "drift.json"];
    program.fail(&other, 3, &["refused", "drift.json", "pocket", "remove it"]);
    // Nor is the same memory with other samples.
    let one = ids(&program, "camera")[0].clone();
    program.json(&["memory", "forget", "camera", &one]);
    program.fail(&drift, 3, &["refused", "drift.json", "forgotten", "remove it"]);
    let before: Value = record(&program, "drift.json");
    assert_eq!(before, state, "what is refused is left as it is");
    std::fs::remove_file(program.path("drift.json")).expect("removes");
    program.json(&drift);
    assert_ne!(record(&program, "drift.json")["memory"], state["memory"]);

    // Nor does an update of something else go on with it.
    let first = ["--init", "rail", "--state", "drift.json"];
    program.fail(&update("shop", &old, &first), 3, &["refused", "drift.json", "remove it"]);

    // What older versions wrote: latents in clear, and nothing that says whose.
    std::fs::write(program.path("drift.json"), r#"{"config":{},"dim":256,"reference":[0.5],"mean":[0.5]}"#)
        .expect("writes");
    program.fail(&drift, 3, &["refused", "drift.json", "older version", "remove it"]);
}

#[test]
fn images_that_cannot_be_read_are_left_out_of_a_memory_and_of_a_batch() {
    let program = Program::new();
    let old = part(&program, "old", &OLD[..2], 0, 2);
    let images = |class: &str| inarch_core::file::list(&program.path("old/train").join(class)).expect("images");
    let broken = images(OLD[0])[0].clone();
    let name = broken.file_name().expect("a name").to_string_lossy().into_owned();
    std::fs::write(&broken, "no image").expect("writes");
    let readable = images(OLD[0]).len() + images(OLD[1]).len() - 1;
    let skip = ["--on-bad-image", "skip"];
    let add = ["memory", "add", "ward", "-b", "pocket", "-d", &old];
    program.fail(&add, 1, &[&name, "--on-bad-image skip"]);
    let added = program.json(&[&add[..], &skip].concat());
    assert_eq!(added["samples"], json!(readable));
    let drift = ["memory", "drift", "ward", "-b", "pocket", "-d", &old];
    program.fail(&drift, 1, &[&name, "--on-bad-image skip"]);
    let seen = program.json(&[&drift[..], &skip].concat());
    assert!(seen["drifted"].is_boolean());
    for found in [&added, &seen] {
        let skipped = found["skipped"].as_array().expect("a list");
        assert!(skipped.len() == 1 && skipped[0].as_str().is_some_and(|path| path.ends_with(&name)), "{found}");
    }
    for arguments in [&add, &drift] {
        let text = program.succeed(&[&arguments[..], &skip].concat());
        assert!(text.contains(&format!("{name}: could not be read")), "{text}");
    }
    // Of nothing, nothing is remembered.
    for path in OLD[..2].iter().flat_map(|class| images(class)) {
        std::fs::write(path, "no image").expect("writes");
    }
    let none = ["memory", "add", "none", "-b", "pocket", "-d", &old];
    program.fail(&[&none[..], &skip].concat(), 1, &["data set `old`", "none of its training images"]);
    program.fail(&["memory", "show", "none"], 2, &["there is no memory `none`"]);
}
