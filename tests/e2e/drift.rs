//! `memory drift`: the state that is carried from batch to batch, and whose it is.

use serde_json::Value;

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
