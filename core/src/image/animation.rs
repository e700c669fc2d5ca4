//! Frames of an animation: a GIF, or a video file.

use std::io::Cursor;
use std::path::Path;

use ::image::codecs::gif::GifDecoder;
use ::image::{AnimationDecoder as _, DynamicImage, ImageDecoder as _, Limits, RgbImage};

use super::decode::{MAX_DECODE_BYTES, MAX_PIXELS, read_bounded, to_rgb};
use super::guard::{bad, guarded};
use super::video::{decode_video, is_video_name, video_frames};
use crate::error::Result;

/// Most pixels that are composed on the way to the last frame that is wanted.
const MAX_COMPOSED: u64 = 20_000_000_000;

/// How many frames a GIF or a video has: its blocks are stepped over by their lengths, nothing is unpacked.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) or [`Error::BadImage`](crate::Error::BadImage) for a file that is no whole GIF, or by its
/// name a video and no whole one, or not to be decoded without the cargo feature `video`.
pub fn animation_frames(path: &Path) -> Result<usize> {
    if is_video_name(path) {
        return video_frames(path);
    }
    match count(&read_bounded(path)?) {
        Some(frames) if frames > 0 => Ok(frames),
        Some(_) => Err(bad(path, "the GIF has no frame")),
        None => Err(bad(path, "it is no GIF, or cut short")),
    }
}

/// The frames `wanted` of a GIF or a video, in that order, whole: what a viewer shows at that time. A wanted frame is decoded
/// once, however often it is asked for. Alpha is dropped, as for images.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) or [`Error::BadImage`](crate::Error::BadImage).
pub fn decode_frames(path: &Path, wanted: &[usize]) -> Result<Vec<RgbImage>> {
    if is_video_name(path) {
        return decode_video(path, wanted);
    }
    let bytes = read_bounded(path)?;
    guarded(&bytes, path, || decode(&bytes, wanted))
}

fn decode(bytes: &[u8], wanted: &[usize]) -> Result<Vec<RgbImage>, String> {
    let words = |error: ::image::ImageError| error.to_string();
    let mut decoder = GifDecoder::new(Cursor::new(bytes)).map_err(words)?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_DECODE_BYTES);
    decoder.set_limits(limits).map_err(words)?;
    let (width, height) = decoder.dimensions();
    let (pixels, last) = (u64::from(width) * u64::from(height), wanted.iter().copied().max().unwrap_or(0));
    let distinct = wanted.iter().collect::<std::collections::BTreeSet<_>>().len() as u64;
    if pixels == 0 || pixels > MAX_PIXELS || 3 * pixels * distinct > MAX_DECODE_BYTES {
        return Err(format!("it claims {width}x{height} pixels, too many for {distinct} frames"));
    }
    if pixels.saturating_mul(last as u64 + 1) > MAX_COMPOSED {
        return Err(format!("frame {last} of {width}x{height} pixels is too far in; cut the animation into parts"));
    }
    let mut found = vec![None; wanted.len()];
    for (index, frame) in decoder.into_frames().take(last + 1).enumerate() {
        let frame = frame.map_err(words)?;
        if wanted.contains(&index) {
            let image = to_rgb(DynamicImage::ImageRgba8(frame.into_buffer()), None)?;
            let places = wanted.iter().zip(&mut found).filter(|(wanted, _)| **wanted == index);
            places.for_each(|(_, place)| *place = Some(image.clone()));
        }
    }
    let missing = || format!("it ends before frame {last}");
    found.into_iter().map(|image| image.ok_or_else(missing)).collect()
}

/// Image descriptors of a GIF up to its trailer; `None` when the blocks do not follow each other.
fn count(bytes: &[u8]) -> Option<usize> {
    if !(bytes.starts_with(b"GIF87a") || bytes.starts_with(b"GIF89a")) {
        return None;
    }
    let table = |flags: u8| if flags & 0x80 == 0 { 0 } else { 3usize << ((flags & 7) + 1) };
    let sub_blocks = |mut at: usize| {
        loop {
            let size = usize::from(*bytes.get(at)?);
            at += 1 + size;
            if size == 0 {
                return Some(at);
            }
        }
    };
    let mut at = 13 + table(*bytes.get(10)?);
    let mut frames = 0;
    loop {
        at = match *bytes.get(at)? {
            0x21 => sub_blocks(at + 2)?,
            0x2C => {
                frames += 1;
                // The descriptor, its colour table, the code size, the data.
                sub_blocks(at + 10 + table(*bytes.get(at + 9)?) + 1)?
            }
            0x3B => return Some(frames),
            _ => return None,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use ::image::codecs::gif::GifEncoder;
    use ::image::{Frame, Rgba, RgbaImage};

    use super::{animation_frames, decode_frames};

    /// A GIF whose frame `t` is grey of level `40 t`.
    fn gif(folder: &tempfile::TempDir, frames: u8) -> PathBuf {
        let mut bytes = Vec::new();
        {
            let mut encoder = GifEncoder::new(&mut bytes);
            for level in 0..frames {
                let image = RgbaImage::from_pixel(5, 4, Rgba([40 * level, 40 * level, 40 * level, 255]));
                encoder.encode_frame(Frame::new(image)).expect("encoded");
            }
        }
        let path = folder.path().join("clip.gif");
        std::fs::write(&path, bytes).expect("written");
        path
    }

    #[test]
    fn frames_are_counted_without_decoding_and_found_by_number() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = gif(&folder, 5);
        assert_eq!(animation_frames(&path).expect("counted"), 5);
        let found = decode_frames(&path, &[3, 0, 3]).expect("decoded");
        let levels: Vec<u8> = found.iter().map(|image| image.get_pixel(2, 2).0[1]).collect();
        assert_eq!(levels, [120, 0, 120]);
        assert!(decode_frames(&path, &[5]).expect_err("no such frame").to_string().contains("ends before frame 5"));
    }

    #[test]
    fn damaged_files_are_errors_and_never_panic() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = gif(&folder, 3);
        let whole = std::fs::read(&path).expect("read");
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).expect("written");
            assert!(animation_frames(&path).is_err(), "cut to {cut} bytes");
        }
        for at in (0..whole.len()).step_by(3) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x5A;
            std::fs::write(&path, damaged).expect("written");
            let _ = animation_frames(&path);
            let _ = decode_frames(&path, &[0, 2]);
        }
    }
}
