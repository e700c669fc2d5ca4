//! The example recipes through the program.

use std::path::Path;

use inarch_core::checkpoint::read_safetensors;
use inarch_core::file;

use super::Program;
use super::program::{adapter_bytes, sample};

fn example(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes/examples").join(name).display().to_string()
}

/// Photos of the sample in classes of very unequal size.
fn long_tail(program: &Program) {
    for (split, class, count) in [
        ("train", "dress", 15),
        ("train", "hat", 4),
        ("train", "shoes", 1),
        ("test", "dress", 8),
        ("test", "hat", 8),
        ("test", "shoes", 8),
    ] {
        let into = program.path("data").join(split).join(class);
        file::create_folder(&into).expect("created");
        let photos = file::list(&Path::new(sample()).join(split).join(class)).expect("a class");
        assert!(photos.len() >= count, "{split}/{class}: {}", photos.len());
        for photo in &photos[..count] {
            std::fs::copy(photo, into.join(photo.file_name().expect("a name"))).expect("copied");
        }
    }
}

#[test]
fn the_recipe_for_long_tails_trains_a_tower_and_a_classifier_by_the_shares_of_classes() {
    let program = Program::new();
    long_tail(&program);
    let recipe = example("long-tailed.toml");
    let fit = ["fit", &recipe, "-b", "pocket", "-d", "data", "--set", "train.budget={ iterations = 4 }"];
    let short = ["--set", "train.batch=10"];
    program.succeed(&[&fit[..], &short, &["-o", "run"]].concat());
    program.succeed(&[&fit[..], &short, &["-o", "again"]].concat());
    program.succeed(&[&fit[..], &short, &["--set", "train.imbalance=\"none\"", "-o", "plain"]].concat());
    let bytes = |run: &str| adapter_bytes(&program.path(run));
    assert!(bytes("run") == bytes("again") && bytes("run")[0] != bytes("plain")[0]);

    let written = std::fs::read_to_string(program.path("run/recipe.toml")).expect("a recipe");
    assert!(written.contains("logit-adjustment = 1.0") && written.contains("name = \"adaptformer\""), "{written}");
    let (tensors, _) = read_safetensors(&program.path("run/adapter.safetensors")).expect("an adapter");
    let names: Vec<&String> = tensors.keys().collect();
    for member in ["members.0.", "members.1."] {
        assert!(names.iter().any(|name| name.starts_with(member)), "{member}: {names:?}");
    }
    // The text tower gives the classifier its start and is not touched.
    assert!(names.iter().all(|name| !name.contains(".text.")), "{names:?}");

    let found = program.json(&["eval", "-b", "pocket", "-d", "data", "-a", "run"]);
    assert_eq!((found["n"].as_u64(), found["balanced_accuracy"].is_number()), (Some(24), true));
}
