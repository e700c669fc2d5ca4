//! Rare classes, and classes that are described.

use super::{Program, halves};

#[test]
fn rare_classes_can_be_given_their_weight() {
    let program = Program::new();
    for number in 0..66u32 {
        let (split, rare) = (if number < 40 { "train" } else { "test" }, number % 13 == 0);
        let path = format!("data/{split}/{}/{number}.png", if rare { "rare" } else { "common" });
        halves(&program, &path, rare && number % 2 == 0, false, number);
    }
    let adapter = |output: &str, method: &str, setting: Option<&str>| {
        let budget = "train.budget={ iterations = 6 }";
        let mut words = vec!["fit", "-b", "pocket", "-d", "data", "-m", method, "-o", output, "--set", budget];
        words.extend(setting.iter().flat_map(|setting| ["--set", setting]));
        program.succeed(&words);
        std::fs::read(program.path(output).join("adapter.safetensors")).expect("an adapter")
    };
    let settings = ["balanced-sampling", "class-weights", "{ logit-adjustment = 1.0 }"];
    for method in ["linear-probe", "lora", "proda"] {
        let mut found = vec![adapter(&format!("{method}-plain"), method, None)];
        for setting in settings {
            let value = if setting.starts_with('{') { setting.to_string() } else { format!("{setting:?}") };
            found.push(adapter(&format!("{method}-{setting}"), method, Some(&format!("train.imbalance={value}"))));
        }
        for (at, one) in found.iter().enumerate() {
            assert!(found[..at].iter().all(|other| other != one), "{method}: setting {at} changes nothing");
        }
        let recipe = std::fs::read_to_string(program.path(&format!("{method}-plain/recipe.toml"))).expect("a recipe");
        assert!(!recipe.contains("imbalance"));
        assert_eq!(found[0], adapter("again", method, Some("train.imbalance=\"none\"")));
        let again = format!("{method}-{}", settings[2]);
        let recipe = std::fs::read_to_string(program.path(&again).join("recipe.toml")).expect("a recipe");
        assert!(recipe.contains("logit-adjustment = 1.0"), "{recipe}");
    }
    let arguments = ["fit", "-b", "pocket", "-d", "data", "-m", "lora", "--set"];
    program.fail(&[&arguments[..], &["train.imbalance={ logit-adjustment = -1.0 }"]].concat(), 2, &["above 0"]);
    program.fail(&[&arguments[..], &["train.imbalance=\"often\""]].concat(), 2, &["often"]);
}

#[test]
fn classes_may_be_described() {
    let program = Program::new();
    for number in 0..16u32 {
        let class = ["lesion", "plain"][number as usize % 2];
        let split = if number < 8 { "train" } else { "test" };
        halves(&program, &format!("data/{split}/{class}/{number}.png"), class == "lesion", false, number);
    }
    let text = r#"{"Lesion": ["a red car", "a red truck"], "plain": ["a grey cat", "a grey ship"]}"#;
    std::fs::write(program.path("words.json"), text).expect("writes");
    let named = program.json(&["eval", "-b", "pocket", "-d", "data"]);
    let described = program.json(&["eval", "-b", "pocket", "-d", "data", "--descriptions", "words.json"]);
    assert_ne!(named["nll"], described["nll"]);
    // A recipe and its adapter hold the sentences themselves.
    let fit = ["fit", "-b", "pocket", "-d", "data", "-m", "lora", "--descriptions", "words.json", "-o", "run"];
    let budget = "train.budget={ iterations = 2 }";
    program.succeed(&[&fit[..], &["--set", budget]].concat());
    std::fs::remove_file(program.path("words.json")).expect("removes");
    let first = std::fs::read(program.path("run/adapter.safetensors")).expect("an adapter");
    program.succeed(&["eval", "-b", "pocket", "-d", "data", "-a", "run"]);
    program.succeed(&["fit", "run/recipe.toml", "-o", "again"]);
    assert_eq!(first, std::fs::read(program.path("again/adapter.safetensors")).expect("an adapter"));
    std::fs::write(program.path("words.json"), r#"{"lesion": ["a red car"]}"#).expect("writes");
    program.fail(&["eval", "-b", "pocket", "-d", "data", "--descriptions", "words.json"], 1, &["class `plain`"]);
}
