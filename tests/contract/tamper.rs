//! A damaged or changed artifact is refused, with the file and what is wrong in it.

use std::path::Path;

use inarch_core::Digest;
use inarch_core::backbone::StateDict;
use inarch_peft::{Artifact, MANIFEST_FILE, MethodConfig, TENSORS_FILE};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::case::{artifact, methods};
use crate::support::{edit_json, edit_tensors, tiny};

fn saved(config: &MethodConfig) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    artifact(config).save(folder.path()).expect("a writable folder");
    folder
}

/// Loading fails and the message names all of `words`.
#[track_caller]
fn refused(config: &MethodConfig, folder: &Path, words: &[&str]) {
    let message = Artifact::load(folder, tiny()).expect_err("a changed artifact").to_string();
    for word in words {
        assert!(message.contains(word), "{}: `{word}` is missing in: {message}", config.name());
    }
}

/// Changes the manifest.
fn with_manifest(config: &MethodConfig, edit: impl FnOnce(&mut Value)) -> TempDir {
    let folder = saved(config);
    edit_json(&folder.path().join(MANIFEST_FILE), edit);
    folder
}

/// Changes the tensors and signs them anew, as someone would who knows the format.
fn with_tensors(config: &MethodConfig, edit: impl FnOnce(&mut StateDict)) -> TempDir {
    let folder = saved(config);
    let path = folder.path().join(TENSORS_FILE);
    edit_tensors(&path, edit);
    let digest = Digest::of(&std::fs::read(&path).expect("just written"));
    edit_json(&folder.path().join(MANIFEST_FILE), |manifest| manifest["tensors"] = json!(digest.to_string()));
    folder
}

#[test]
fn one_changed_byte_is_found() {
    for config in methods() {
        let folder = saved(&config);
        let path = folder.path().join(TENSORS_FILE);
        let whole = std::fs::read(&path).expect("the tensors");
        for at in [0, whole.len() / 2, whole.len() - 1] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).expect("a writable folder");
            refused(&config, folder.path(), &[TENSORS_FILE, "changed or damaged"]);
        }
        std::fs::write(&path, &whole[..whole.len() / 2]).expect("a writable folder");
        refused(&config, folder.path(), &[TENSORS_FILE]);
        std::fs::remove_file(&path).expect("the tensors");
        refused(&config, folder.path(), &[TENSORS_FILE]);
        std::fs::remove_file(folder.path().join(MANIFEST_FILE)).expect("the manifest");
        refused(&config, folder.path(), &[MANIFEST_FILE]);
    }
}

#[test]
fn tensors_that_do_not_fit_the_method_are_named() {
    for config in methods() {
        let name = artifact(&config).adapter.parameters().into_keys().next().expect("a parameter");
        let folder = with_tensors(&config, |tensors| {
            tensors.remove(&name);
        });
        refused(&config, folder.path(), &[TENSORS_FILE, &name, "missing"]);
        let folder = with_tensors(&config, |tensors| {
            let tensor = tensors[&name].clone();
            tensors.insert("surprise".into(), tensor);
        });
        refused(&config, folder.path(), &[TENSORS_FILE, "surprise"]);
        let folder = with_tensors(&config, |tensors| {
            let tensor = tensors.get_mut(&name).expect("the tensor");
            tensor.shape.reverse();
            tensor.shape.push(1);
        });
        refused(&config, folder.path(), &[TENSORS_FILE, &name, "expected shape"]);
        let folder = with_tensors(&config, |tensors| {
            *tensors.get_mut(&name).expect("the tensor").data.last_mut().expect("a value") = f32::NAN;
        });
        refused(&config, folder.path(), &[TENSORS_FILE, &name, "NaN at element"]);
    }
}

#[test]
fn a_manifest_of_another_format_is_refused() {
    for config in methods() {
        let folder = with_manifest(&config, |manifest| manifest["surprise"] = json!(1));
        refused(&config, folder.path(), &[MANIFEST_FILE, "surprise", "unknown field"]);
        let folder = with_manifest(&config, |manifest| manifest["method"]["surprise"] = json!(1));
        refused(&config, folder.path(), &[MANIFEST_FILE, "surprise"]);
        let folder = with_manifest(&config, |manifest| manifest["self_test"]["surprise"] = json!(1));
        refused(&config, folder.path(), &[MANIFEST_FILE, "surprise"]);
        let folder = with_manifest(&config, |manifest| manifest["schema"] = json!(2));
        refused(&config, folder.path(), &[MANIFEST_FILE, "expected 1", "found 2"]);
        let folder = with_manifest(&config, |manifest| manifest["method"]["name"] = json!("surprise"));
        refused(&config, folder.path(), &[MANIFEST_FILE, "surprise", "linear-probe"]);
        for key in ["method", "backbone", "classes", "tensors", "self_test"] {
            let folder = with_manifest(&config, |manifest| {
                manifest.as_object_mut().expect("an object").remove(key);
            });
            refused(&config, folder.path(), &[MANIFEST_FILE, key]);
        }
        std::fs::write(folder.path().join(MANIFEST_FILE), "{ \"schema\": 1,").expect("a writable folder");
        refused(&config, folder.path(), &[MANIFEST_FILE, "line 1"]);
    }
}

#[test]
fn settings_that_do_not_fit_the_tensors_are_refused() {
    for config in methods() {
        match &config {
            MethodConfig::LinearProbe(_) => {
                let folder = with_manifest(&config, |manifest| {
                    manifest["classes"].as_array_mut().expect("a list").pop();
                });
                refused(&config, folder.path(), &["prototypes", "[3, 24]", "[4, 24]"]);
            }
            MethodConfig::Coop(coop) if coop.context == 4 && !coop.class_specific => {
                let folder = with_manifest(&config, |manifest| manifest["method"]["context"] = json!(5));
                refused(&config, folder.path(), &["context", "[5, 32]", "[4, 32]"]);
                let folder = with_manifest(&config, |manifest| manifest["method"]["context"] = json!(1e12 as u64));
                refused(&config, folder.path(), &["context"]);
            }
            // A pattern is refused before the targets that it does not fit.
            MethodConfig::Lora(lora) if lora.rank_pattern.is_empty() => {
                let folder = with_manifest(&config, |manifest| manifest["method"]["rank"] = json!(3));
                refused(&config, folder.path(), &["q_proj.a", "[48, 3]", "[48, 2]"]);
                let folder = with_manifest(&config, |manifest| manifest["method"]["rank"] = json!(1e12 as u64));
                refused(&config, folder.path(), &["rank"]);
                let folder = with_manifest(&config, |manifest| manifest["method"]["targets"] = json!(["*.query"]));
                refused(&config, folder.path(), &["*.query"]);
            }
            // The same code reads every method; these three stand for rows, tokens and sites.
            _ => {}
        }
    }
}

#[test]
fn a_setting_that_changes_the_scores_alone_fails_the_self_test() {
    // The shapes still fit, so loading cannot know.
    let config = MethodConfig::preset("lora").expect("a preset");
    let folder = with_manifest(&config, |manifest| manifest["method"]["alpha"] = json!(3.0));
    let artifact = Artifact::load(folder.path(), tiny()).expect("the shapes fit");
    assert!(artifact.self_test(tiny()).is_err());
}

#[test]
fn an_adapter_that_does_not_tell_its_inputs_has_the_same_ones_and_no_others() {
    let config = MethodConfig::preset("lora").expect("a preset");
    let inputs = |edit: fn(&mut Value)| with_manifest(&config, |manifest| edit(&mut manifest["self_test"]));
    let load = |folder: &TempDir| Artifact::load(folder.path(), tiny()).expect("a valid manifest");
    let older = inputs(|test| {
        test.as_object_mut().expect("an object").remove("inputs").expect("what is told today");
    });
    load(&older).self_test(tiny()).expect("the same inputs");
    // More images than this program makes.
    let others = inputs(|test| test["inputs"]["shape"][0] = json!(3));
    let message = load(&others).self_test(tiny()).expect_err("other inputs").to_string();
    for words in ["inputs of the self-test of `lora`", "\"shape\":[2,3,", "\"shape\":[3,3,"] {
        assert!(message.contains(words), "`{words}` is missing in: {message}");
    }
    let unknown = inputs(|test| test["inputs"]["formula"] = json!("noise"));
    refused(&config, unknown.path(), &[MANIFEST_FILE, "noise", "pixel-waves"]);
}
