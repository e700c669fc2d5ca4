//! Settings as they stand in recipes and artifacts.

use std::path::Path;

use inarch_continual::{Gate, UpdateRecipe};
use inarch_core::checkpoint::open_backbone;
use inarch_core::image::Frame;
use inarch_peft::{METHODS, MethodConfig, Words};
use inarch_recipes::RecipeLayers;
use serde_json::{Value, json};

use super::case::{IMAGES, init};
use crate::support::{classes, fixture, plain, tiny};

fn json_of(config: &MethodConfig) -> Value {
    serde_json::to_value(config).expect("plain data")
}

#[test]
fn every_method_has_a_preset_of_its_name() {
    for name in METHODS {
        let config = MethodConfig::preset(name).unwrap_or_else(|| panic!("`{name}` has no preset"));
        assert_eq!(config.name(), *name);
        assert_eq!(json_of(&config)["name"], *name);
    }
    assert!(MethodConfig::preset("no such method").is_none());
}

#[test]
fn settings_survive_json_and_a_name_alone_is_the_preset() {
    for name in METHODS {
        let config = MethodConfig::preset(name).expect("a preset");
        let again: MethodConfig = serde_json::from_value(json_of(&config)).expect("what was written");
        assert_eq!(again, config);
        let short: MethodConfig = serde_json::from_value(json!({ "name": name })).expect("defaults for the rest");
        assert_eq!(short, config);
    }
}

#[test]
fn an_unknown_key_is_refused_by_name() {
    for name in METHODS {
        let mut value = json_of(&MethodConfig::preset(name).expect("a preset"));
        value["surprise"] = json!(1);
        let message = serde_json::from_value::<MethodConfig>(value).expect_err("an unknown key").to_string();
        assert!(message.contains("surprise"), "{name}: {message}");
    }
    let message = serde_json::from_value::<MethodConfig>(json!({ "name": "loro" })).expect_err("no method").to_string();
    assert!(message.contains("loro") && message.contains("lora"), "{message}");
}

/// Whole jobs as files: each reads strictly, says how it is run, and its method begins beside a backbone.
#[test]
fn every_example_is_a_recipe_whose_method_can_begin() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes/examples");
    let paths = inarch_core::file::list(&folder).expect("the examples");
    assert!(paths.len() >= 16, "{paths:?}");
    let resnet = open_backbone(&fixture("parity/families/resnet"), &plain()).expect("a valid backbone");
    for path in paths {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).expect("a recipe");
        let says = |command: &str| assert!(text.contains(command), "{name} does not say `{command}`");
        assert!(text.starts_with("# "), "{name}");
        if name == "update.toml" {
            says("inarch update shop@prod --recipe recipes/examples/update.toml -b ");
            let recipe = UpdateRecipe::read(&text, &name, &[]).unwrap_or_else(|error| panic!("{error}"));
            assert!(recipe.gate.class_drop < Gate::default().class_drop, "{:?}", recipe.gate);
            continue;
        }
        let recipe = RecipeLayers::file(&text, &name).and_then(RecipeLayers::finish);
        let recipe = recipe.unwrap_or_else(|error| panic!("{error}"));
        let of_pairs = recipe.train.pair_loss.is_some() || name == "matched-captions.toml";
        let verb = if of_pairs { "pretrain" } else { "fit" };
        says(&format!("inarch {verb} recipes/examples/{name} -b "));
        assert!(!recipe.templates.resolve().expect("templates").is_empty(), "{name}");
        let backbone = if name == "trunk.toml" { &resnet } else { tiny() };
        let method = recipe.method.resolved(backbone).unwrap_or_else(|error| panic!("{name}: {error}"));
        let adapter = init(&method, backbone, 1, &plain()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(adapter.trainable(), method.trainable(backbone, classes().len(), IMAGES), "{name}");
        match name.as_str() {
            "vision-only.toml" => assert_eq!(method.words(), Words::Replaced),
            "captions.toml" | "matched-captions.toml" => assert!(method.crosses()),
            "features.toml" => assert!(method.black_box()),
            "volumes.toml" => assert!(recipe.slices == Some(Frame::All) && recipe.window.is_some()),
            "clips.toml" | "clips-in-the-tower.toml" | "slides.toml" => assert!(recipe.clips.is_some()),
            "clip-views.toml" => {
                let clips = recipe.clips.expect("clips");
                clips.check().expect("valid settings");
                assert_eq!(clips.test_views(), 12);
            }
            "dicom.toml" => assert!(recipe.window.is_some() && recipe.group_by.is_some()),
            "sigmoid-pairs.toml" => assert!(recipe.train.pair_loss.is_some()),
            _ => assert!(recipe.clips.is_none(), "{name}"),
        }
    }
}
