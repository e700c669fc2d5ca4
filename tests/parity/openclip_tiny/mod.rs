//! Checkpoints under OpenAI's and OpenCLIP's names open as the very backbone that they hold; `generate.py` beside this
//! file made them from the weights of `clip_tiny/quick`.

use std::path::{Path, PathBuf};

use burn::tensor::Tensor;
use inarch_core::Error;
use inarch_core::backbone::{Backbone, Frozen, Pass, values};
use inarch_core::checkpoint::{open_backbone, read_safetensors};
use inarch_core::image::{Resample, Resize, Size};
use serde_json::json;
use tempfile::TempDir;

use crate::support::{close, copied, edit_json, edit_tensors, fixture, plain, tiny};

/// The checkpoints with the tokenizer, which OpenCLIP leaves to the program, beside them.
fn folder() -> TempDir {
    let folder = copied("parity/openclip_tiny");
    std::fs::copy(fixture("parity/clip_tiny/quick/tokenizer.json"), folder.path().join("tokenizer.json"))
        .expect("a copy");
    folder
}

fn open(path: &Path) -> Backbone {
    open_backbone(path, &plain()).expect("a valid checkpoint")
}

/// Compares with the numbers of `open_clip.CLIP`.
fn check(backbone: &Backbone, tolerance: f32) {
    let (inputs, _) = read_safetensors(&fixture("parity/clip_tiny/quick/expected.safetensors")).expect("a fixture");
    let (expected, metadata) =
        read_safetensors(&fixture("parity/openclip_tiny/expected.safetensors")).expect("a fixture");
    assert!(metadata.is_empty());
    let pixels = &inputs["pixels"];
    let shape = <[usize; 4]>::try_from(pixels.shape.clone()).expect("four axes");
    let pixels = backbone.pixels(pixels.data.clone(), shape).expect("the backbone's size");
    let end = backbone.tokenizer().eot();
    let rows: Vec<Vec<u32>> = inputs["input_ids"]
        .data
        .chunks(inputs["input_ids"].shape[1])
        .map(|row| {
            let length = row.iter().position(|id| *id as u32 == end).expect("an end token") + 1;
            row[..length].iter().map(|id| *id as u32).collect()
        })
        .collect();
    let pass = Pass::evaluate();
    let image = backbone.encode_image(pixels, &Frozen, &pass);
    let text = backbone.encode_text(&rows, &Frozen, &pass);
    let logits = backbone.similarity(&image, &text, &Frozen, &pass);
    let compare = |name: &str, found: Tensor<2>| close(name, &values(found), &expected[name].data, tolerance);
    compare("image_features", image);
    compare("text_features", text);
    compare("logits_per_image", logits);
}

#[test]
fn an_openclip_folder_is_the_same_backbone() {
    let folder = folder();
    let backbone = open(folder.path());
    check(&backbone, 1e-4);
    assert_eq!(backbone.spec(), tiny().spec());
    assert_eq!(backbone.digest(), tiny().digest());
}

#[test]
fn a_plain_torch_file_is_the_same_backbone() {
    let folder = folder();
    let backbone = open(&folder.path().join("plain.pt"));
    check(&backbone, 1e-4);
    assert_eq!(backbone.digest(), tiny().digest());
}

#[test]
fn a_training_checkpoint_is_the_backbone_of_its_half_precision_weights() {
    let folder = folder();
    let backbone = open(&folder.path().join("training.pt"));
    let half = open(&fixture("parity/clip_tiny/half"));
    assert_eq!(backbone.digest(), half.digest());
    // Rounded weights against single precision: 11 significant bits.
    check(&backbone, 5e-3);
}

#[test]
fn a_checkpoint_that_runs_code_is_refused_and_runs_nothing() {
    let folder = folder();
    let markers: Vec<PathBuf> = [PathBuf::from("."), folder.path().to_path_buf()]
        .into_iter()
        .map(|folder| folder.join("inarch-pickle-was-run"))
        .collect();
    assert!(markers.iter().all(|marker| !marker.exists()), "left over from an earlier run: {markers:?}");
    let error = open_backbone(&folder.path().join("malicious.pt"), &plain()).expect_err("an object is in the pickle");
    assert!(markers.iter().all(|marker| !marker.exists()), "the pickle was run");
    assert!(matches!(error, Error::Malformed { .. }), "{error}");
    let message = error.to_string();
    assert!(message.contains("malicious.pt"), "{message}");

    assert!(message.contains("not on the list of allowed names"), "{message}");
}

#[test]
fn a_damaged_torch_file_is_named() {
    let folder = folder();
    let path = folder.path().join("plain.pt");
    let whole = std::fs::read(&path).expect("a fixture");
    for length in [0, 3, 1000, whole.len() / 2, whole.len() - 30] {
        std::fs::write(&path, &whole[..length]).expect("a writable folder");
        let error = open_backbone(&path, &plain()).expect_err("half a file");
        assert!(matches!(error, Error::Malformed { .. }), "{length}: {error}");
        assert!(error.to_string().contains("plain.pt"), "{error}");
    }
}

#[test]
fn a_fused_projection_of_another_size_is_named_as_it_is_in_the_file() {
    let folder = folder();
    let name = "transformer.resblocks.1.attn.in_proj_weight";
    // A row less for each of the three, then one more that belongs to none of them.
    for rows in [-3, 4] {
        edit_tensors(&folder.path().join("open_clip_model.safetensors"), |tensors| {
            let tensor = tensors.get_mut(name).expect("a tensor of the model");
            tensor.shape[0] = tensor.shape[0].saturating_add_signed(rows);
            tensor.data.resize(tensor.shape.iter().product(), 0.0);
        });
        let error = open_backbone(folder.path(), &plain()).expect_err("a wrong shape");
        assert!(matches!(&error, Error::Tensor { name: found, .. } if found == name), "{error}");
    }
}

#[test]
fn a_tensor_without_values_is_refused_whatever_it_claims() {
    let folder = folder();
    edit_tensors(&folder.path().join("open_clip_model.safetensors"), |tensors| {
        let tensor = tensors.get_mut("visual.proj").expect("a tensor of the model");
        (tensor.shape, tensor.data) = (vec![0, 1 << 40], Vec::new());
    });
    let error = open_backbone(folder.path(), &plain()).expect_err("an empty tensor");
    assert!(matches!(&error, Error::Tensor { name, .. } if name == "visual.proj"), "{error}");
}

#[test]
fn a_tensor_of_no_known_name_is_refused() {
    let folder = folder();
    edit_tensors(&folder.path().join("open_clip_model.safetensors"), |tensors| {
        let tensor = tensors["ln_final.bias"].clone();
        tensors.insert("visual.attn_pool.bias".into(), tensor);
    });
    let message = open_backbone(folder.path(), &plain()).expect_err("one too many").to_string();
    assert!(message.contains("visual.attn_pool.bias") && message.contains("open_clip_model.safetensors"), "{message}");
}

#[test]
fn preprocessing_is_that_of_the_openclip_config() {
    let folder = folder();
    assert_eq!(open(folder.path()).preprocess(), tiny().preprocess());
    let config = folder.path().join("open_clip_config.json");
    edit_json(&config, |config| {
        config["preprocess_cfg"] = json!({
            "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.5, 1.0], "interpolation": "bilinear", "resize_mode": "squash",
        });
    });
    let preprocess = open(folder.path()).preprocess().clone();
    assert_eq!((preprocess.mean, preprocess.std), ([0.5; 3], [0.25, 0.5, 1.0]));
    assert_eq!((preprocess.resize, preprocess.resample), (Resize::Exact(Size::square(32)), Resample::Bilinear));

    for (key, value) in [
        ("mean", json!(0.5)),
        ("std", json!([0.5, 0.0, 0.5])),
        ("interpolation", json!("cubic")),
        ("resize_mode", json!("longest")),
    ] {
        edit_json(&config, |config| config["preprocess_cfg"] = json!({ key: value }));
        let message = open_backbone(folder.path(), &plain()).expect_err("a setting that is not known").to_string();
        assert!(message.contains("open_clip_config.json") && message.contains(key), "{message}");
    }
}

#[test]
fn a_model_that_pools_or_sees_in_another_way_is_refused() {
    for (section, key, value) in [
        ("vision_cfg", "pool_type", json!("avg")),
        ("vision_cfg", "norm_kwargs", json!({ "eps": 1e-6 })),
        ("text_cfg", "pool_type", json!("last")),
        ("text_cfg", "no_causal_mask", json!(true)),
        ("text_cfg", "act_kwargs", json!({ "approximate": "tanh" })),
    ] {
        let folder = folder();
        edit_json(&folder.path().join("open_clip_config.json"), |config| {
            config["model_cfg"][section][key] = value.clone();
        });
        let message = open_backbone(folder.path(), &plain()).expect_err("another model").to_string();
        assert!(message.contains("open_clip_config.json") && message.contains(key), "{message}");
    }
    // What these towers do may be said.
    let folder = folder();
    edit_json(&folder.path().join("open_clip_config.json"), |config| {
        config["model_cfg"]["text_cfg"]["pool_type"] = json!("argmax");
        config["model_cfg"]["vision_cfg"]["norm_kwargs"] = json!(null);
    });
    open(folder.path());
}
