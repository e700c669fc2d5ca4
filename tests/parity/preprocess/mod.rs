//! Resizing, cropping and normalising equal Pillow and Hugging Face's CLIP image processor.
//!
//! The fixture is made by `generate.py` beside this file. Tolerance: one grey level, because Pillow sums its filter in
//! fixed point and we in single precision, so that a value next to a half may be rounded the other way.

use std::path::PathBuf;

use inarch_core::image::{Preprocess, RgbImage, decode_image};
use serde_json::Value;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/parity/preprocess")).join(name)
}

/// Source, expected image and settings of every case.
fn cases() -> Vec<(RgbImage, RgbImage, Preprocess)> {
    let text = std::fs::read_to_string(fixture("cases.json")).expect("the fixture is part of the repository");
    let root: Value = serde_json::from_str(&text).expect("the generator writes JSON");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = folder.path().join("preprocessor_config.json");
    let image = |case: &Value, key: &str| {
        decode_image(&fixture(case[key].as_str().expect("a file name"))).expect("the fixture's images decode")
    };
    let cases = root["cases"].as_array().expect("a list of cases");
    cases
        .iter()
        .map(|case| {
            std::fs::write(&config, case["settings"].to_string()).expect("a writable folder");
            let preprocess = Preprocess::from_hf(&config).expect("settings that Hugging Face accepts");
            (image(case, "source"), image(case, "expected"), preprocess)
        })
        .collect()
}

#[test]
fn every_case_is_within_one_grey_level_of_pillow() {
    let cases = cases();
    assert_eq!(cases.len(), 18);
    for (number, (source, expected, preprocess)) in cases.iter().enumerate() {
        let found = preprocess.resize_and_crop(source).expect("a valid image");
        assert_eq!(found.dimensions(), expected.dimensions(), "case {number}");
        let distances: Vec<u8> =
            found.as_raw().iter().zip(expected.as_raw()).map(|(found, expected)| found.abs_diff(*expected)).collect();
        let greatest = distances.iter().copied().max().unwrap_or(0);
        let differing = distances.iter().filter(|&&distance| distance > 0).count() as f64 / distances.len() as f64;
        assert!(greatest <= 1, "case {number}: {greatest} grey levels, {:.2} % differ", 100.0 * differing);
        // More would be another filter or another order of the passes, not rounding.
        assert!(differing < 0.005, "case {number}: {:.2} % of the values differ", 100.0 * differing);
    }
}

#[test]
fn normalised_pixels_equal_the_processors() {
    let (_, expected, preprocess) = &cases()[1];
    let bytes = std::fs::read(fixture("pixels.bin")).expect("the fixture is part of the repository");
    let reference: Vec<f32> =
        bytes.chunks_exact(4).map(|value| f32::from_le_bytes([value[0], value[1], value[2], value[3]])).collect();
    let found = preprocess.normalise(expected);
    assert_eq!(found.len(), reference.len());
    // Both compute from the same grey levels; only the order of float operations differs.
    let greatest = found.iter().zip(&reference).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(greatest < 1e-6, "{greatest}");
}
