//! The tiny backbone behind a server, adapters in folders, images, and the answers that the library gives.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use inarch_core::backbone::{Backbone, Frozen, Pass, Sites, normalise, values};
use inarch_core::checkpoint::open_backbone;
use inarch_core::image::decode_image_bytes;
use inarch_core::text::TemplateSet;
use inarch_peft::{Artifact, Classifier, MethodConfig, Provenance};
use inarch_serve::{Preload, Running, Server, Settings};
use serde_json::Value;

use super::client::Client;
use crate::contract::case::{artifact, fresh};
use crate::support::{classes, fixture, plain, randomised, templates, tiny};

/// The backbone as servers share it.
pub(super) fn backbone() -> Arc<Backbone> {
    static SHARED: OnceLock<Arc<Backbone>> = OnceLock::new();
    let open = || Arc::new(open_backbone(&fixture("parity/clip_tiny/quick"), &plain()).expect("a valid backbone"));
    SHARED.get_or_init(open).clone()
}

/// Settings for a free loopback port.
pub(super) fn settings() -> Settings {
    Settings { address: ([127, 0, 0, 1], 0).into(), ..Settings::default() }
}

/// A server with some adapters, named by their folders.
pub(super) fn serve(folders: &[PathBuf], settings: Settings) -> (Running, Client) {
    let preload: Vec<Preload> = folders.iter().map(|folder| bound(folder)).collect();
    let running = Server::bind(backbone(), None, &preload, settings).expect("valid adapters").spawn();
    let client = Client::new(running.address());
    (running, client)
}

fn bound(folder: &Path) -> Preload {
    let name = folder.file_name().expect("a folder with a name").to_string_lossy().into_owned();
    Preload::Folder { name, folder: folder.to_path_buf() }
}

/// Saves the adapter of a method with random values below `root`, in a folder of that name.
pub(super) fn saved(root: &Path, name: &str, method: &MethodConfig) -> PathBuf {
    let folder = root.join(name);
    artifact(method).save(&folder).expect("a writable folder");
    folder
}

/// The same with values of another size, so that adapters of one method differ.
pub(super) fn variant(root: &Path, name: &str, method: &MethodConfig, deviation: f32) -> (PathBuf, Artifact) {
    let adapter = randomised(fresh(method, 1, &plain()), deviation, &plain());
    let provenance = Provenance {
        classes: classes(),
        templates: templates(),
        data: None,
        clips: None,
        metrics: std::collections::BTreeMap::new(),
    };
    let artifact = Artifact::new(adapter, method.clone(), tiny(), provenance).expect("plain names");
    let folder = root.join(name);
    artifact.save(&folder).expect("a writable folder");
    (folder, artifact)
}

/// A picture that differs by its number, as PNG.
pub(super) fn picture(number: u32) -> Vec<u8> {
    let colour = |x: u32, y: u32, c: u32| ((x * (3 + number) + y * (7 * c + 1) + number * 31) % 256) as u8;
    let image = RgbImage::from_fn(40, 36, |x, y| Rgb([colour(x, y, 0), colour(x, y, 1), colour(x, y, 2)]));
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::from(image).write_to(&mut bytes, ImageFormat::Png).expect("a picture");
    bytes.into_inner()
}

/// Probabilities of the library for one picture alone: of an adapter over its classes, or zero-shot over others.
pub(super) fn alone(artifact: Option<&Artifact>, picture: &[u8], others: &[String]) -> Vec<(String, f32)> {
    let backbone = tiny();
    let image = decode_image_bytes(picture, Path::new("picture")).expect("a picture");
    let size = backbone.spec().image.size;
    let pixels = backbone.preprocess().pixels(&image).expect("pixels");
    let pixels = backbone.pixels(pixels, [1, 3, size, size]).expect("the right size");
    let frozen = Frozen;
    let sites: &dyn Sites = artifact.map_or(&frozen, |artifact| artifact.adapter.sites());
    let single = TemplateSet::named("single").expect("a known set").templates().to_vec();
    let classifier = match artifact {
        Some(artifact) => artifact.classifier(backbone, (!others.is_empty()).then_some(others)),
        None => Classifier::zero_shot(backbone, others, &single),
    };
    let classifier = classifier.expect("plain names");
    let pass = Pass::evaluate();
    let image = backbone.encode_image(pixels, sites, &pass);
    let condition = normalise(image.clone());
    let pass = Pass { condition: sites.conditions_text().then_some(&condition), ..pass };
    let text = classifier.text(classifier.start(sites), sites, &pass);
    let logits = values(classifier.logits(&image, &text, sites, &pass));
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f32 = logits.iter().map(|logit| (logit - top).exp()).sum();
    let scores = logits.iter().map(|logit| (logit - top).exp() / total);
    classifier.classes().iter().cloned().zip(scores).collect()
}

/// Compares the predictions of an answer with probabilities of the library.
#[track_caller]
pub(super) fn agree(what: &str, predictions: &Value, expected: &[(String, f32)]) {
    let predictions = predictions.as_array().unwrap_or_else(|| panic!("{what}: no predictions"));
    assert_eq!(predictions.len(), expected.len(), "{what}");
    let mut last = f64::INFINITY;
    for prediction in predictions {
        let (label, score) =
            (prediction["label"].as_str().expect("a label"), prediction["score"].as_f64().expect("a score"));
        assert!(score <= last, "{what}: not in order");
        last = score;
        let (_, own) = expected.iter().find(|(known, _)| known == label).unwrap_or_else(|| panic!("{what}: `{label}`"));
        assert!((score - f64::from(*own)).abs() < 1e-4, "{what}: `{label}` {score}, alone {own}");
    }
}
