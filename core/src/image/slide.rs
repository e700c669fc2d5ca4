//! Regions of images that do not fit into memory: slides of microscopes, as tiled TIFF.
//!
//! A TIFF is stored in chunks, tiles or strips, each compressed by itself. A region decodes those that it touches; the last
//! ones used are kept, within a bound, since regions are mostly asked for side by side.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::{Path, PathBuf};

use ::image::{Rgb, RgbImage, imageops};
use tiff::ColorType;
use tiff::decoder::{ChunkType, Decoder, DecodingResult, Limits};
use tiff::tags::Tag;

use super::decode::decode_image;
use super::guard::caught;
use crate::error::{Error, Result};

/// Most pixels along one side; more is a damaged header.
const MOST_SIDE: u32 = 1 << 24;
/// Most bytes of one chunk. A file in one strip has to be saved in tiles.
const MOST_CHUNK_BYTES: usize = 256 << 20;
/// Bytes of decoded chunks that are kept.
const KEPT_BYTES: usize = 192 << 20;

/// An image of any size.
pub struct Slide {
    path: PathBuf,
    size: (u32, u32),
    pixels: Pixels,
}

enum Pixels {
    /// All of them.
    Whole(RgbImage),
    /// Those of the chunks that were used last.
    Chunks(Box<Chunks>),
}

struct Chunks {
    /// Width and height of the image.
    whole: (u32, u32),
    decoder: Decoder<BufReader<File>>,
    colour: ColorType,
    /// Width and height of a chunk.
    size: (u32, u32),
    /// Chunks in a row.
    across: u32,
    kept: HashMap<u32, (u64, RgbImage)>,
    kept_bytes: usize,
    uses: u64,
}

impl Slide {
    /// Opens an image: a TIFF of grey or colour samples of 8 or 16 bits in chunks, anything else as a whole within the limits
    /// of [`decode_image`].
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::BadImage`] for a file that is damaged, empty or too large to be read as a whole.
    pub fn open(path: &Path) -> Result<Self> {
        let mut start = [0; 4];
        let mut file = File::open(path).map_err(Error::io("read", path))?;
        let is_tiff = file.read_exact(&mut start).is_ok()
            && matches!(&start, b"II\x2a\0" | b"MM\0\x2a" | b"II\x2b\0" | b"MM\0\x2b");
        if is_tiff {
            let file = File::open(path).map_err(Error::io("read", path))?;
            if let Some(chunks) = caught(path, false, || Chunks::open(file))? {
                return Ok(Self { path: path.into(), size: chunks.whole, pixels: Pixels::Chunks(Box::new(chunks)) });
            }
        }
        let whole = decode_image(path)?;
        Ok(Self { path: path.into(), size: whole.dimensions(), pixels: Pixels::Whole(whole) })
    }

    /// Width and height in pixels.
    pub fn size(&self) -> (u32, u32) {
        self.size
    }

    /// The pixels `[x, x + width)` by `[y, y + height)`.
    ///
    /// # Errors
    /// [`Error::BadImage`] for a chunk that cannot be decoded; [`Error::Invalid`] for a region that is empty or reaches beyond
    /// the image.
    pub fn region(&mut self, [x, y, width, height]: [u32; 4]) -> Result<RgbImage> {
        let inside =
            |from: u32, length: u32, all: u32| length > 0 && from.checked_add(length).is_some_and(|end| end <= all);
        if !inside(x, width, self.size.0) || !inside(y, height, self.size.1) {
            let what = format!("region of `{}`", self.path.display());
            let (across, down) = self.size;
            let reason = format!("{width}x{height} at {x},{y} is not inside its {across}x{down} pixels");
            return Err(Error::invalid(what, reason));
        }
        match &mut self.pixels {
            Pixels::Whole(whole) => Ok(imageops::crop_imm(whole, x, y, width, height).to_image()),
            Pixels::Chunks(chunks) => caught(&self.path, false, || chunks.region([x, y, width, height])),
        }
    }
}

impl Chunks {
    /// `None` for a kind of TIFF that is not read in chunks.
    fn open(file: File) -> Result<Option<Self>, String> {
        let mut limits = Limits::default();
        limits.decoding_buffer_size = MOST_CHUNK_BYTES;
        limits.intermediate_buffer_size = MOST_CHUNK_BYTES;
        limits.ifd_value_size = 64 << 20;
        let words = |error: tiff::TiffError| error.to_string();
        let mut decoder = Decoder::new(BufReader::new(file)).map_err(words)?.with_limits(limits);
        let (width, height) = decoder.dimensions().map_err(words)?;
        if width == 0 || height == 0 || width > MOST_SIDE || height > MOST_SIDE {
            return Err(format!("it claims {width}x{height} pixels"));
        }
        let colour = decoder.colortype().map_err(words)?;
        // Samples of a pixel lie in different chunks.
        let planar = decoder.find_tag_unsigned::<u16>(Tag::PlanarConfiguration).map_err(words)? == Some(2);
        if samples(colour).is_none() || planar && samples(colour) != Some(1) {
            return Ok(None);
        }
        let size = decoder.chunk_dimensions();
        let across = match decoder.get_chunk_type() {
            ChunkType::Tile => width.div_ceil(size.0.max(1)),
            ChunkType::Strip => 1,
        };
        let kept = HashMap::new();
        Ok(Some(Self { whole: (width, height), decoder, colour, size, across, kept, kept_bytes: 0, uses: 0 }))
    }

    fn region(&mut self, [x, y, width, height]: [u32; 4]) -> Result<RgbImage, String> {
        let (wide, high) = self.size;
        let mut region = RgbImage::new(width, height);
        for row in y / high..=(y + height - 1) / high {
            for column in x / wide..=(x + width - 1) / wide {
                let chunk = self.chunk(row * self.across + column)?;
                let (left, top) = (i64::from(column * wide), i64::from(row * high));
                imageops::replace(&mut region, chunk, left - i64::from(x), top - i64::from(y));
            }
        }
        Ok(region)
    }

    fn chunk(&mut self, index: u32) -> Result<&RgbImage, String> {
        self.uses += 1;
        if !self.kept.contains_key(&index) {
            let (width, height) = self.decoder.chunk_data_dimensions(index);
            let data = self.decoder.read_chunk(index).map_err(|error| error.to_string())?;
            let chunk = rgb(data, self.colour, width, height)?;
            self.kept_bytes += chunk.as_raw().len();
            while self.kept_bytes > KEPT_BYTES {
                let Some(oldest) = self.kept.iter().min_by_key(|(_, (use_, _))| *use_).map(|(index, _)| *index) else {
                    break;
                };
                self.kept_bytes -= self.kept.remove(&oldest).map_or(0, |(_, chunk)| chunk.as_raw().len());
            }
            self.kept.insert(index, (self.uses, chunk));
        }
        let uses = self.uses;
        let (last, chunk) = self.kept.get_mut(&index).ok_or("a chunk was lost")?;
        *last = uses;
        Ok(chunk)
    }
}

/// Samples of a pixel, for the kinds of pixels that are read.
fn samples(colour: ColorType) -> Option<usize> {
    match colour {
        ColorType::Gray(8 | 16) => Some(1),
        ColorType::GrayA(8 | 16) => Some(2),
        ColorType::RGB(8 | 16) | ColorType::YCbCr(8) => Some(3),
        ColorType::RGBA(8 | 16) => Some(4),
        _ => None,
    }
}

/// The pixels of a chunk. Alpha is dropped; 16 bits are scaled to 8.
fn rgb(data: DecodingResult, colour: ColorType, width: u32, height: u32) -> Result<RgbImage, String> {
    let bytes = match data {
        DecodingResult::U8(bytes) => bytes,
        DecodingResult::U16(values) => values.into_iter().map(|value| (value >> 8) as u8).collect(),
        _ => return Err("its samples have neither 8 nor 16 bits".into()),
    };
    let samples = samples(colour).ok_or("its samples are neither grey nor colours")?;
    if bytes.len() != samples * width as usize * height as usize {
        return Err(format!("a chunk of {width}x{height} pixels has {} samples", bytes.len()));
    }
    let pixel = |sample: &[u8]| match colour {
        ColorType::YCbCr(_) => of_luma(sample),
        _ if samples < 3 => [sample[0]; 3],
        _ => [sample[0], sample[1], sample[2]],
    };
    let mut pixels = bytes.chunks_exact(samples).map(pixel);
    Ok(RgbImage::from_fn(width, height, |_, _| Rgb(pixels.next().unwrap_or_default())))
}

/// JPEG's luma and chroma (ITU-R BT.601, full range) to colours.
fn of_luma(sample: &[u8]) -> [u8; 3] {
    let [luma, blue, red] = [sample[0], sample[1], sample[2]].map(f32::from);
    let (blue, red) = (blue - 128.0, red - 128.0);
    [luma + 1.402 * red, luma - 0.344_136 * blue - 0.714_136 * red, luma + 1.772 * blue]
        .map(|value| value.round().clamp(0.0, 255.0) as u8)
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use ::image::{GenericImageView as _, Rgb, RgbImage};
    use tiff::encoder::{TiffEncoder, colortype};

    use super::Slide;

    fn picture(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| Rgb([(x * 7 + y) as u8, (x ^ y) as u8, (y * 5) as u8]))
    }

    /// Strips of a few rows, which is what the encoder writes.
    fn written(folder: &Path, picture: &RgbImage) -> PathBuf {
        let path = folder.join("slide.tif");
        let file = std::fs::File::create(&path).expect("a writable folder");
        let mut encoder = TiffEncoder::new(file).expect("a header");
        let mut image = encoder.new_image::<colortype::RGB8>(picture.width(), picture.height()).expect("an image");
        image.rows_per_strip(5).expect("strips");
        image.write_data(picture.as_raw()).expect("written");
        path
    }

    #[test]
    fn a_region_of_chunks_is_that_of_the_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let picture = picture(37, 23);
        let mut slide = Slide::open(&written(folder.path(), &picture)).expect("a TIFF");
        assert_eq!(slide.size(), (37, 23));
        for [x, y, width, height] in [[0, 0, 37, 23], [3, 4, 9, 2], [30, 20, 7, 3], [36, 22, 1, 1], [5, 9, 11, 12]] {
            let found = slide.region([x, y, width, height]).expect("a region");
            assert_eq!(found, picture.view(x, y, width, height).to_image());
        }
        for outside in [[0, 0, 38, 1], [37, 0, 1, 1], [0, 0, 0, 5], [1, 1, u32::MAX, 1]] {
            assert!(slide.region(outside).expect_err("outside").to_string().contains("37x23"));
        }
    }

    #[test]
    fn other_images_are_read_as_a_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("slide.png");
        picture(20, 10).save(&path).expect("written");
        let found = Slide::open(&path).expect("a PNG").region([2, 3, 4, 5]).expect("a region");
        assert_eq!(found, picture(20, 10).view(2, 3, 4, 5).to_image());
    }

    #[test]
    fn a_damaged_slide_is_named_and_not_filled_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = written(folder.path(), &picture(64, 64));
        let whole = std::fs::read(&path).expect("the file");
        let mut faults = 0;
        for length in (0..whole.len()).step_by(97) {
            std::fs::write(&path, &whole[..length]).expect("written");
            let found = Slide::open(&path).and_then(|mut slide| slide.region([0, 0, 64, 64]));
            faults += usize::from(found.is_err());
            if let Err(error) = found {
                assert!(error.to_string().contains("slide.tif"), "{error}");
            }
        }
        assert!(faults >= whole.len() / 97, "{faults} of {}", whole.len() / 97 + 1);
    }
}
