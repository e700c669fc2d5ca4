//! A memory at work with a longest age: what is older goes, and that is on record.

use std::time::SystemTime;

use inarch_continual::{Memory, Sample};
use serde_json::json;

use super::Program;
use super::update::{NEW, OLD, ids, part, record};

const DAY: u64 = 24 * 60 * 60;

/// Puts a memory to work that was filled from some data, every third sample two days ago; returns the ids of those.
fn aged(program: &Program, name: &str, data: &str) -> Vec<String> {
    program.json(&["memory", "add", "fresh", "-b", "pocket", "-d", data, "--set", "most_days=1"]);
    program.json(&["memory", "export", "fresh", "fresh.memory"]);
    let fresh = Memory::load(&program.path("fresh.memory"), None).expect("a snapshot");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
    assert!(fresh.samples().all(|sample| sample.time <= now && sample.time + DAY / 2 > now), "added just now");
    let of = |at: usize| if at.is_multiple_of(3) { now - 2 * DAY } else { now };
    let samples: Vec<Sample> =
        fresh.samples().enumerate().map(|(at, sample)| Sample { time: of(at), ..sample.clone() }).collect();
    let old = samples.iter().filter(|sample| sample.time < now).map(|sample| sample.id.clone()).collect();
    let mut memory = Memory::new(*fresh.config(), fresh.fingerprint().clone()).expect("a memory");
    memory.offer(samples).expect("samples");
    memory.save(&program.path("aged.memory"), None).expect("writes");
    program.json(&["memory", "import", "aged.memory", name]);
    old
}

#[test]
fn what_is_too_old_goes_from_a_memory_at_work_and_is_on_record() {
    let program = Program::new();
    let (old, new) = (part(&program, "old", &OLD, 0, 4), part(&program, "new", &NEW, 0, 4));
    let gone = aged(&program, "camera", &old);
    let held = ids(&program, "camera");
    assert!(gone.len() > 3 && gone.iter().all(|id| held.contains(id)), "{gone:?}");

    let report = program.json(&["memory", "expire", "camera"]);
    assert_eq!((&report["expired"], &report["samples"]), (&json!(gone), &json!(held.len() - gone.len())));
    let left = ids(&program, "camera");
    assert!(left.len() == held.len() - gone.len() && !gone.iter().any(|id| left.contains(id)));
    let records = record(&program, "home/memory/camera.forgotten.json");
    assert_eq!((&records[0]["by"], &records[0]["from_memory"]), (&json!("expire"), &json!(gone.len())));
    assert_eq!(records[0]["samples"], json!([held.len(), left.len()]));
    assert!(records[0]["memory"][0] != records[0]["memory"][1] && !records.to_string().contains("hat"));
    // Nothing is too old any more.
    let again = program.json(&["memory", "expire", "camera"]);
    assert_eq!((&again["expired"], &again["record"]), (&json!([]), &json!(null)));
    program.json(&["memory", "forget", "camera", &left[0]]);
    let records = record(&program, "home/memory/camera.forgotten.json");
    assert_eq!((records.as_array().map(Vec::len), &records[1]["by"]), (Some(2), &json!("forget")));

    // The same when samples come in.
    let gone = aged(&program, "gate", &old);
    let added = program.json(&["memory", "add", "gate", "-b", "pocket", "-d", &new]);
    assert_eq!(added["expired"], json!(gone.len()));
    let held = ids(&program, "gate");
    assert!(held.iter().any(|id| id.starts_with("new/")) && !gone.iter().any(|id| held.contains(id)));
    assert_eq!(record(&program, "home/memory/gate.forgotten.json")[0]["from_memory"], json!(gone.len()));

    program.fail(&["memory", "expire", "nothing"], 2, &["no memory at work", "nothing"]);
    program.json(&["memory", "add", "keeper", "-b", "pocket", "-d", &new]);
    program.fail(&["memory", "expire", "keeper"], 2, &["keeps samples for ever", "most_days"]);
}
