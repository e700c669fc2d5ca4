//! Damaged and mismatched backbones are refused with the file, the tensor or the key, what was expected and what was
//! found.

use std::path::Path;

use inarch_core::Error;
use inarch_core::backbone::{HostTensor, StateDict};
use inarch_core::checkpoint::{open_backbone, read_safetensors};
use serde_json::json;

use crate::support::{copied, edit_json, edit_tensors, fixture, plain};

const QUICK: &str = "parity/clip_tiny/quick";
const TENSOR: &str = "text_model.encoder.layers.1.mlp.fc1.weight";

fn refusal(folder: &Path) -> Error {
    open_backbone(folder, &plain()).expect_err("a damaged backbone must not open")
}

/// The message, which must name all of `words`.
#[track_caller]
fn names(error: &Error, words: &[&str]) {
    let message = error.to_string();
    for word in words {
        assert!(message.contains(word), "`{word}` is missing in: {message}");
    }
}

fn damaged(edit: impl FnOnce(&mut StateDict)) -> Error {
    let folder = copied(QUICK);
    edit_tensors(&folder.path().join("model.safetensors"), edit);
    refusal(folder.path())
}

#[test]
fn a_truncated_file_is_named() {
    let whole = std::fs::read(fixture(&format!("{QUICK}/model.safetensors"))).expect("a fixture");
    for length in [0, 4, 100, whole.len() / 2, whole.len() - 1] {
        let folder = copied(QUICK);
        std::fs::write(folder.path().join("model.safetensors"), &whole[..length]).expect("a writable folder");
        let error = refusal(folder.path());
        assert!(matches!(error, Error::Malformed { .. }), "{error}");
        names(&error, &["model.safetensors", &format!("{length} bytes"), "truncated"]);
    }
}

#[test]
fn a_renamed_tensor_is_missing_and_the_new_name_is_the_hint() {
    let error = damaged(|tensors| {
        let tensor = tensors.remove(TENSOR).expect("a tensor of the model");
        tensors.insert("text_model.encoder.layers.1.mlp.fc9.weight".into(), tensor);
    });
    assert!(matches!(&error, Error::Tensor { name, .. } if name == TENSOR), "{error}");
    names(&error, &["model.safetensors", "shape [64, 32]", "no such tensor", "layers.1.mlp.fc9.weight"]);
}

#[test]
fn a_tensor_of_another_shape_is_named_with_both_shapes() {
    let error = damaged(|tensors| {
        let tensor = tensors.get_mut(TENSOR).expect("a tensor of the model");
        tensor.shape = vec![32, 64];
    });
    assert!(matches!(&error, Error::Tensor { name, .. } if name == TENSOR), "{error}");
    names(&error, &["model.safetensors", "[64, 32]", "[32, 64]"]);
}

#[test]
fn a_value_that_is_no_number_is_named_with_its_place() {
    for (value, word) in [(f32::NAN, "NaN at element 5"), (f32::INFINITY, "inf at element 5")] {
        let error = damaged(|tensors| tensors.get_mut(TENSOR).expect("a tensor of the model").data[5] = value);
        assert!(matches!(&error, Error::Tensor { name, .. } if name == TENSOR), "{error}");
        names(&error, &["model.safetensors", word]);
    }
}

#[test]
fn a_scale_in_place_of_its_logarithm_is_named() {
    let error = damaged(|tensors| tensors.get_mut("logit_scale").expect("a scale").data[0] = 100.0);
    names(&error, &["model.safetensors", "logit_scale", "inf", "logarithm"]);
}

#[test]
fn a_tensor_too_many_is_named() {
    let error = damaged(|tensors| {
        let origin = "text_model.encoder.layers.2.mlp.fc1.bias".to_string();
        tensors.insert(origin.clone(), HostTensor { shape: vec![2], data: vec![0.0; 2], origin });
    });
    names(&error, &["model.safetensors", "text_model.encoder.layers.2.mlp.fc1.bias", "1 tensors are unused"]);
}

#[test]
fn a_missing_shard_is_named() {
    let folder = copied("parity/clip_tiny/sharded");
    std::fs::remove_file(folder.path().join("model-00002-of-00002.safetensors")).expect("a shard");
    let error = refusal(folder.path());
    assert!(matches!(error, Error::Io { .. }), "{error}");
    names(&error, &["model-00002-of-00002.safetensors"]);
}

#[test]
fn a_shard_without_a_listed_tensor_is_named_with_it() {
    let folder = copied("parity/clip_tiny/sharded");
    edit_json(&folder.path().join("model.safetensors.index.json"), |index| {
        index["weight_map"]["text_model.extra"] = json!("model-00001-of-00002.safetensors");
    });
    names(&refusal(folder.path()), &["model-00001-of-00002.safetensors", "text_model.extra", "no such tensor"]);
}

#[test]
fn a_tensor_in_two_shards_is_named() {
    let folder = copied("parity/clip_tiny/sharded");
    let [first, second] = [1, 2].map(|shard| folder.path().join(format!("model-0000{shard}-of-00002.safetensors")));
    let (tensors, _) = read_safetensors(&first).expect("a shard");
    let (name, tensor) = tensors.into_iter().next().expect("a tensor");
    edit_tensors(&second, |tensors| drop(tensors.insert(name.clone(), tensor)));
    names(&refusal(folder.path()), &["model-00002-of-00002.safetensors", &name, "a second one"]);
}

#[test]
fn a_shard_outside_the_folder_is_refused() {
    for shard in ["../model.safetensors", "/tmp/model.safetensors", "..", ""] {
        let folder = copied("parity/clip_tiny/sharded");
        edit_json(&folder.path().join("model.safetensors.index.json"), |index| {
            index["weight_map"]["logit_scale"] = json!(shard);
        });
        let error = refusal(folder.path());
        assert!(matches!(error, Error::Malformed { .. }), "{error}");
        names(&error, &["model.safetensors.index.json", "is not a file name"]);
    }
}

#[test]
fn a_vocabulary_larger_than_the_embedding_is_refused() {
    // The tokenizer of `quick` knows 600 tokens, the text tower of `gelu` has 560 rows.
    let folder = copied("parity/clip_tiny/gelu");
    std::fs::copy(fixture(&format!("{QUICK}/tokenizer.json")), folder.path().join("tokenizer.json")).expect("a copy");
    let error = refusal(folder.path());
    assert!(matches!(error, Error::Mismatch { .. }), "{error}");
    names(&error, &["tokenizer.json", "560", "600"]);
}

#[test]
fn a_missing_tokenizer_is_named_with_the_cure() {
    let folder = copied(QUICK);
    std::fs::remove_file(folder.path().join("tokenizer.json")).expect("a tokenizer");
    names(&refusal(folder.path()), &["tokenizer.json", "save_pretrained"]);
}

#[test]
fn a_config_that_does_not_fit_the_weights_names_a_tensor() {
    for (section, key, value, words) in [
        ("vision_config", "num_hidden_layers", 4, ["vision_model.encoder.layers.3.", "no such tensor"]),
        ("vision_config", "num_hidden_layers", 2, ["vision_model.encoder.layers.2.", "unused"]),
        ("text_config", "vocab_size", 601, ["text_model.embeddings.token_embedding.weight", "[600, 32]"]),
        ("text_config", "intermediate_size", 65, ["mlp.fc1", "[64, 32]"]),
    ] {
        let folder = copied(QUICK);
        edit_json(&folder.path().join("config.json"), |config| config[section][key] = json!(value));
        let error = refusal(folder.path());
        assert!(matches!(error, Error::Tensor { .. }), "{error}");
        names(&error, &words);
    }
}

#[test]
fn a_config_that_contradicts_itself_names_the_key() {
    for (section, key, value, words) in [
        ("vision_config", "num_attention_heads", json!(5), ["vision_config.hidden_size", "multiple of its 5 heads"]),
        ("vision_config", "patch_size", json!(5), ["vision_config.image_size", "multiple of patch_size 5"]),
        ("text_config", "hidden_act", json!("swish"), ["config.json", "`swish`"]),
        ("text_config", "hidden_size", json!("wide"), ["config.json", "`hidden_size` must be a whole number"]),
        ("text_config", "num_hidden_layers", json!(0), ["text_config.num_hidden_layers", "found 0"]),
    ] {
        let folder = copied(QUICK);
        edit_json(&folder.path().join("config.json"), |config| config[section][key] = value);
        names(&refusal(folder.path()), &words);
    }
}

#[test]
fn another_family_is_refused_by_name() {
    let folder = copied(QUICK);
    edit_json(&folder.path().join("config.json"), |config| config["model_type"] = json!("swinv2"));
    names(&refusal(folder.path()), &["config.json", "swinv2", "clip"]);
}

#[test]
fn preprocessing_of_another_size_is_refused() {
    let folder = copied(QUICK);
    edit_json(&folder.path().join("preprocessor_config.json"), |config| {
        config["crop_size"] = json!({ "height": 24, "width": 24 });
    });
    names(&refusal(folder.path()), &["preprocessor_config.json", "32 x 32", "24 x 24"]);
}

#[test]
fn a_folder_without_weights_lists_what_it_holds() {
    let folder = copied(QUICK);
    std::fs::remove_file(folder.path().join("model.safetensors")).expect("weights");
    names(&refusal(folder.path()), &["no weights", "model.safetensors", "tokenizer_config.json"]);
    names(&refusal(&folder.path().join("nothing")), &["nothing", "open backbone"]);
}
