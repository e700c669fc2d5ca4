//! From bytes to RGB pixels: the format is sniffed, memory is bounded, and no file can bring the process down.

use std::fs;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use ::image::{ColorType, DynamicImage, ImageDecoder as _, ImageFormat, ImageReader, Limits, RgbImage};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::file;

/// Most pixels of an image; a small file can claim to hold many more.
pub const MAX_PIXELS: u64 = 100_000_000;

/// Most bytes of an image file, and most bytes a decoder may allocate for it.
pub const MAX_DECODE_BYTES: u64 = 512 * 1024 * 1024;

/// Decodes an image file.
///
/// The format is known by the first bytes, never by the extension. The EXIF orientation is applied. As in Pillow's
/// `convert("RGB")`, alpha is dropped, grey is repeated and the first frame counts. Of 16-bit samples the high byte is
/// kept, for grey images too (there Pillow clips at 255, which turns most 16-bit images white).
///
/// # Errors
/// [`Error::Io`] when the file cannot be read; [`Error::BadImage`] naming it when it is empty, cut short, not an
/// image, too large, or makes its decoder panic.
pub fn decode_image(path: &Path) -> Result<RgbImage> {
    decode_image_bytes(&read_bounded(path)?, path)
}

/// The bytes of an image file of bearable size.
pub(super) fn read_bounded(path: &Path) -> Result<Vec<u8>> {
    let bytes = fs::metadata(path).map_err(Error::io("read", path))?.len();
    if bytes > MAX_DECODE_BYTES {
        return Err(bad(path, format!("the file has {bytes} bytes, at most {MAX_DECODE_BYTES} are read")));
    }
    file::read(path)
}

/// Decodes some image files on all cores, in their order; each by the rules of [`decode_image`].
pub fn decode_images(paths: &[&Path]) -> Vec<Result<RgbImage>> {
    paths.par_iter().map(|path| decode_image(path)).collect()
}

/// Decodes an image held in memory, by the rules of [`decode_image`]; `origin` is what an error names.
///
/// # Errors
/// [`Error::BadImage`] with `origin`.
pub fn decode_image_bytes(bytes: &[u8], origin: &Path) -> Result<RgbImage> {
    decode_image_bytes_within(bytes, origin, MAX_PIXELS)
}

/// As [`decode_image_bytes`], with a lower limit of pixels, which is checked before anything is decoded.
///
/// # Errors
/// [`Error::BadImage`] with `origin`.
pub fn decode_image_bytes_within(bytes: &[u8], origin: &Path, max_pixels: u64) -> Result<RgbImage> {
    if bytes.is_empty() {
        return Err(bad(origin, "the file is empty"));
    }
    guarded(origin, || decode(bytes, max_pixels.min(MAX_PIXELS)))
}

/// Runs a decoder that may panic.
pub(super) fn guarded<T>(origin: &Path, decode: impl FnOnce() -> Result<T, String>) -> Result<T> {
    // A decoder works on its own copy of everything, so nothing half-changed can be seen after a panic.
    match catch_unwind(AssertUnwindSafe(decode)) {
        Ok(outcome) => outcome.map_err(|reason| bad(origin, reason)),
        Err(panic) => {
            let words = panic.downcast_ref::<String>().map(String::as_str);
            let words = words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Err(bad(origin, format!("its decoder failed: {words}")))
        }
    }
}

pub(super) fn bad(path: &Path, reason: impl Into<String>) -> Error {
    Error::BadImage { path: path.to_path_buf(), reason: reason.into() }
}

fn decode(bytes: &[u8], max_pixels: u64) -> Result<RgbImage, String> {
    let words = |error: ::image::ImageError| error.to_string();
    let format = ::image::guess_format(bytes)
        .map_err(|_| "its first bytes are not those of a JPEG, PNG, WebP, BMP, GIF, TIFF or PNM image".to_owned())?;
    if format == ImageFormat::Jpeg && !jpeg_is_complete(bytes) {
        return Err("the JPEG is cut short: it has no end marker".into());
    }
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_DECODE_BYTES);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(words)?;
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(format!("it claims {width}x{height} pixels"));
    }
    if u64::from(width) * u64::from(height) > max_pixels || decoder.total_bytes() > MAX_DECODE_BYTES {
        return Err(format!("it claims {width}x{height} pixels, more than the limit of {max_pixels}"));
    }
    // A broken EXIF block is no reason to lose the image.
    let orientation = decoder.orientation().ok();
    let mut image = DynamicImage::from_decoder(decoder).map_err(words)?;
    if let Some(orientation) = orientation {
        image.apply_orientation(orientation);
    }
    to_rgb(image)
}

/// Drops alpha, repeats grey, keeps the high byte of 16 bits.
pub(super) fn to_rgb(image: DynamicImage) -> Result<RgbImage, String> {
    let (width, height) = (image.width(), image.height());
    let high = |sample: &u16| (sample >> 8) as u8;
    let samples: Vec<u8> = match image {
        DynamicImage::ImageRgb8(rgb) => return Ok(rgb),
        DynamicImage::ImageLuma8(grey) => grey.as_raw().iter().flat_map(|&level| [level; 3]).collect(),
        DynamicImage::ImageLumaA8(grey) => grey.as_raw().chunks_exact(2).flat_map(|pixel| [pixel[0]; 3]).collect(),
        DynamicImage::ImageRgba8(rgba) => {
            rgba.as_raw().chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect()
        }
        DynamicImage::ImageLuma16(grey) => grey.as_raw().iter().flat_map(|level| [high(level); 3]).collect(),
        DynamicImage::ImageLumaA16(grey) => {
            grey.as_raw().chunks_exact(2).flat_map(|pixel| [high(&pixel[0]); 3]).collect()
        }
        DynamicImage::ImageRgb16(rgb) => rgb.as_raw().iter().map(high).collect(),
        DynamicImage::ImageRgba16(rgba) => rgba
            .as_raw()
            .chunks_exact(4)
            .flat_map(|pixel| [high(&pixel[0]), high(&pixel[1]), high(&pixel[2])])
            .collect(),
        other => return Err(unsupported(other.color())),
    };
    RgbImage::from_raw(width, height, samples).ok_or_else(|| "its decoder gave too few samples".into())
}

fn unsupported(colour: ColorType) -> String {
    format!("its samples are {colour:?}; convert it to 8 or 16 bits a sample")
}

/// Whether an end marker follows the first scan. Decoders fill a missing rest with grey, which nobody would notice.
///
/// The header's segments are stepped over by their lengths, because an EXIF thumbnail has an end marker of its own.
fn jpeg_is_complete(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(&[0xFF, marker]) = bytes.get(at..at + 2) {
        match marker {
            0xFF => at += 1,
            0xDA => return bytes[at..].windows(2).any(|pair| pair == [0xFF, 0xD9]),
            0x01 | 0xD0..=0xD8 => at += 2,
            0xD9 => return false,
            _ => match bytes.get(at + 2..at + 4) {
                Some(&[high, low]) => at += 2 + usize::from(u16::from_be_bytes([high, low])).max(2),
                _ => return false,
            },
        }
    }
    // Not a chain of segments: let the decoder say what is wrong.
    at < bytes.len()
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::path::Path;

    use ::image::{DynamicImage, ImageBuffer, ImageFormat, Luma, LumaA, Rgb, RgbImage, Rgba};

    use super::{decode_image, decode_image_bytes};
    use crate::error::Error;

    fn encode(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.into().write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn decode(bytes: &[u8]) -> Result<RgbImage, Error> {
        decode_image_bytes(bytes, Path::new("here.xyz"))
    }

    fn reason(bytes: &[u8]) -> String {
        match decode(bytes) {
            Err(Error::BadImage { path, reason }) if path == Path::new("here.xyz") => reason,
            other => panic!("expected a bad image, got {other:?}"),
        }
    }

    #[test]
    fn alpha_is_dropped_grey_repeated_and_the_high_byte_kept() {
        let rgba = ImageBuffer::from_pixel(1, 1, Rgba([10u8, 20, 30, 0]));
        assert_eq!(decode(&encode(rgba, ImageFormat::Png)).unwrap().as_raw(), &[10, 20, 30]);
        let grey = ImageBuffer::from_pixel(1, 1, LumaA([0x80FFu16, 9]));
        assert_eq!(decode(&encode(grey, ImageFormat::Png)).unwrap().as_raw(), &[0x80; 3]);
        let grey = ImageBuffer::from_pixel(1, 1, Luma([0xFF80u16]));
        assert_eq!(decode(&encode(grey, ImageFormat::Tiff)).unwrap().as_raw(), &[0xFF; 3]);
    }

    #[test]
    fn the_exif_orientation_is_applied() {
        let jpeg = encode(RgbImage::from_fn(24, 8, |x, _| Rgb([if x < 12 { 0 } else { 255 }; 3])), ImageFormat::Jpeg);
        let tiff = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
        let mut turned = jpeg[..2].to_vec();
        turned.extend([0xFF, 0xE1]);
        turned.extend((tiff.len() as u16 + 2).to_be_bytes());
        turned.extend(tiff);
        turned.extend(&jpeg[2..]);
        let image = decode(&turned).unwrap();
        assert_eq!(image.dimensions(), (8, 24));
        assert!(image.get_pixel(4, 1).0[0] < 20 && image.get_pixel(4, 22).0[0] > 235);
    }

    #[test]
    fn what_is_no_whole_image_is_an_error_that_names_it() {
        assert!(reason(b"").contains("empty"));
        assert!(reason(b"plain text").contains("first bytes"));
        let photo = RgbImage::from_fn(64, 64, |x, y| Rgb([(x * y) as u8, x as u8, y as u8]));
        for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP, ImageFormat::Gif, ImageFormat::Tiff] {
            let bytes = encode(photo.clone(), format);
            assert_eq!(decode(&bytes).unwrap().dimensions(), (64, 64), "{format:?}");
            for cut in [bytes.len() / 2, bytes.len() / 4, 16] {
                assert!(decode(&bytes[..cut]).is_err(), "{format:?} cut to {cut} bytes");
            }
        }
    }

    #[test]
    fn damaged_bytes_never_panic() {
        let photo = RgbImage::from_fn(40, 30, |x, y| Rgb([(x * y) as u8, x as u8, y as u8]));
        for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP, ImageFormat::Gif, ImageFormat::Bmp] {
            let bytes = encode(photo.clone(), format);
            for at in (0..bytes.len()).step_by(7) {
                let mut damaged = bytes.clone();
                damaged[at] ^= 0x5A;
                let _ = decode(&damaged);
            }
        }
    }

    #[test]
    fn a_decompression_bomb_is_refused_before_it_is_unpacked() {
        assert!(reason(b"P6 60000 60000 255\n123").contains("60000x60000"));
    }

    #[test]
    fn a_missing_file_is_not_a_bad_image() {
        assert!(matches!(decode_image(Path::new("no/such/file.png")), Err(Error::Io { .. })));
    }
}
