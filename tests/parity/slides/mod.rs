//! Slides that are stored in tiles have the pixels that were written, to the level, or as near as JPEG comes to them.
//!
//! The fixture is made by `generate.py` beside this file. Tolerance for JPEG tiles: 8 levels at most, 1.5 in the mean;
//! Pillow's decoder is off by 4 and 0.7, and decoders differ in how they bring chroma back to the full size.

use std::path::PathBuf;

use image::imageops::crop_imm;
use inarch_core::data::{TileConfig, open_dataset, write_tiles};
use inarch_core::image::{OnBadImage, RgbImage, Slide, decode_image};

use crate::support::fixture;

/// Files, and by how many levels a pixel may be off at most.
const FILES: [(&str, u8); 3] = [("plain.tif", 0), ("deflate.tif", 0), ("jpeg.tif", 8)];

fn file(name: &str) -> PathBuf {
    fixture("parity/slides").join(name)
}

#[track_caller]
fn near(what: &str, found: &RgbImage, expected: &RgbImage, most: u8) {
    assert_eq!(found.dimensions(), expected.dimensions(), "{what}");
    let distances: Vec<u8> =
        found.as_raw().iter().zip(expected.as_raw()).map(|(found, expected)| found.abs_diff(*expected)).collect();
    let greatest = distances.iter().max().copied().unwrap_or_default();
    let mean = distances.iter().map(|distance| f64::from(*distance)).sum::<f64>() / distances.len() as f64;
    // The mean of a few pixels says nothing.
    let small = distances.len() < 300;
    assert!(greatest <= most && (small || mean <= 1.5), "{what}: off by {greatest} at most, {mean} in the mean");
}

#[test]
fn regions_of_tiled_slides_have_the_pixels_that_were_written() {
    let picture = decode_image(&file("picture.png")).expect("the picture");
    for (name, most) in FILES {
        let mut slide = Slide::open(&file(name)).expect(name);
        assert_eq!(slide.size(), (83, 53), "{name}");
        // All, inside one tile, over the corner of four, in the last tiles, the last pixel.
        for [x, y, width, height] in
            [[0, 0, 83, 53], [33, 2, 20, 20], [30, 29, 5, 7], [64, 32, 19, 21], [60, 40, 20, 13], [82, 52, 1, 1]]
        {
            let found = slide.region([x, y, width, height]).expect(name);
            let expected = crop_imm(&picture, x, y, width, height).to_image();
            near(&format!("{name} {width}x{height} at {x},{y}"), &found, &expected, most);
        }
        let beyond = slide.region([60, 40, 24, 13]).expect_err("outside").to_string();
        assert!(beyond.contains("83x53"), "{beyond}");
    }
}

#[test]
fn tiled_slides_are_cut_into_the_tiles_of_the_picture() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let places = ["train/a/one.tif", "train/b/two.tif", "test/b/three.tif"];
    for ((name, _), place) in FILES.iter().zip(places) {
        let path = folder.path().join("slides").join(place);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a writable folder");
        std::fs::copy(file(name), path).expect("the fixture");
    }
    let dataset = open_dataset(&folder.path().join("slides"), None).expect("a data set");
    let target = folder.path().join("tiles");
    let config = TileConfig { side: 24, shrink: 1, tissue: 0.0 };
    let report = write_tiles(&dataset, &target, &config, OnBadImage::Fail).expect("slides");
    assert_eq!((report.tiles, report.empty), (3 * 3 * 2, 0));
    let picture = decode_image(&file("picture.png")).expect("the picture");
    for ((name, most), place) in FILES.iter().zip(places) {
        for (row, column) in [(0, 0), (0, 2), (1, 0), (1, 1), (1, 2)] {
            let path = target.join(place.trim_end_matches(".tif")).join(format!("{row}-{column}.png"));
            let expected = crop_imm(&picture, column * 24, row * 24, 24, 24).to_image();
            near(&format!("{name}, tile {row}-{column}"), &decode_image(&path).expect(name), &expected, *most);
        }
    }
}

#[test]
fn a_tiled_slide_that_is_cut_short_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, _) in FILES {
        let bytes = std::fs::read(file(name)).expect("the fixture");
        let path = folder.path().join(name);
        // The directory stands behind the tiles, so that no part of the file opens.
        for length in [bytes.len() / 4, bytes.len() / 2, bytes.len() - 40] {
            std::fs::write(&path, &bytes[..length]).expect("a writable folder");
            let found = Slide::open(&path).and_then(|mut slide| slide.region([0, 0, 83, 53]));
            let error = found.expect_err("half a file").to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
