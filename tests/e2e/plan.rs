//! `fit --explain` tells what a run would do, and does nothing.

use serde_json::Value;

use super::Program;
use super::program::{sample, short_fit};

fn plan(program: &Program, method: &str, settings: &[&str]) -> Value {
    let mut arguments = short_fit(method, "1", "out");
    arguments.push("--explain");
    settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
    let plan = program.json(&arguments);
    assert!(!program.path("out").exists(), "{method}: an explanation leaves nothing behind");
    plan
}

fn number(plan: &Value, name: &str) -> u64 {
    plan[name].as_u64().unwrap_or_else(|| panic!("{name} in {plan}"))
}

#[test]
fn what_is_stored_and_shared_is_told_and_not_done() {
    let program = Program::new();
    // Ten kinds of things, two images of each, features of 64 values.
    let coop = plan(&program, "coop", &["views=3"]);
    assert_eq!(coop["image"]["blocks_run"], 0);
    assert_eq!((number(&coop, "stored_images"), number(&coop, "views")), (20, 3));
    assert_eq!(number(&coop, "stored_bytes"), 20 * 3 * 64 * 4);
    assert_eq!(number(&coop, "texts"), 10);
    let [padded, cut, run] = ["tokens_padded", "tokens_cut", "tokens_run"].map(|name| number(&coop, name));
    assert!(padded > cut && cut > run && run > 0, "{coop}");
    assert!(number(&coop, "naive_step") > number(&coop, "step"), "{coop}");
    // Six steps of one batch are six epochs: as many fixed views stand for fresh ones.
    assert_eq!(number(&plan(&program, "coop", &["views=0", "train.batch=20"]), "views"), 6);

    // Ten short texts through a small tower: far from too much.
    assert!(number(&coop, "activation_bytes") > 0);
    assert_eq!(coop["recomputed"], false);

    let probe = plan(&program, "linear-probe", &[]);
    assert_eq!((number(&probe, "activation_bytes"), &probe["recomputed"]), (0, &Value::from(false)));
    assert_eq!((number(&probe, "step"), &probe["text"]["blocks_run"]), (0, &Value::from(0)));

    let lora = plan(&program, "lora", &["views=0"]);
    assert_eq!((number(&lora, "stored_images"), number(&lora, "stored_bytes")), (0, 0));
    assert_eq!(lora["image"]["blocks_run"], lora["image"]["blocks"]);
    // Dropout differs from text to text, so no beginning is shared; without it one is.
    assert_eq!(lora["tokens_run"], lora["tokens_cut"]);
    let shared = plan(&program, "lora", &["views=0", "method.dropout=0.0"]);
    assert!(number(&shared, "tokens_run") < number(&shared, "tokens_cut"), "{shared}");
}

#[test]
fn a_faulty_recipe_is_refused_before_anything_is_explained() {
    let program = Program::new();
    let arguments = ["fit", "-b", "pocket", "-d", sample(), "-m", "coop", "--explain", "--set", "views=many"];
    program.fail(&arguments, 2, &["views"]);
    // As without `--explain`.
    program.fail(
        &["fit", "-b", "pocket", "-d", "nowhere", "-m", "coop", "--explain"],
        1,
        &["nowhere", "looked up from"],
    );
}
