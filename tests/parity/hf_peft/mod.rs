//! Adapters of HF PEFT give here the features that they give there, and ours are read there; `generate.py` beside this
//! file made the folders and checked those that we wrote.

mod families;
mod trained;

use std::path::{Path, PathBuf};

use burn::tensor::{Tensor, TensorData};
use inarch_core::backbone::{Backbone, Pass, normalise, values};
use inarch_core::checkpoint::read_safetensors;
use inarch_peft::{PEFT_CONFIG_FILE, PEFT_TENSORS_FILE, read_peft, write_peft};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::contract::case::{artifact, configured};
use crate::support::{close, edit_json, edit_tensors, fixture, plain, tiny};

const FOLDERS: [&str; 12] =
    ["lora", "dora", "vera", "ia3", "loha", "lokr", "oft", "oft-exact", "boft", "boft-factors", "ln", "saved"];
/// Folders with whole layers: their frozen values are taken off and added again, which rounds.
const WHOLE: [&str; 2] = ["ln", "saved"];

fn folder(name: &str) -> PathBuf {
    fixture(&format!("parity/hf_peft/{name}"))
}

#[test]
fn adapters_of_peft_give_the_same_features_here() {
    let size = tiny().spec().image.size;
    let pixels: Vec<f32> = (1..=2 * 3 * size * size).map(|i| (0.37 * i as f64).sin() as f32).collect();
    let pixels = Tensor::<4>::from_data(TensorData::new(pixels, [2, 3, size, size]), &plain());
    let rows = [vec![598, 10, 200, 301, 599], vec![598, 44, 91, 77, 599]];
    let (expected, _) = read_safetensors(&folder("expected.safetensors")).expect("a fixture");
    for name in FOLDERS {
        let adapter = read_peft(&folder(name), tiny()).expect("a folder of PEFT");
        let pass = Pass::evaluate();
        let image = normalise(tiny().encode_image(pixels.clone(), &adapter.adapter, &pass));
        let text = normalise(tiny().encode_text(&rows, &adapter.adapter, &pass));
        for (tower, found) in [("image", image), ("text", text)] {
            close(&format!("{name} {tower}"), &values(found), &expected[&format!("{name}.{tower}")].data, 1e-5);
        }
        adapter.self_test(tiny()).expect("an adapter that was just read");
    }
}

#[test]
fn what_we_write_is_what_peft_has_read() {
    for name in FOLDERS {
        let adapter = read_peft(&folder(name), tiny()).expect("a folder of PEFT");
        let target = tempfile::tempdir().expect("a folder");
        write_peft(&adapter, tiny(), target.path()).expect("a writable folder");
        let tensors = |folder: &Path| read_safetensors(&folder.join(PEFT_TENSORS_FILE)).expect("tensors").0;
        // Not a value is changed on the way through.
        let (found, expected) = (tensors(target.path()), tensors(&folder(name)));
        if WHOLE.contains(&name) {
            assert!(found.keys().eq(expected.keys()), "{name}");
            for (key, tensor) in &expected {
                close(&format!("{name} {key}"), &found[key].data, &tensor.data, 1e-6);
            }
        } else {
            assert!(found == expected, "{name}");
        }
        for file in [PEFT_CONFIG_FILE, PEFT_TENSORS_FILE] {
            let found = std::fs::read(target.path().join(file)).expect("a file");
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("parity/hf_peft/written").join(name).join(file);
            if std::env::var_os("INARCH_WRITE_FIXTURES").is_some() {
                inarch_core::file::write(&path, &found).expect("a writable repository");
            }
            assert!(std::fs::read(&path).expect("a fixture") == found, "{name}: `{file}` is not what PEFT was shown");
        }
    }
}

#[test]
fn a_folder_of_the_years_before_safetensors_is_read() {
    let [pickled, plain] = ["pickled", "ia3"].map(|name| read_peft(&folder(name), tiny()).expect("a folder of PEFT"));
    assert_eq!(pickled.manifest.tensors, plain.manifest.tensors);
}

#[test]
fn a_folder_of_named_adapters_tells_their_names() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["cats", "dogs"] {
        let inner = folder.path().join(name);
        std::fs::create_dir(&inner).expect("a writable folder");
        for file in [PEFT_CONFIG_FILE, PEFT_TENSORS_FILE] {
            std::fs::copy(self::folder("ia3").join(file), inner.join(file)).expect("a writable folder");
        }
        read_peft(&inner, tiny()).expect("one of them");
    }
    refused(folder.path(), &["cats", "dogs", "2 named ones"]);
}

#[test]
fn what_peft_has_no_such_adapter_for_is_refused() {
    let target = tempfile::tempdir().expect("a folder");
    for method in [configured("linear-probe", ""), configured("lora", "init = \"pissa\"")] {
        let error = write_peft(&artifact(&method), tiny(), target.path()).expect_err("no such adapter").to_string();
        assert!(error.contains("refused") && error.contains("inarch combine"), "{error}");
    }
    assert!(inarch_core::file::list(target.path()).expect("a folder").is_empty());
}

/// A copy of a folder.
fn copy(name: &str) -> TempDir {
    let copy = tempfile::tempdir().expect("a folder");
    for file in [PEFT_CONFIG_FILE, PEFT_TENSORS_FILE] {
        std::fs::copy(folder(name).join(file), copy.path().join(file)).expect("a writable folder");
    }
    copy
}

#[track_caller]
fn refused(folder: &Path, words: &[&str]) {
    refused_by(folder, tiny(), words);
}

#[track_caller]
fn refused_by(folder: &Path, backbone: &Backbone, words: &[&str]) {
    let message = read_peft(folder, backbone).expect_err("a changed folder").to_string();
    for word in words {
        assert!(message.contains(word), "`{word}` is missing in: {message}");
    }
}

#[test]
fn a_setting_that_changes_the_meaning_is_refused_by_name() {
    let cases: [(&str, Value, &[&str]); 14] = [
        ("peft_type", json!("ADALORA"), &["ADALORA", "pruned", "LORA"]),
        ("peft_type", json!("PROMPT_TUNING"), &["PROMPT_TUNING", "virtual tokens"]),
        ("peft_type", json!("FOURIERFT"), &["FOURIERFT", "generator"]),
        ("bias", json!("all"), &["`bias`", "offsets"]),
        ("modules_to_save", json!(["visual_projection"]), &["`modules_to_save`", "visual_projection"]),
        ("fan_in_fan_out", json!(true), &["`fan_in_fan_out`"]),
        ("layer_replication", json!([[0, 2]]), &["`layer_replication`"]),
        ("alora_invocation_tokens", json!([1]), &["`alora_invocation_tokens`"]),
        ("init_lora_weights", json!("pissa"), &["`init_lora_weights`", "pissa"]),
        ("surprise", json!(1), &["`surprise`", "known here"]),
        ("r", json!("three"), &["`r`", "number"]),
        ("use_dora", json!(1), &["`use_dora`", "true or false"]),
        ("rank_pattern", json!({ "fc[12]": 2 }), &["`rank_pattern`", "fc[12]"]),
        ("rank_pattern", json!({}), &["expected rank 3", "fc1"]),
    ];
    for (key, value, words) in cases {
        let folder = copy("lora");
        edit_json(&folder.path().join(PEFT_CONFIG_FILE), |config| config[key] = value);
        refused(folder.path(), words);
    }
    for (key, words) in [("coft", "bounded anew"), ("block_share", "shared by all")] {
        let folder = copy("oft");
        edit_json(&folder.path().join(PEFT_CONFIG_FILE), |config| config[key] = json!(true));
        refused(folder.path(), &[key, words]);
    }
    let folder = copy("dora");
    edit_json(&folder.path().join(PEFT_CONFIG_FILE), |config| config["alpha_pattern"] = json!({ "fc2": 9 }));
    refused(folder.path(), &["alpha_pattern", "only for LoRA"]);
}

#[test]
fn a_start_that_leaves_the_frozen_weights_alone_is_read() {
    let plain = read_peft(&folder("lora"), tiny()).expect("a folder of PEFT");
    let eva = json!({
        "rho": 2.0, "tau": 0.99, "use_label_mask": true, "label_mask_value": -100, "whiten": false,
        "adjust_scaling_factors": true,
    });
    for (start, settings) in [("gaussian", Value::Null), ("orthogonal", Value::Null), ("eva", eva)] {
        let folder = copy("lora");
        edit_json(&folder.path().join(PEFT_CONFIG_FILE), |config| {
            config["init_lora_weights"] = json!(start);
            config["eva_config"] = settings.clone();
        });
        let found = read_peft(folder.path(), tiny()).unwrap_or_else(|error| panic!("{start}: {error}"));
        assert_eq!(found.manifest.method, plain.manifest.method, "{start}");
        assert_eq!(found.adapter.parameters(), plain.adapter.parameters(), "{start}");
    }
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let key = "base_model.model.vision_model.encoder.layers.0.self_attn.q_proj";
    let changed = |edit: &dyn Fn(&mut inarch_core::backbone::StateDict)| {
        let folder = copy("lora");
        edit_tensors(&folder.path().join(PEFT_TENSORS_FILE), |tensors| edit(tensors));
        folder
    };
    let (a, b) = (format!("{key}.lora_A.weight"), format!("{key}.lora_B.weight"));
    let folder = changed(&|tensors| {
        tensors.remove(&b);
    });
    refused(folder.path(), &["q_proj.lora_B.weight", "missing"]);
    let folder = changed(&|tensors| {
        let tensor = tensors[&a].clone();
        tensors.insert("base_model.model.surprise.lora_A.weight".into(), tensor);
    });
    refused(folder.path(), &["surprise", "fits no linear layer"]);
    let folder = changed(&|tensors| tensors.get_mut(&b).expect("the tensor").data[0] = f32::NAN);
    refused(folder.path(), &["NaN"]);
    let folder = changed(&|tensors| tensors.get_mut(&b).expect("the tensor").shape = vec![3, 48]);
    refused(folder.path(), &["expected shape"]);

    for shared in ["base_model.vera_A", "base_model.vera_B"] {
        let folder = copy("vera");
        edit_tensors(&folder.path().join(PEFT_TENSORS_FILE), |tensors| {
            tensors.remove(shared).expect("a projection that was saved");
        });
        refused(folder.path(), &[shared, "missing", "save_projection=True"]);
    }

    let folder = copy("lora");
    let path = folder.path().join(PEFT_TENSORS_FILE);
    let whole = std::fs::read(&path).expect("tensors");
    std::fs::write(&path, &whole[..whole.len() / 2]).expect("a writable folder");
    refused(folder.path(), &[PEFT_TENSORS_FILE]);
    // Half a safetensors file under the other name is no pickle either.
    std::fs::rename(&path, folder.path().join("adapter_model.bin")).expect("a writable folder");
    refused(folder.path(), &["adapter_model.bin", "no PyTorch file"]);
    std::fs::remove_file(folder.path().join(PEFT_CONFIG_FILE)).expect("a writable folder");
    refused(folder.path(), &[PEFT_CONFIG_FILE]);
}
