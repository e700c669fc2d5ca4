//! Compressed DICOM frames equal what pydicom makes of them with OpenJPEG and libjpeg: JPEG 2000 with and without loss,
//! JPEG, lossless JPEG and RLE.
//!
//! The fixture is made by `generate.py` beside this file. Windows of 255 levels show single levels of 16 bits. Tolerance:
//! one grey level, because values are kept in single precision here, and decoders with loss may round the other way.

use std::path::Path;

use inarch_core::image::{decode_image, decode_image_bytes};
use serde_json::Value;

use crate::support::fixture;

fn expected() -> Value {
    let text = std::fs::read_to_string(fixture("parity/compressed_dicom/expected.json")).expect("the fixture");
    serde_json::from_str(&text).expect("JSON")
}

fn file(name: &str) -> Vec<u8> {
    std::fs::read(fixture("parity/compressed_dicom").join(name)).expect("the fixture")
}

fn reason(bytes: &[u8]) -> String {
    decode_image_bytes(bytes, Path::new("here")).expect_err("a file that is not read").to_string()
}

/// Where the pattern begins.
fn place(bytes: &[u8], pattern: &[u8]) -> usize {
    bytes.windows(pattern.len()).position(|window| window == pattern).expect("the pattern")
}

#[test]
fn every_compressed_frame_has_the_reference_levels() {
    let expected = expected();
    let images = expected["images"].as_object().expect("images by address");
    assert_eq!(images.len(), 18);
    for (address, image) in images {
        let found = decode_image(&fixture("parity/compressed_dicom").join(address)).expect(address);
        let numbers = |key: &str| -> Vec<u64> {
            image[key].as_array().expect("numbers").iter().map(|value| value.as_u64().expect("a number")).collect()
        };
        assert_eq!(numbers("size"), [u64::from(found.width()), u64::from(found.height())], "{address}");
        let wanted = match image["grey"].as_bool().expect("a flag") {
            true => numbers("levels").iter().flat_map(|level| [*level; 3]).collect(),
            false => numbers("levels"),
        };
        assert_eq!(wanted.len(), found.as_raw().len(), "{address}");
        let distances: Vec<u64> =
            wanted.iter().zip(found.as_raw()).map(|(want, found)| want.abs_diff(u64::from(*found))).collect();
        assert!(distances.iter().all(|distance| *distance <= 1), "{address}: {distances:?}");
        // Rounding the other way is rare, and less so where two decoders with loss round before.
        let lossy = address.starts_with("j2k-lossy") || address.starts_with("jpeg-8");
        let rare = if lossy { 5 } else { 20 };
        assert!(distances.iter().sum::<u64>() * rare <= distances.len() as u64, "{address}: {distances:?}");
    }
}

/// Nothing is left out at the edges of a stream: cut short, damaged, of another size, or fewer than there are frames.
#[test]
fn damaged_jpeg_2000_is_an_error_that_gives_nothing_away() {
    let patient = expected()["patient"].as_str().expect("a name").split('^').next().expect("a name").to_owned();
    let whole = file("j2k-16.dcm");
    let start = place(&whole, b"\xFF\x4F\xFF\x51");
    let length = u32::from_le_bytes(whole[start - 4..start].try_into().expect("four bytes")) as usize;
    // The fragment loses its end, and the file stays what it is.
    for lost in [4, 40, length / 4 * 2, length - 60] {
        let mut bytes = whole[..start + length - lost].to_vec();
        bytes[start - 4..start].copy_from_slice(&((length - lost) as u32).to_le_bytes());
        bytes.extend(&whole[start + length..]);
        assert!(reason(&bytes).contains("JPEG 2000 stream is damaged or cut short"), "{lost}: {}", reason(&bytes));
    }
    // Every byte of the heads, and some of those behind; most of the values of a damaged stream are still an image.
    for name in ["j2k-8.dcm", "j2k-rgb.dcm", "j2k-tiled.dcm"] {
        let whole = file(name);
        let start = place(&whole, b"\xFF\x4F\xFF\x51");
        let head = start..start + 160;
        for at in head.chain((start + 160..whole.len()).step_by(13)) {
            for change in [0x01, 0x80, 0xFF] {
                let mut damaged = whole.clone();
                damaged[at] ^= change;
                if let Err(error) = decode_image_bytes(&damaged, Path::new("here")) {
                    let words = error.to_string();
                    assert!(words.starts_with("image `here` cannot be decoded: ") && words.len() < 300, "{words}");
                    assert!(!words.contains(&patient) && !words.contains("1964"), "{words}");
                }
            }
        }
    }
    let mut bytes = whole.clone();
    bytes[start + 11] ^= 0x20;
    assert!(reason(&bytes).contains("a JPEG 2000 within it does not have them"), "{}", reason(&bytes));
    let mut bytes = file("j2k-loop.dcm");
    let at = place(&bytes, b"\x28\x00\x08\x00IS") + 8;
    bytes[at] = b'4';
    assert!(reason(&bytes).contains("claims 4 frames and holds 3 JPEG 2000 streams"), "{}", reason(&bytes));
}

#[test]
fn what_is_not_read_is_named_with_its_cure() {
    let expected = expected();
    let refused = expected["refused"].as_object().expect("files");
    assert_eq!(refused.len(), 2);
    for (name, cure) in [("jpeg-ls.dcm", "`dcmdjpls in.dcm out.dcm`"), ("htj2k.dcm", "pylibjpeg-openjpeg")] {
        let words = reason(&file(name));
        let syntax = refused[name].as_str().expect("a transfer syntax");
        assert!(words.contains(&format!("(transfer syntax {syntax})")) && words.contains(cure), "{words}");
    }
}
