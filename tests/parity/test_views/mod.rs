//! AugMix's operations equal Pillow's, and the views of test-time adaptation are distributed as the reference's;
//! `generate.py` beside this file made the expected ones.

use std::path::PathBuf;

use inarch_core::Seed;
use inarch_core::image::{CLIP_MEAN, CLIP_STD, Operation, Preprocess, RgbImage, TestViews, ViewRecipe, decode_image};
use serde::Deserialize;

fn file(name: &str) -> PathBuf {
    crate::support::fixture(&format!("parity/test_views/{name}"))
}

fn operation(name: &str, level: f64) -> Operation {
    match name {
        "auto-contrast" => Operation::AutoContrast,
        "equalize" => Operation::Equalize,
        "posterize" => Operation::Posterize(level as u32),
        "rotate" => Operation::Rotate(level as i32),
        "solarize" => Operation::Solarize(level as u32),
        "shear-x" => Operation::ShearX(level),
        "shear-y" => Operation::ShearY(level),
        "translate-x" => Operation::TranslateX(level as i32),
        "translate-y" => Operation::TranslateY(level as i32),
        other => panic!("`{other}` is no operation"),
    }
}

#[test]
fn operations_equal_pillow() {
    let text = std::fs::read_to_string(file("operations.json")).expect("a fixture");
    let listed: Vec<(String, f64)> = serde_json::from_str(&text).expect("what the generator wrote");
    let sheet = decode_image(&file("operations.png")).expect("an image");
    let tile = |place: usize| RgbImage::from_fn(72, 64, |x, y| *sheet.get_pixel(x, y + 64 * place as u32));
    let source = tile(0);
    assert_eq!(sheet.height(), 64 * (listed.len() as u32 + 1));
    for (place, (name, level)) in listed.iter().enumerate() {
        let (found, expected) = (operation(name, *level).apply(&source), tile(place + 1));
        // A level next to a whole number is cut to another one where the last digit of a product differs.
        let pairs = found.as_raw().iter().zip(expected.as_raw());
        let apart: Vec<u8> = pairs.map(|(found, expected)| found.abs_diff(*expected)).collect();
        let differing = apart.iter().filter(|apart| **apart > 0).count() as f64 / apart.len() as f64;
        assert!(apart.iter().all(|apart| *apart <= 1), "{name} {level}: {:?} levels apart", apart.iter().max());
        assert!(differing < 0.01, "{name} {level}: {:.2} % differ", 100.0 * differing);
    }
}

#[derive(Deserialize)]
struct Summary {
    mean: Vec<f64>,
    std: Vec<f64>,
    /// Of each measure, the values below which 10, 25, 50, 75 and 90 % lie.
    quartiles: Vec<[f64; 5]>,
}

#[derive(Deserialize)]
struct Statistics {
    draws: usize,
    side: u32,
    crop: Summary,
    augmix: Summary,
}

/// The generator's measures of one view: mean and spread of each channel, and how its halves differ.
fn measures(pixels: &[f32], side: usize) -> Vec<f64> {
    let level = |channel: usize, x: usize, y: usize| {
        let value = f64::from(pixels[(channel * side + y) * side + x]);
        255.0 * (value * f64::from(CLIP_STD[channel]) + f64::from(CLIP_MEAN[channel]))
    };
    let area = (side * side) as f64;
    let mut found = Vec::new();
    let mut spreads = Vec::new();
    let (mut across, mut down) = (0.0, 0.0);
    for channel in 0..3 {
        let (mut sum, mut squares) = (0.0, 0.0);
        for y in 0..side {
            for x in 0..side {
                let value = level(channel, x, y);
                sum += value;
                squares += value * value;
                across += if x < side / 2 { value } else { -value };
                down += if y < side / 2 { value } else { -value };
            }
        }
        found.push(sum / area);
        spreads.push((squares / area - (sum / area).powi(2)).max(0.0).sqrt());
    }
    let half = 3.0 * area / 2.0;
    found.extend(spreads);
    found.extend([across / half, down / half, (across / half).abs()]);
    found
}

#[test]
fn views_are_distributed_as_the_references() {
    let text = std::fs::read_to_string(file("statistics.json")).expect("a fixture");
    let statistics: Statistics = serde_json::from_str(&text).expect("what the generator wrote");
    let source = decode_image(&crate::support::fixture("parity/preprocess/dress.png")).expect("an image");
    let side = statistics.side;
    let preprocess = Preprocess::clip(side);
    let draws = 6000;
    for (recipe, expected) in [(ViewRecipe::Crop, &statistics.crop), (ViewRecipe::Augmix, &statistics.augmix)] {
        let views = TestViews { count: 1001, recipe, severity: 1.0 };
        let names: Vec<String> = (0..draws / 1000).map(|image| image.to_string()).collect();
        let images: Vec<(&str, &RgbImage)> = names.iter().map(|name| (name.as_str(), &source)).collect();
        let size = preprocess.values_per_image();
        let mut rows = Vec::new();
        for image in &images {
            let pixels = views.batch(&[*image], &preprocess, Seed::new(5)).expect("views");
            rows.extend(pixels.chunks(size).skip(1).map(|view| measures(view, side as usize)));
        }
        assert_eq!(rows.len(), draws);
        for measure in 0..expected.mean.len() {
            let mut values: Vec<f64> = rows.iter().map(|row| row[measure]).collect();
            let mean = values.iter().sum::<f64>() / draws as f64;
            let std = (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / draws as f64).sqrt();
            // Five standard errors of the difference of two means; the seed is fixed, so this holds for ever or never.
            let error = expected.std[measure] * (1.0 / draws as f64 + 1.0 / statistics.draws as f64).sqrt();
            let apart = (mean - expected.mean[measure]).abs() / error;
            assert!(apart < 5.0, "{recipe:?} {measure}: mean {mean}, expected {}", expected.mean[measure]);
            let ratio = std / expected.std[measure];
            assert!((0.95..1.05).contains(&ratio), "{recipe:?} {measure}: spread {std}, {}", expected.std[measure]);
            values.sort_by(f64::total_cmp);
            for (share, bound) in [0.1, 0.25, 0.5, 0.75, 0.9].into_iter().zip(expected.quartiles[measure]) {
                let below = values.partition_point(|value| *value < bound) as f64 / draws as f64;
                assert!((below - share).abs() < 0.025, "{recipe:?} {measure}: {below} lie below {bound}, not {share}");
            }
        }
    }
}
