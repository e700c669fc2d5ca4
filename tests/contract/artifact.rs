//! What is saved comes back, beside its own backbone and no other.

use std::path::Path;

use inarch_core::backbone::{Backbone, Pass, values};
use inarch_core::checkpoint::open_backbone;
use inarch_peft::{Artifact, Error, MANIFEST_FILE, TENSORS_FILE};

use super::case::{artifact, methods, scores};
use crate::support::{classes, fixture, pixels, plain, same, tiny};

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
