//! The names under which parameters are stored. They are the file format: a field that is renamed would make every
//! saved adapter unreadable, so the list is written out in `names.txt`.

use std::fmt::Write as _;

use super::case::{fresh, methods};
use crate::support::{fixture, plain};

/// Set it to write the list anew, after a change of the format that is meant.
const REWRITE: &str = "INARCH_WRITE_FIXTURES";

#[test]
fn parameters_are_stored_under_their_written_names() {
    let mut found = String::new();
    for config in methods() {
        for (name, tensor) in fresh(&config, 1, &plain()).parameters() {
            writeln!(found, "{} {name} {:?}", config.name(), tensor.shape).expect("a string");
        }
    }
    let path = fixture("contract/names.txt");
    if std::env::var_os(REWRITE).is_some() {
        std::fs::write(&path, &found).expect("a writable repository");
    }
    let written = std::fs::read_to_string(&path).expect("the list");
    let missing: Vec<&str> = found.lines().filter(|line| !written.lines().any(|known| known == *line)).collect();
    let gone: Vec<&str> = written.lines().filter(|line| !found.lines().any(|known| known == *line)).collect();
    assert!(
        missing.is_empty() && gone.is_empty(),
        "`tests/contract/names.txt` lacks {missing:#?} and has {gone:#?}; if the change is meant, run again with {REWRITE}=1"
    );
}

#[test]
fn every_linear_layer_has_a_name() {
    let projections = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"];
    let mut expected = Vec::new();
    for (tower, depth) in [("image", 3), ("text", 2)] {
        for block in 0..depth {
            expected.extend(projections.map(|projection| format!("{tower}.blocks.{block}.{projection}")));
        }
        expected.push(format!("{tower}.projection"));
    }
    let found: Vec<String> = inarch_peft::all_sites(crate::support::tiny()).map(|site| site.to_string()).collect();
    assert_eq!(found, expected);
}
