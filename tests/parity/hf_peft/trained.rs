//! Adapters that `inarch fit` trained beside `pocket` give in PEFT the features that they give here; `trained.py` beside this file
//! trained them and showed them to PEFT.

use std::collections::BTreeMap;

use burn::tensor::{Tensor, TensorData};
use inarch_core::Digest;
use inarch_core::backbone::{Pass, normalise, values};
use inarch_core::checkpoint::{open_backbone, read_safetensors};
use inarch_peft::{Artifact, write_peft};

use super::folder;
use crate::support::{close, fixture, plain};

#[test]
fn adapters_that_were_trained_here_give_the_same_features_in_peft() {
    let pocket = open_backbone(&fixture("../recipes/pocket"), &plain()).expect("the backbone of this repository");
    let size = pocket.spec().image.size;
    let pixels: Vec<f32> = (1..=2 * 3 * size * size).map(|i| (0.37 * i as f64).sin() as f32).collect();
    let pixels = Tensor::<4>::from_data(TensorData::new(pixels, [2, 3, size, size]), &plain());
    let rows = [vec![4512, 10, 200, 3010, 4513], vec![4512, 44, 91, 77, 4513]];
    let (expected, _) = read_safetensors(&folder("trained/expected.safetensors")).expect("a fixture");
    let shown = std::fs::read_to_string(folder("trained/shown.json")).expect("a fixture");
    let shown: BTreeMap<String, BTreeMap<String, String>> = serde_json::from_str(&shown).expect("a fixture");
    assert_eq!(2 * shown.len(), expected.len());
    for (name, digests) in &shown {
        let adapter = Artifact::load(&folder(&format!("trained/{name}")), &pocket).expect("an adapter of `inarch fit`");
        adapter.self_test(&pocket).expect("scores of the day of its training");
        let pass = Pass::evaluate();
        let image = normalise(pocket.encode_image(pixels.clone(), &adapter.adapter, &pass));
        let text = normalise(pocket.encode_text(&rows, &adapter.adapter, &pass));
        for (tower, found) in [("image", image), ("text", text)] {
            close(&format!("{name} {tower}"), &values(found), &expected[&format!("{name}.{tower}")].data, 2e-5);
        }
        let target = tempfile::tempdir().expect("a folder");
        write_peft(&adapter, &pocket, target.path()).expect("a writable folder");
        for (file, digest) in digests {
            let bytes = std::fs::read(target.path().join(file)).expect("a file");
            assert_eq!(&Digest::of(&bytes).to_string(), digest, "{name}: `{file}` is not what PEFT was shown");
        }
    }
}
