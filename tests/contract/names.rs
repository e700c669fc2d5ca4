//! The names under which parameters are stored. They are the file format: a field that is renamed would make every
//! saved adapter unreadable, so the lists are written out.

use super::case::{fresh, methods};
use crate::support::plain;

const LORA: [&str; 30] = [
    "sites.image.blocks.0.k_proj.a",
    "sites.image.blocks.0.k_proj.b",
    "sites.image.blocks.0.q_proj.a",
    "sites.image.blocks.0.q_proj.b",
    "sites.image.blocks.0.v_proj.a",
    "sites.image.blocks.0.v_proj.b",
    "sites.image.blocks.1.k_proj.a",
    "sites.image.blocks.1.k_proj.b",
    "sites.image.blocks.1.q_proj.a",
    "sites.image.blocks.1.q_proj.b",
    "sites.image.blocks.1.v_proj.a",
    "sites.image.blocks.1.v_proj.b",
    "sites.image.blocks.2.k_proj.a",
    "sites.image.blocks.2.k_proj.b",
    "sites.image.blocks.2.q_proj.a",
    "sites.image.blocks.2.q_proj.b",
    "sites.image.blocks.2.v_proj.a",
    "sites.image.blocks.2.v_proj.b",
    "sites.text.blocks.0.k_proj.a",
    "sites.text.blocks.0.k_proj.b",
    "sites.text.blocks.0.q_proj.a",
    "sites.text.blocks.0.q_proj.b",
    "sites.text.blocks.0.v_proj.a",
    "sites.text.blocks.0.v_proj.b",
    "sites.text.blocks.1.k_proj.a",
    "sites.text.blocks.1.k_proj.b",
    "sites.text.blocks.1.q_proj.a",
    "sites.text.blocks.1.q_proj.b",
    "sites.text.blocks.1.v_proj.a",
    "sites.text.blocks.1.v_proj.b",
];

#[test]
fn parameters_are_stored_under_their_written_names() {
    for config in methods() {
        let written: &[&str] = match config.name() {
            "linear-probe" => &["prototypes"],
            "coop" => &["context"],
            "lora" => &LORA,
            other => panic!("write the parameter names of `{other}` here"),
        };
        let found: Vec<String> = fresh(&config, 1, &plain()).parameters().into_keys().collect();
        assert_eq!(found, written, "{}", config.name());
    }
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
