//! Frames of videos equal those of FFmpeg: H.264 with and without frames that are shown out of the order of decoding,
//! closed and open groups, BT.601 and BT.709, both ranges of levels, cropped, turned, and cut by an edit list.
//!
//! The fixture is made by `generate.py` beside this file. What is stored decodes to the same numbers in both; tolerance:
//! one level for the way to RGB, which is rounded once here and in steps there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use image::imageops::crop_imm;
use inarch_core::image::{RgbImage, animation_frames, decode_frames, decode_image};
use serde::Deserialize;

use crate::support::fixture;

#[derive(Deserialize)]
struct Expected {
    read: BTreeMap<String, Video>,
    refused: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Video {
    frames: usize,
    shown: Vec<usize>,
}

fn expected() -> Expected {
    inarch_core::file::read_json(&file("expected.json"), "fixture").expect("JSON")
}

fn file(name: &str) -> PathBuf {
    fixture("parity/video").join(name)
}

/// Whether no level is further away than one, and few are away at all.
fn near(found: &RgbImage, wanted: &RgbImage) -> bool {
    let far = found.as_raw().iter().zip(wanted.as_raw()).map(|(found, wanted)| u64::from(found.abs_diff(*wanted)));
    let (sum, most) = far.fold((0u64, 0u64), |(sum, most), far| (sum + far, most.max(far)));
    found.dimensions() == wanted.dimensions() && most <= 1 && 50 * sum <= found.as_raw().len() as u64
}

#[test]
fn every_frame_is_that_of_another_decoder() {
    let expected = expected();
    assert_eq!(expected.read.len(), 6);
    for (name, video) in expected.read {
        let path = file(&name);
        assert_eq!(animation_frames(&path).expect(&name), video.frames, "{name}");
        let strip = decode_image(&path.with_extension("png")).expect(&name);
        let found = decode_frames(&path, &video.shown).expect(&name);
        assert_eq!(found.len(), video.shown.len(), "{name}");
        let mut above = 0;
        for (number, image) in video.shown.iter().zip(&found) {
            let wanted = crop_imm(&strip, 0, above, strip.width(), image.height()).to_image();
            assert!(near(image, &wanted), "frame {number} of {name}");
            above += image.height();
        }
        assert_eq!(above, strip.height(), "{name}");
        // No two of them are alike, so that another order would show.
        assert!(found.windows(2).all(|pair| !near(&pair[0], &pair[1])), "{name}");

        // What else is asked for, and in which order, changes nothing.
        for (number, image) in video.shown.iter().zip(&found) {
            assert!(decode_frames(&path, &[*number]).expect(&name) == [image.clone()], "frame {number} of {name}");
        }
        let backwards: Vec<usize> = video.shown.iter().rev().chain(&video.shown[..1]).copied().collect();
        let images: Vec<RgbImage> = found.iter().rev().chain(&found[..1]).cloned().collect();
        assert!(decode_frames(&path, &backwards).expect(&name) == images, "{name}");
        let error = decode_frames(&path, &[0, video.frames]).expect_err("no such frame").to_string();
        assert!(error.contains(&name) && error.contains("ends before frame"), "{error}");
    }
}

#[test]
fn what_is_not_decoded_is_named_with_its_cure() {
    for (name, words) in expected().refused {
        let path = file(&name);
        let error = decode_frames(&path, &[0]).expect_err("refused").to_string();
        assert!([name.as_str(), words.as_str(), "ffmpeg -i"].iter().all(|word| error.contains(word)), "{error}");
    }
    let error = decode_image(&file("plain.mp4")).expect_err("a video").to_string();
    assert!(error.contains("video of 12 frames, where an image is needed"), "{error}");
}

/// A file of these bytes, and whatever comes of it: frames, or an error that names it.
fn outcome(folder: &Path, bytes: &[u8]) -> Result<usize, String> {
    let path = folder.join("clip.mp4");
    std::fs::write(&path, bytes).expect("written");
    let words = |error: inarch_core::Error| {
        let error = error.to_string();
        assert!(error.contains("clip.mp4") && error.len() < 600, "{error}");
        error
    };
    let frames = animation_frames(&path).map_err(words)?;
    decode_frames(&path, &[0, frames - 1]).map_err(words).map(|images| images.len())
}

#[test]
fn videos_that_are_cut_short_or_damaged_are_errors_and_never_panic() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["b-frames.mp4", "full.m4v"] {
        let whole = std::fs::read(file(name)).expect("the fixture");
        assert_eq!(outcome(folder.path(), &whole), Ok(2));
        for cut in (0..whole.len()).step_by(5) {
            assert!(outcome(folder.path(), &whole[..cut]).is_err(), "{name} cut to {cut} bytes");
        }
        for at in (0..whole.len()).step_by(3) {
            let mut damaged = whole.clone();
            damaged[at] ^= [0x01, 0x80, 0xFF][at % 3];
            let _ = outcome(folder.path(), &damaged);
        }
    }
}

#[test]
fn what_a_file_claims_is_not_believed() {
    let folder = tempfile::tempdir().expect("a folder");
    let whole = std::fs::read(file("plain.mp4")).expect("the fixture");
    // A table of samples of one size, of which there are four thousand million.
    let at = whole.windows(4).position(|word| word == b"stsz").expect("a table");
    let mut many = whole.clone();
    many[at + 8..at + 16].copy_from_slice(&[0, 0, 0, 1, 0xFF, 0xFF, 0xFF, 0xFF]);
    let error = outcome(folder.path(), &many).expect_err("too many frames");
    assert!(error.contains("claims 4294967295 frames"), "{error}");
    // One sample as large as can be said.
    let mut large = whole.clone();
    large[at + 16..at + 20].copy_from_slice(&[0xFF; 4]);
    let error = outcome(folder.path(), &large).expect_err("beyond the end");
    assert!(error.contains("frame 0 lies beyond its end"), "{error}");
    // A unit of a sample that is longer than the sample.
    let at = whole.windows(4).position(|word| word == b"mdat").expect("frames");
    let mut long = whole;
    long[at + 4..at + 8].copy_from_slice(&[0x7F, 0xFF, 0xFF, 0xFF]);
    let error = outcome(folder.path(), &long).expect_err("a damaged frame");
    assert!(error.contains("frame 0 is damaged"), "{error}");
}
