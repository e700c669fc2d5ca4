//! Adapters of HF PEFT beside other families than CLIP; `families.py` beside this file made the folders and checked those that
//! we wrote.

use std::path::{Path, PathBuf};

use inarch_core::backbone::{Pass, Tower, normalise, values};
use inarch_core::checkpoint::read_safetensors;
use inarch_peft::{Artifact, PEFT_CONFIG_FILE, PEFT_TENSORS_FILE, read_peft, write_peft};

use super::refused_by;
use crate::parity::families::Case;
use crate::support::{close, edit_json, fixture};

/// Folders, and the backbones that they belong to; `-4` has the names of version 4 of `transformers`.
const FOLDERS: [(&str, &str); 8] = [
    ("vit", "vit"),
    ("vit-4", "vit"),
    ("deit", "deit"),
    ("dinov2", "dinov2"),
    ("dinov2-4", "dinov2"),
    ("bert", "bert"),
    ("siglip", "siglip"),
    ("siglip-ln", "siglip"),
];

fn folder(name: &str) -> PathBuf {
    fixture(&format!("parity/hf_peft/families/{name}"))
}

/// What an adapter makes of its family's inputs is what PEFT made of them.
fn check(name: &str, case: &Case, artifact: &Artifact) {
    let (expected, _) = read_safetensors(&folder(name).join("expected.safetensors")).expect("a fixture");
    let (backbone, sites, pass) = (&case.backbone, artifact.adapter.sites(), Pass::evaluate());
    let shared = backbone.has(Tower::Image) && backbone.has(Tower::Text);
    let scaled = |feature| if shared { normalise(feature) } else { feature };
    for (key, tensor) in &expected {
        let found = match key.as_str() {
            "image" => scaled(backbone.encode_image(case.pixels(), sites, &pass)),
            "text" => scaled(backbone.encode_text(&case.rows(), sites, &pass)),
            _ => {
                let image = backbone.encode_image(case.pixels(), sites, &pass);
                let classifier = artifact.classifier(backbone, None).expect("its own classes");
                classifier.logits(&image, &classifier.features(sites), sites, &pass)
            }
        };
        close(&format!("{name} {key}"), &values(found), &tensor.data, 2e-5);
    }
}

#[test]
fn adapters_of_other_families_are_read_and_written() {
    for (name, family) in FOLDERS {
        let case = Case::open(family);
        let artifact = read_peft(&folder(name), &case.backbone).expect("a folder of PEFT");
        artifact.self_test(&case.backbone).expect("an adapter that was just read");
        check(name, &case, &artifact);

        let target = tempfile::tempdir().expect("a folder");
        write_peft(&artifact, &case.backbone, target.path()).expect("a writable folder");
        check(name, &case, &read_peft(target.path(), &case.backbone).expect("what was written"));
        if name.ends_with("-4") {
            continue; // Today's names are written.
        }
        let tensors = |folder: &Path| read_safetensors(&folder.join(PEFT_TENSORS_FILE)).expect("tensors").0;
        let (found, expected) = (tensors(target.path()), tensors(&folder(name)));
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{name}");
        for (key, tensor) in &expected {
            close(&format!("{name} {key}"), &found[key].data, &tensor.data, 1e-6);
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
fn a_head_tells_the_classes_of_its_checkpoint() {
    let case = Case::open("vit");
    let artifact = read_peft(&folder("vit"), &case.backbone).expect("a folder of PEFT");
    assert_eq!(artifact.manifest.classes, ["cat", "dog", "mat"]);
    assert_eq!(artifact.manifest.method.name(), "stack");
}

#[test]
fn what_does_not_belong_to_a_family_is_refused() {
    // CLIP's names on a tower alone, one family's adapter on another, and a head behind a pool that is not ours.
    let case = Case::open("vit");
    let vit = &case.backbone;
    refused_by(&fixture("parity/hf_peft/lora"), vit, &["fits no linear layer"]);
    refused_by(&folder("bert"), vit, &["encoder.layer"]);
    let folder = super::copy("families/dinov2");
    edit_json(&folder.path().join(PEFT_CONFIG_FILE), |config| {
        config["modules_to_save"] = serde_json::json!(["classifier"])
    });
    refused_by(folder.path(), &Case::open("dinov2").backbone, &["`modules_to_save`", "classifier"]);

    let artifact = read_peft(&self::folder("vit"), vit).expect("a folder of PEFT");
    let case = Case::open("vit_pytorch");
    let packaged = &case.backbone;
    let target = tempfile::tempdir().expect("a folder");
    let error = write_peft(&artifact, packaged, target.path()).expect_err("no such model").to_string();
    assert!(error.contains("none of them has"), "{error}");
}
