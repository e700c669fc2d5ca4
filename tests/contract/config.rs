//! Settings as they stand in recipes and artifacts.

use inarch_peft::{METHODS, MethodConfig};
use serde_json::{Value, json};

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
