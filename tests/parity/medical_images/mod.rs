//! DICOM frames, NIfTI slices and deep grey images equal what pydicom, nibabel and numpy make of them.
//!
//! The fixture is made by `generate.py` beside this file. Tolerance: one grey level, because values are kept in single
//! precision here, so that one next to a half may be rounded the other way.

use std::path::Path;

use inarch_core::image::{decode_image, decode_image_bytes, kept_image, kept_images, single_images};
use serde_json::Value;

use crate::support::fixture;

fn expected() -> Value {
    let text = std::fs::read_to_string(fixture("parity/medical_images/expected.json")).expect("the fixture");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn every_frame_and_window_has_the_reference_levels() {
    let expected = expected();
    let images = expected["images"].as_object().expect("images by address");
    assert_eq!(images.len(), 38);
    for (address, image) in images {
        let path = fixture("parity/medical_images").join(address);
        let found = decode_image(&path).expect(address);
        let numbers = |key: &str| -> Vec<u64> {
            image[key].as_array().expect("numbers").iter().map(|value| value.as_u64().expect("a number")).collect()
        };
        assert_eq!(numbers("size"), [u64::from(found.width()), u64::from(found.height())], "{address}");
        let distances: Vec<u64> =
            numbers("rgb").iter().zip(found.as_raw()).map(|(want, found)| want.abs_diff(u64::from(*found))).collect();
        assert!(distances.iter().all(|distance| *distance <= 1), "{address}: {distances:?}");
        // Rounding the other way is rare.
        assert!(distances.iter().sum::<u64>() * 20 <= distances.len() as u64, "{address}: {distances:?}");
    }
}

#[test]
fn all_frames_are_named_one_by_one() {
    for (name, count) in [("loop.dcm", 5), ("enhanced.dcm", 2), ("short.nii.gz", 6), ("ct.dcm", 1), ("deep.png", 1)] {
        let path = fixture("parity/medical_images").join(format!("{name}#*"));
        let paths = single_images(&path).expect(name);
        assert_eq!(paths.len(), count, "{name}");
        assert!(paths[count - 1].to_str().expect("UTF-8").ends_with(&format!("{name}#{count}")));
        paths.iter().for_each(|path| drop(decode_image(path).expect(name)));
        let beyond = fixture("parity/medical_images").join(format!("{name}#{}", count + 1));
        assert!(decode_image(&beyond).expect_err(name).to_string().contains(&format!("frame {}", count + 1)));
    }
}

/// What a memory keeps of a file are the pixels that were seen, and nothing that the file says of the patient.
#[test]
fn what_is_kept_of_a_file_shows_the_same_and_names_nobody() {
    let expected = expected();
    let patient = expected["patient"].as_str().expect("a name").split('^').next().expect("a name").as_bytes();
    let names = |bytes: &[u8]| bytes.windows(patient.len()).any(|window| window == patient);
    let file = std::fs::read(fixture("parity/medical_images/ct.dcm")).expect("the fixture");
    assert!(names(&file), "the fixture names its patient");
    for address in expected["images"].as_object().expect("images by address").keys() {
        let path = fixture("parity/medical_images").join(address);
        let kept = kept_image(&path).expect(address);
        assert!(!names(&kept), "{address}");
        let shown = decode_image_bytes(&kept, Path::new("kept")).expect(address);
        assert!(shown == decode_image(&path).expect(address), "{address}: other pixels");
    }
    // Together as one by one, slices of one volume behind one another among them.
    let folder = fixture("parity/medical_images");
    let mut paths = single_images(&folder.join("short.nii.gz#*")).expect("slices");
    paths.extend(["short.nii.gz#7", "ct.dcm", "float.nii", "short.nii.gz", "deep.png"].map(|name| folder.join(name)));
    let paths: Vec<&Path> = paths.iter().map(|path| path.as_path()).collect();
    let kept = kept_images(&paths);
    assert_eq!(kept.len(), paths.len());
    for (path, kept) in paths.iter().zip(kept) {
        match (kept, kept_image(path)) {
            (Ok(kept), Ok(one)) => assert!(kept == one, "{}", path.display()),
            (Err(kept), Err(one)) => assert_eq!(kept.to_string(), one.to_string()),
            (kept, one) => panic!("{}: {} and {}", path.display(), kept.is_ok(), one.is_ok()),
        }
    }
}

/// Of a damaged file the error names the file; nothing that it says of the patient is in it.
#[test]
fn damaged_files_are_errors_that_give_nothing_away() {
    let patient = expected()["patient"].as_str().expect("a name").split('^').next().expect("a name").to_owned();
    for name in [
        "ct.dcm",
        "signed12.dcm",
        "loop-rle.dcm",
        "enhanced.dcm",
        "rgb.dcm",
        "palette-segments.dcm",
        "voi.dcm",
        "short.nii.gz",
        "float.nii",
    ] {
        let bytes = std::fs::read(fixture("parity/medical_images").join(name)).expect("the fixture");
        let check = |bytes: &[u8], must_fail: bool, what: &str| {
            let outcome = decode_image_bytes(bytes, Path::new("here"));
            assert!(!must_fail || outcome.is_err(), "{name}, {what}");
            if let Err(error) = outcome {
                let words = error.to_string();
                assert!(words.starts_with("image `here` cannot be decoded: ") && words.len() < 300, "{words}");
                assert!(!words.contains(&patient) && !words.contains("1964"), "{words}");
            }
        };
        for cut in [bytes.len() - 5, bytes.len() / 2, 400, 140, 20].map(|cut| cut.min(bytes.len())) {
            check(&bytes[..cut], cut < bytes.len(), &format!("cut to {cut}"));
        }
        for at in 0..bytes.len() {
            for change in [0x01, 0x80, 0xFF] {
                let mut damaged = bytes.clone();
                damaged[at] ^= change;
                check(&damaged, false, &format!("byte {at}"));
            }
        }
    }
}

/// A few hundred bytes may not claim gigabytes.
#[test]
fn claims_beyond_the_file_are_refused_before_memory_is_taken() {
    let reason =
        |bytes: &[u8]| decode_image_bytes(bytes, Path::new("here")).expect_err("a claim that is not kept").to_string();
    let file = |name: &str| std::fs::read(fixture("parity/medical_images").join(name)).expect("the fixture");
    let place = |bytes: &[u8], pattern: &[u8]| {
        bytes.windows(pattern.len()).position(|window| window == pattern).expect("the element")
    };
    // The length of the pixels.
    let mut bytes = file("ct.dcm");
    let at = place(&bytes, b"\xE0\x7F\x10\x00OW") + 8;
    bytes[at..at + 4].copy_from_slice(&0xFFFF_FFF0u32.to_le_bytes());
    assert!(reason(&bytes).contains("claims 4294967280 bytes"), "{}", reason(&bytes));
    // A nested element of a file without types.
    let mut bytes = file("signed12.dcm");
    let at = place(&bytes, b"\x08\x00\x55\x11") + 4;
    bytes[at..at + 4].copy_from_slice(&0x7FFF_FFF0u32.to_le_bytes());
    assert!(reason(&bytes).contains("claims 2147483632 bytes"), "{}", reason(&bytes));
    // Rows and columns.
    let mut bytes = file("ct.dcm");
    for tag in [b"\x28\x00\x10\x00US", b"\x28\x00\x11\x00US"] {
        let at = place(&bytes, tag) + 8;
        bytes[at..at + 2].copy_from_slice(&65_535u16.to_le_bytes());
    }
    assert!(reason(&bytes).contains("65535x65535"));
    // The entries of a table: none stands for 65,536.
    let mut bytes = file("palette.dcm");
    let at = place(&bytes, b"\x28\x00\x02\x11US") + 8;
    bytes[at..at + 2].copy_from_slice(&[0, 0]);
    assert!(reason(&bytes).contains("its green palette has 200 words"), "{}", reason(&bytes));
    // The axes of a volume.
    let mut bytes = file("float.nii");
    for at in [24, 32] {
        bytes[at..at + 8].copy_from_slice(&4_000_000_000u64.to_le_bytes());
    }
    assert!(reason(&bytes).contains("4000000000x4000000000"));
}
