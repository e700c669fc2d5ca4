//! What is saved comes back, beside its own backbone and no other.

use std::path::Path;

use inarch_core::Digest;
use inarch_core::backbone::{Backbone, Pass, values};
use inarch_core::checkpoint::open_backbone;
use inarch_peft::{Artifact, Error, MANIFEST_FILE, STAGED_FILE, TENSORS_FILE};
use tempfile::TempDir;

use super::case::{artifact, configured, methods, scores};
use crate::support::{classes, edit_json, edit_tensors, fixture, pixels, plain, same, tiny};

fn bytes(folder: &Path, name: &str) -> Vec<u8> {
    std::fs::read(folder.join(name)).expect("a file of the artifact")
}

#[test]
fn what_is_saved_is_loaded() {
    for config in methods() {
        let name = config.name();
        let saved = artifact(&config);
        let [first, second] = [0, 1].map(|_| tempfile::tempdir().expect("a folder"));
        saved.save(first.path()).expect("a writable folder");
        let loaded = Artifact::load(first.path(), tiny()).expect("what was saved");
        assert_eq!(loaded.manifest, saved.manifest, "{name}");
        assert_eq!(loaded.adapter.parameters(), saved.adapter.parameters(), "{name}");

        loaded.save(second.path()).expect("a writable folder");
        for file in [TENSORS_FILE, MANIFEST_FILE] {
            assert!(bytes(first.path(), file) == bytes(second.path(), file), "{name}: `{file}` changed");
        }
        let found = |artifact: &Artifact| scores(&config, &artifact.adapter, &classes(), pixels(3), &Pass::evaluate());
        same(name, found(&loaded), found(&saved), 0.0);
        let files = inarch_core::file::list(first.path()).expect("a folder");
        assert_eq!(files.len(), 2, "{name}: {files:?}");
    }
}

/// The files that a save leaves where it is killed, laid by hand: each from a folder, under its name there, as another.
fn laid(files: &[(&TempDir, &str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (from, name, laid) in files {
        std::fs::copy(from.path().join(name), folder.path().join(laid)).expect("a file of the artifact");
    }
    folder
}

#[test]
fn a_save_that_is_killed_leaves_the_old_adapter_or_the_new_one() {
    let config = configured("lora", "");
    let [old, new] = [0, 1].map(|_| tempfile::tempdir().expect("a folder"));
    for folder in [&old, &new] {
        artifact(&config).save(folder.path()).expect("a writable folder");
    }
    edit_tensors(&new.path().join(TENSORS_FILE), |tensors| {
        tensors.values_mut().flat_map(|tensor| &mut tensor.data).for_each(|value| *value = -*value);
    });
    let digest = Digest::of(&bytes(new.path(), TENSORS_FILE)).to_string();
    edit_json(&new.path().join(MANIFEST_FILE), |manifest| manifest["tensors"] = digest.into());

    let (tensors, manifest) = ((&old, TENSORS_FILE, TENSORS_FILE), (&old, MANIFEST_FILE, MANIFEST_FILE));
    let (staged, described) = ((&new, TENSORS_FILE, STAGED_FILE), (&new, MANIFEST_FILE, MANIFEST_FILE));
    let is_whole = |folder: &TempDir, as_in: &TempDir| {
        Artifact::load(folder.path(), tiny()).expect("whole again");
        for file in [TENSORS_FILE, MANIFEST_FILE] {
            assert!(bytes(folder.path(), file) == bytes(as_in.path(), file), "{file}");
        }
    };
    let files = |folder: &TempDir| inarch_core::file::list(folder.path()).expect("a folder").len();

    // Before the manifest: the old one is there, and what was begun is in nobody's way.
    for begun in [&[tensors, manifest, staged][..], &[tensors, manifest, (&new, MANIFEST_FILE, STAGED_FILE)]] {
        let folder = laid(begun);
        is_whole(&folder, &old);
        Artifact::load(old.path(), tiny()).and_then(|old| old.save(folder.path())).expect("a writable folder");
        is_whole(&folder, &old);
        assert_eq!(files(&folder), 2);
    }
    // After it: the new one, over an old one or none.
    for begun in [&[tensors, described, staged][..], &[described, staged]] {
        let folder = laid(begun);
        is_whole(&folder, &new);
        assert_eq!(files(&folder), 2);
    }
    // Tensors of neither are not taken for those of the manifest.
    let folder = laid(&[tensors, described, (&old, TENSORS_FILE, STAGED_FILE)]);
    let message = Artifact::load(folder.path(), tiny()).expect_err("tensors of another adapter").to_string();
    assert!(message.contains("changed or damaged"), "{message}");
    // A first save that is killed before its manifest leaves no adapter.
    assert!(Artifact::load(laid(&[staged]).path(), tiny()).is_err());
}

#[test]
fn a_save_that_fails_changes_nothing() {
    let config = configured("lora", "");
    let folder = tempfile::tempdir().expect("a folder");
    let tensors = folder.path().join(TENSORS_FILE);
    std::fs::write(&tensors, "of before").expect("a writable folder");
    std::fs::create_dir(folder.path().join(MANIFEST_FILE)).expect("a writable folder");
    let message = artifact(&config).save(folder.path()).expect_err("a folder in the manifest's place").to_string();
    assert!(message.contains(MANIFEST_FILE) && message.contains("is a folder"), "{message}");
    assert_eq!(bytes(folder.path(), TENSORS_FILE), b"of before");
    assert!(!folder.path().join(STAGED_FILE).exists());
}

#[test]
fn the_self_test_knows_the_adapter() {
    // Of one image there is nothing to weigh; `clips` asks it with several.
    for config in methods().into_iter().filter(|config| config.name() != "gated-pool") {
        let mut artifact = artifact(&config);
        artifact.self_test(tiny()).expect("the adapter that was saved");
        let mut parameters = artifact.adapter.parameters();
        let tensor = parameters.values_mut().max_by_key(|tensor| tensor.data.len()).expect("a parameter");
        tensor.data.iter_mut().step_by(2).for_each(|value| *value = -*value);
        artifact.adapter = artifact.adapter.with_parameters(parameters, &plain()).expect("the same shapes");
        let error = artifact.self_test(tiny()).expect_err("another adapter");
        assert!(matches!(error, Error::SelfTest { .. }), "{}: {error}", config.name());
    }
}

#[test]
fn another_program_can_make_the_inputs_of_the_self_test() {
    for config in methods() {
        let artifact = artifact(&config);
        let manifest = serde_json::to_value(&artifact.manifest).expect("plain data");
        let test = &manifest["self_test"];
        let inputs = &test["inputs"];
        assert_eq!((&inputs["formula"], &inputs["frames"]), (&"pixel-waves".into(), &1.into()));
        let read = "what the guide says";
        let shape: [usize; 4] = serde_json::from_value(inputs["shape"].clone()).expect(read);
        let texts: Vec<String> = serde_json::from_value(inputs["texts"].clone()).expect(read);
        let logits: Vec<f64> = serde_json::from_value(test["logits"].clone()).expect(read);
        let tolerance = test["tolerance"].as_f64().expect(read);
        // By the words of the guide, in double precision.
        let [_, channels, size, _] = shape;
        let wave = |at: usize| {
            let (column, row) = (at % size, at / size % size);
            let (channel, image) = (at / size / size % channels, at / size / size / channels);
            let turns = (row * (image + 1) + column * (channel + 1)) as f64 / size as f64;
            (2.0 * std::f64::consts::PI * turns).sin() as f32
        };
        let pixels = (0..shape.iter().product::<usize>()).map(wave).collect();
        let pixels = tiny().pixels(pixels, shape).expect("images of this backbone");
        let found = values(scores(&config, &artifact.adapter, &texts, pixels, &Pass::evaluate()));
        assert_eq!(found.len(), logits.len(), "{}", config.name());
        for (found, expected) in found.iter().zip(&logits) {
            assert!((f64::from(*found) - expected).abs() <= tolerance, "{}: {found} {expected}", config.name());
        }
    }
}

#[test]
fn the_self_test_fails_for_a_score_that_is_no_number() {
    for config in methods() {
        let mut artifact = artifact(&config);
        artifact.manifest.self_test.logits[0] = f32::NAN;
        assert!(artifact.self_test(tiny()).is_err(), "{}", config.name());
        artifact.manifest.self_test.logits.clear();
        assert!(artifact.self_test(tiny()).is_err(), "{}: no score to compare with", config.name());
    }
}

#[test]
fn an_adapter_of_another_backbone_is_refused() {
    // The same shapes throughout, other weights: only the identity can tell.
    let other: Backbone = open_backbone(&fixture("parity/clip_tiny/half"), &plain()).expect("a backbone");
    for config in methods() {
        let folder = tempfile::tempdir().expect("a folder");
        artifact(&config).save(folder.path()).expect("a writable folder");
        let error = Artifact::load(folder.path(), &other).expect_err("another backbone");
        let Error::Core(refused @ inarch_core::Error::Refused { .. }) = &error else {
            panic!("{}: {error:?}", config.name());
        };
        let message = refused.to_string();
        for word in [tiny().digest().short(), other.digest().short(), "quick", "half"] {
            assert!(message.contains(word), "{}: `{word}` is missing in: {message}", config.name());
        }
    }
}

#[test]
fn the_manifest_describes_the_adapter() {
    for config in methods() {
        let artifact = artifact(&config);
        let manifest = &artifact.manifest;
        assert_eq!(manifest.method, config);
        assert_eq!(&manifest.backbone.digest, tiny().digest());
        assert_eq!(manifest.classes, classes());
        assert_eq!(manifest.parameters, artifact.adapter.trainable());
        assert_eq!(&manifest.preprocess, tiny().preprocess());
        assert_eq!(manifest.self_test.logits.len(), 2 * manifest.self_test.classes);
    }
}
