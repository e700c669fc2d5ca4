//! From bytes to RGB pixels: the format is sniffed, memory is bounded, and no file can bring the process down.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use ::image::{ColorType, DynamicImage, ImageDecoder as _, ImageFormat, ImageReader, Limits, RgbImage};

use super::address::{Frame, ImageAddress};
pub use super::guard::panics_are_private;
use super::guard::{bad, guarded};
use super::video::{is_video_name, no_image};
use super::window::Window;
use super::{dicom, nifti};
use crate::error::{Error, Result};
use crate::file;

/// Most pixels of an image; a small file can claim to hold many more.
pub const MAX_PIXELS: u64 = 100_000_000;

/// Most frames of a file that become images of their own.
const MAX_FRAMES: u32 = 100_000;

/// Most bytes of an image file, and most bytes a decoder may allocate for it.
pub const MAX_DECODE_BYTES: u64 = 512 * 1024 * 1024;

/// Which part of a file is wanted, and how.
pub(super) struct Request {
    pub(super) frame: Frame,
    pub(super) window: Option<Window>,
    max_pixels: u64,
}

impl Request {
    /// What an address asks for.
    pub(super) fn of(address: &ImageAddress) -> Self {
        Self { frame: address.frame, window: address.window, max_pixels: MAX_PIXELS }
    }

    /// Checks the pixels that a file claims before anything is decoded.
    pub(super) fn check_size(&self, width: u64, height: u64) -> Result<(), String> {
        if width == 0 || height == 0 {
            return Err(format!("it claims {width}x{height} pixels"));
        }
        if width.checked_mul(height).is_none_or(|pixels| pixels > self.max_pixels) {
            return Err(format!("it claims {width}x{height} pixels, more than the limit of {}", self.max_pixels));
        }
        Ok(())
    }
}

/// Which of `count` frames is meant, counted from 0.
pub(super) fn pick(frame: Frame, count: u32) -> Result<u32, String> {
    match frame {
        Frame::Middle => Ok(count / 2),
        Frame::Number(number) if number <= count => Ok(number - 1),
        Frame::Number(number) => Err(format!("frame {number} is asked for, it has {count}")),
        Frame::All => Err("all its frames are asked for, where one image is needed".into()),
    }
}

/// Decodes an image file, or the frame of it that an [`ImageAddress`] names.
///
/// The format is known by the first bytes, never by the extension. The EXIF orientation is applied. As in Pillow's
/// `convert("RGB")`, alpha is dropped, grey is repeated and the first frame counts; of DICOM files and NIfTI volumes the
/// middle one. The 65,536 levels of 16 bits are scaled to 256, for grey images too (there Pillow clips at 255, which turns
/// most 16-bit images white), unless a window is asked for.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read; [`Error::BadImage`] naming it when it is empty, cut short, not an
/// image, too large, has no such frame, or makes its decoder panic. Nothing that a medical file says is in an error.
pub fn decode_image(path: &Path) -> Result<RgbImage> {
    let address = ImageAddress::of(path);
    if is_video_name(&address.file) {
        return Err(no_image(path));
    }
    let bytes = read_bounded(&address.file)?;
    guarded(&bytes, path, || decode(&bytes, &Request::of(&address)))
}

/// The paths of the single images that a path names: itself, or for `#*` one for each frame of the file.
///
/// # Errors
/// As [`decode_image`], for files whose frames have to be counted.
pub fn single_images(path: &Path) -> Result<Vec<PathBuf>> {
    let address = ImageAddress::of(path);
    if address.frame != Frame::All {
        return Ok(vec![path.to_path_buf()]);
    }
    let bytes = read_bounded(&address.file)?;
    let count = guarded(&bytes, path, || match () {
        () if dicom::is_dicom(&bytes) => dicom::frames(&bytes),
        () if nifti::is_nifti(&bytes) => nifti::frames(&bytes),
        () => Ok(1),
    })?;
    if count > MAX_FRAMES {
        return Err(bad(path, format!("it claims {count} frames, more than the limit of {MAX_FRAMES}")));
    }
    let one = |number| ImageAddress { frame: Frame::Number(number), ..address.clone() }.path();
    Ok((1..=count).map(one).collect())
}

/// The bytes of an image file of bearable size.
pub(super) fn read_bounded(path: &Path) -> Result<Vec<u8>> {
    let bytes = fs::metadata(path).map_err(Error::io("read", path))?.len();
    if bytes > MAX_DECODE_BYTES {
        return Err(bad(path, format!("the file has {bytes} bytes, at most {MAX_DECODE_BYTES} are read")));
    }
    file::read(path)
}

/// Decodes an image held in memory, by the rules of [`decode_image`]; `origin` is what an error names.
///
/// # Errors
/// [`Error::BadImage`] with `origin`.
pub fn decode_image_bytes(bytes: &[u8], origin: &Path) -> Result<RgbImage> {
    decode_image_bytes_within(bytes, origin, MAX_PIXELS, None)
}

/// As [`decode_image_bytes`], with a lower limit of pixels, which is checked before anything is decoded, and the window that grey
/// values of more than 8 bits are shown in, where one is asked for.
///
/// # Errors
/// [`Error::BadImage`] with `origin`.
pub fn decode_image_bytes_within(
    bytes: &[u8],
    origin: &Path,
    max_pixels: u64,
    window: Option<Window>,
) -> Result<RgbImage> {
    let request = Request { frame: Frame::Middle, window, max_pixels: max_pixels.min(MAX_PIXELS) };
    guarded(bytes, origin, || decode(bytes, &request))
}

/// Whether bytes are those of a volume and of nothing that would be told before it.
pub(super) fn is_volume(bytes: &[u8]) -> bool {
    !dicom::is_dicom(bytes) && ::image::guess_format(bytes).is_err() && nifti::is_nifti(bytes)
}

fn decode(bytes: &[u8], request: &Request) -> Result<RgbImage, String> {
    if dicom::is_dicom(bytes) {
        return dicom::decode(bytes, request);
    }
    if let Some(name) = other_format(bytes) {
        return Err(format!("it is {name} image, which is not read: save it as JPEG or PNG"));
    }
    let words = |error: ::image::ImageError| error.to_string();
    let Ok(format) = ::image::guess_format(bytes) else {
        if nifti::is_nifti(bytes) {
            return nifti::decode(bytes, request);
        }
        return Err(
            "its first bytes are not those of a JPEG, PNG, WebP, BMP, GIF, TIFF, PNM, DICOM or NIfTI image".into()
        );
    };
    if matches!(request.frame, Frame::Number(number) if number != 1) {
        return Err(format!("frame {} is asked for; only DICOM and NIfTI files have several", request.frame));
    }
    if format == ImageFormat::Jpeg && !jpeg_is_complete(bytes) {
        return Err("the JPEG is cut short: it has no end marker".into());
    }
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_DECODE_BYTES);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(words)?;
    let (width, height) = decoder.dimensions();
    request.check_size(u64::from(width), u64::from(height))?;
    if decoder.total_bytes() > MAX_DECODE_BYTES {
        return Err(format!("it claims {width}x{height} pixels of {:?}, too many bytes", decoder.color_type()));
    }
    // A broken EXIF block is no reason to lose the image.
    let orientation = decoder.orientation().ok();
    let mut image = DynamicImage::from_decoder(decoder).map_err(words)?;
    if let Some(orientation) = orientation {
        image.apply_orientation(orientation);
    }
    to_rgb(image, request.window)
}

/// The format, with its article, of an image as phones and browsers write them, where it is none that is read here.
fn other_format(bytes: &[u8]) -> Option<&'static str> {
    // A box of ISO media: its length, `ftyp`, and the brand.
    let brand = bytes.get(8..12).filter(|_| bytes[4..8] == *b"ftyp");
    match brand {
        Some(b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"mif1" | b"msf1") => Some("a HEIC"),
        Some(b"avif" | b"avis") => Some("an AVIF"),
        _ if bytes.starts_with(b"\xff\x0a") || bytes.starts_with(b"\0\0\0\x0cJXL ") => Some("a JPEG XL"),
        _ if bytes.starts_with(b"\0\0\0\x0cjP  ") => Some("a JPEG 2000"),
        _ => None,
    }
}

/// Drops alpha, repeats grey, shows 16 bits in the window or scales them.
pub(super) fn to_rgb(image: DynamicImage, window: Option<Window>) -> Result<RgbImage, String> {
    let (width, height) = (image.width(), image.height());
    let scale = |sample: &u16| ((u32::from(*sample) + 128) / 257) as u8;
    if let (DynamicImage::ImageLuma16(_) | DynamicImage::ImageLumaA16(_), Some(window)) = (&image, window) {
        let values: Vec<f32> = image.into_luma16().as_raw().iter().map(|level| f32::from(*level)).collect();
        let samples = window.greys(&values, |_| false).into_iter().flat_map(|level| [level; 3]).collect();
        return RgbImage::from_raw(width, height, samples).ok_or_else(|| "its decoder gave too few samples".into());
    }
    let samples: Vec<u8> = match image {
        DynamicImage::ImageRgb8(rgb) => return Ok(rgb),
        DynamicImage::ImageLuma8(grey) => grey.as_raw().iter().flat_map(|&level| [level; 3]).collect(),
        DynamicImage::ImageLumaA8(grey) => grey.as_raw().chunks_exact(2).flat_map(|pixel| [pixel[0]; 3]).collect(),
        DynamicImage::ImageRgba8(rgba) => {
            rgba.as_raw().chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect()
        }
        DynamicImage::ImageLuma16(grey) => grey.as_raw().iter().flat_map(|level| [scale(level); 3]).collect(),
        DynamicImage::ImageLumaA16(grey) => {
            grey.as_raw().chunks_exact(2).flat_map(|pixel| [scale(&pixel[0]); 3]).collect()
        }
        DynamicImage::ImageRgb16(rgb) => rgb.as_raw().iter().map(scale).collect(),
        DynamicImage::ImageRgba16(rgba) => rgba
            .as_raw()
            .chunks_exact(4)
            .flat_map(|pixel| [scale(&pixel[0]), scale(&pixel[1]), scale(&pixel[2])])
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
    fn alpha_is_dropped_grey_repeated_and_16_bits_scaled() {
        let rgba = ImageBuffer::from_pixel(1, 1, Rgba([10u8, 20, 30, 0]));
        assert_eq!(decode(&encode(rgba, ImageFormat::Png)).unwrap().as_raw(), &[10, 20, 30]);
        let grey = ImageBuffer::from_pixel(1, 1, LumaA([0x80FFu16, 9]));
        assert_eq!(decode(&encode(grey, ImageFormat::Png)).unwrap().as_raw(), &[0x80; 3]);
        let grey = ImageBuffer::from_pixel(1, 1, Luma([0xFF80u16]));
        assert_eq!(decode(&encode(grey, ImageFormat::Tiff)).unwrap().as_raw(), &[0xFF; 3]);
        // Half a level and more rounds up: 0x7FFF is 127.498 levels, 0x00FF 0.992.
        let grey = ImageBuffer::from_fn(2, 1, |x, _| Luma([[0x7FFFu16, 0x00FF][x as usize]]));
        assert_eq!(decode(&encode(grey, ImageFormat::Png)).unwrap().as_raw(), &[127, 127, 127, 1, 1, 1]);
    }

    #[test]
    fn deep_grey_is_shown_in_the_window_that_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep.png");
        let grey = ImageBuffer::from_fn(3, 1, |x, _| Luma([[0u16, 1000, 4000][x as usize]]));
        std::fs::write(&path, encode(grey, ImageFormat::Png)).unwrap();
        for (window, levels) in [("", [0, 4, 16]), ("#full", [0, 64, 255]), ("#1500:2000", [0, 64, 255])] {
            let image = decode_image(&folder.path().join(format!("deep.png{window}"))).unwrap();
            assert_eq!(image.as_raw().iter().copied().step_by(3).collect::<Vec<u8>>(), levels, "{window}");
        }
        assert!(decode_image(&folder.path().join("deep.png#2")).unwrap_err().to_string().contains("only DICOM"));
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
        for (bytes, name) in [
            (&b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"[..], "a HEIC image"),
            (b"\0\0\0\x1cftypavif\0\0\0\0", "an AVIF image"),
            (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image"),
            (b"\xff\x0a\0\0", "a JPEG XL image"),
        ] {
            assert!(reason(bytes).contains(name) && reason(bytes).contains("save it as JPEG"), "{name}");
        }
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
