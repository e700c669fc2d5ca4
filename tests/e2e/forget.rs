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
