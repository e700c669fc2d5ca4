//! What may be kept of an image file: the file itself, or its pixels alone.
//!
//! Files of a clinic name the patient beside the pixels, and a rehearsal memory that held them as they are would carry the name into
//! every version that is published. So of DICOM, NIfTI and TIFF files, and of a single frame or window of any, only the pixels are
//! kept, as a PNG without loss.

use std::collections::HashMap;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use ::image::{GrayImage, ImageError, ImageFormat, RgbImage};

use super::address::{Frame, ImageAddress};
use super::decode::decode_image;
use super::guard::bad;
use super::list::ImageList;
use super::volume::slice_address;
use super::{dicom, nifti};
use crate::error::Result;
use crate::file;

/// How TIFF files begin, small and big, of either byte order.
const TIFF: [&[u8]; 4] = [b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"];
/// Slices in memory at once.
const BATCH: usize = 32;

/// As [`kept_image`], of some image files in their order. A volume is unpacked once for many of its slices among them.
pub fn kept_images(paths: &[&Path]) -> Vec<Result<Vec<u8>>> {
    let files: Vec<Option<PathBuf>> = paths.iter().map(|path| Some(slice_address(path)?.file)).collect();
    let mut counts: HashMap<&Path, usize> = HashMap::new();
    for file in files.iter().flatten() {
        *counts.entry(file).or_default() += 1;
    }
    let several: Vec<bool> = files
        .iter()
        .map(|file| file.as_deref().is_some_and(|file| counts.get(file).is_some_and(|all| *all > 1)))
        .collect();
    let slices: Vec<&Path> =
        paths.iter().zip(&several).filter(|(_, several)| **several).map(|(path, _)| *path).collect();
    let mut list = ImageList::new(slices.clone());
    let decoded = slices.chunks(BATCH).flat_map(|batch| list.decode(batch.len()));
    let mut kept = decoded.map(|(path, image)| pixels_alone(path, &image?));
    let one = |(path, several): (&&Path, bool)| {
        let slice = if several { kept.next() } else { None };
        slice.unwrap_or_else(|| kept_image(path))
    };
    paths.iter().zip(several).map(one).collect()
}

/// The content of an image file as it may be kept: what [`decode_image`] makes of the path is what
/// [`decode_image_bytes`](super::decode_image_bytes) makes of the content, to the last bit. A path may name a frame and a window.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) naming the file; those of `decode_image` where pixels alone are kept.
pub fn kept_image(path: &Path) -> Result<Vec<u8>> {
    let address = ImageAddress::of(path);
    let bytes = file::read(&address.file)?;
    let whole = address.frame == Frame::Middle && address.window.is_none();
    let tells_more =
        dicom::is_dicom(&bytes) || TIFF.iter().any(|start| bytes.starts_with(start)) || nifti::is_nifti(&bytes);
    if whole && !tells_more {
        return Ok(bytes);
    }
    drop(bytes);
    pixels_alone(path, &decode_image(path)?)
}

fn pixels_alone(path: &Path, image: &RgbImage) -> Result<Vec<u8>> {
    as_png(image).map_err(|error| bad(path, error.to_string()))
}

/// Pixels as a PNG, with one sample each where all are grey.
fn as_png(image: &RgbImage) -> Result<Vec<u8>, ImageError> {
    let (width, height) = image.dimensions();
    let is_grey = image.pixels().all(|pixel| pixel.0 == [pixel.0[0]; 3]);
    let levels = || image.pixels().map(|pixel| pixel.0[0]).collect::<Vec<u8>>();
    let grey = if is_grey { GrayImage::from_raw(width, height, levels()) } else { None };
    let mut bytes = Cursor::new(Vec::new());
    match grey {
        Some(grey) => grey.write_to(&mut bytes, ImageFormat::Png)?,
        None => image.write_to(&mut bytes, ImageFormat::Png)?,
    }
    Ok(bytes.into_inner())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ::image::{GrayImage, ImageBuffer, Luma, Rgb, RgbImage};

    use super::kept_image;
    use crate::error::Error;
    use crate::image::{decode_image, decode_image_bytes};

    const PNG: &[u8] = b"\x89PNG\r\n\x1A\n";

    #[test]
    fn photos_are_kept_as_they_are_and_of_others_the_pixels() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let photo = RgbImage::from_fn(20, 12, |x, y| Rgb([(9 * x) as u8, (7 * y) as u8, 90]));
        photo.save(path("photo.jpg")).expect("written");
        photo.save(path("photo.tif")).expect("written");
        GrayImage::from_fn(20, 12, |x, y| Luma([(x * y) as u8])).save(path("grey.tiff")).expect("written");
        let deep: ImageBuffer<Luma<u16>, Vec<u16>> = ImageBuffer::from_fn(20, 12, |x, y| Luma([(100 * x + y) as u16]));
        deep.save(path("deep.png")).expect("written");

        for (name, is_file) in [
            ("photo.jpg", true),
            ("deep.png", true),
            ("photo.tif", false),
            ("grey.tiff", false),
            ("deep.png#full", false),
        ] {
            let kept = kept_image(&path(name)).expect(name);
            let file = std::fs::read(path(name.trim_end_matches("#full"))).expect("written");
            assert_eq!((kept == file, kept.starts_with(PNG)), (is_file, name != "photo.jpg"), "{name}");
            let shown = decode_image_bytes(&kept, Path::new("kept")).expect(name);
            assert!(shown == decode_image(&path(name)).expect(name), "{name}: other pixels");
        }
        let colour_type = |name: &str| kept_image(&path(name)).expect(name)[25];
        assert_eq!((colour_type("grey.tiff"), colour_type("photo.tif")), (0, 2), "grey has one sample a pixel");
        assert!(matches!(kept_image(&path("none.dcm#2")), Err(Error::Io { path, .. }) if path.ends_with("none.dcm")));
    }
}
