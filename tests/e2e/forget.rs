//! `memory forget` where a version never changes, and where the memory does not hold the sample any more.

use serde_json::{Value, json};

use super::Program;
use super::update::{OLD, ids, part, record, update};

#[test]
fn an_alias_of_the_registry_forgets() {
    let program = Program::new();
    let old = part(&program, "old", &OLD, 0, 2);
    program.json(&update("shop@prod", &old, &["--init", "rail"]));
    let one = ids(&program, "shop@prod")[0].clone();
    let forget = ["memory", "forget", "shop@prod", "-b", "pocket", &one];
    // What cannot be done is said before anything is.
    program.fail(&[&forget[..], &["--purge"]].concat(), 1, &["never change", "gc --keep"]);
    program.fail(&["memory", "forget", "shop@1", "-b", "pocket", &one], 1, &["never changes"]);
    assert!(ids(&program, "shop@prod").contains(&one));
    let report = program.json(&forget);
    assert_eq!((&report["version"], &report["parent"]), (&json!("shop@2"), &json!("shop@1")));
    assert_eq!((&report["from_memory"], &report["still_in"]), (&json!(1), &json!(["shop@1"])));
    assert!(!ids(&program, "shop@prod").contains(&one) && ids(&program, "shop@1").contains(&one));
    // A bare name is the newest version, as for `update`.
    assert_eq!(ids(&program, "shop"), ids(&program, "shop@2"));
    let other = ids(&program, "shop")[0].clone();
    let newest = program.json(&["memory", "forget", "shop", "-b", "pocket", &other]);
    assert_eq!((&newest["version"], &newest["still_in"]), (&json!("shop@3"), &json!(["shop@1", "shop@2"])));
    // The record is part of the version: all of it but the name, which is given to what is whole.
    let files = inarch_core::file::list(&program.path("home/registry/checkouts"));
    let records = files.expect("lists").into_iter().map(|folder| folder.join("forgotten.json"));
    let texts: Vec<String> = records.filter_map(|path| std::fs::read_to_string(path).ok()).collect();
    let mut found = texts.iter().map(|text| serde_json::from_str::<Value>(text).expect("JSON"));
    let mut expected = report;
    expected["version"] = Value::Null;
    assert!(found.any(|record| record == expected), "{texts:?}");
}

/// Files of a version that show some text.
fn showing(program: &Program, version: &str, text: &str) -> Vec<String> {
    let files = inarch_core::file::list(&program.path(version)).expect("lists").into_iter();
    let shows = |path: &std::path::PathBuf| {
        let bytes = std::fs::read(path).expect("reads");
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    };
    files.filter(shows).map(|path| path.file_name().expect("a name").to_string_lossy().into_owned()).collect()
}

#[test]
fn under_a_key_no_file_of_a_version_shows_the_name_of_a_sample() {
    let program = Program::new();
    let old = part(&program, "old", &OLD, 0, 4);
    program.succeed(&["memory", "key", "key"]);
    let first = |target, more: &[&'static str]| {
        program.json(&[&["update", target, "-b", "pocket", "-d", &old, "--init", "rail-dual"], more].concat())
    };
    first("plain", &[]);
    first("sealed", &["--key", "key"]);
    let name = ids(&program, "plain")[0].clone();
    assert_eq!(showing(&program, "plain/1", &name), ["memory.inarch", "statistics.safetensors"]);
    assert!(showing(&program, "sealed/1", &name).is_empty());
    // And it is forgotten under the key, alike.
    let forget = |target, more: &[&'static str]| {
        program.json(&[&["memory", "forget", target, "-b", "pocket", &name], more].concat())
    };
    let (plain, sealed) = (forget("plain", &[]), forget("sealed", &["--key", "key"]));
    for field in ["samples", "adapter", "statistics"] {
        assert_eq!(plain[field], sealed[field], "{field}");
    }
    assert!(showing(&program, "plain/2", &name).is_empty());
}
