//! Resizing as Pillow does it: antialiased convolution, horizontal pass first, 8-bit values between the passes.

use std::iter::successors;

use ::image::RgbImage;
use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::F32x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The filter of a resize, by Pillow's names. When an image shrinks, the filter widens with it (antialiasing).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resample {
    /// The nearest pixel, without antialiasing.
    Nearest,
    /// The mean over a box.
    Box,
    /// Linear interpolation.
    Bilinear,
    /// Hamming window, support 1.
    Hamming,
    /// Cubic interpolation with `a = -0.5` (Catmull-Rom), the choice of CLIP.
    #[default]
    Bicubic,
    /// Lanczos window, support 3.
    Lanczos,
}

impl Resample {
    /// The filter of a Pillow code: 0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic, 4 box, 5 Hamming.
    pub fn from_pil(code: u64) -> Option<Self> {
        Some(match code {
            0 => Self::Nearest,
            1 => Self::Lanczos,
            2 => Self::Bilinear,
            3 => Self::Bicubic,
            4 => Self::Box,
            5 => Self::Hamming,
            _ => return None,
        })
    }

    /// Half the width of the filter, in pixels of the smaller image.
    fn support(self) -> f64 {
        match self {
            Self::Nearest | Self::Box => 0.5,
            Self::Bilinear | Self::Hamming => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    /// The convolution, except for the nearest pixel.
    fn filter(self) -> Option<FilterType> {
        Some(match self {
            Self::Nearest => return None,
            Self::Box => FilterType::Box,
            Self::Bilinear => FilterType::Bilinear,
            Self::Hamming => FilterType::Hamming,
            Self::Bicubic => FilterType::CatmullRom,
            Self::Lanczos => FilterType::Lanczos3,
        })
    }
}

/// A rectangle of a resized image, in its pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) left: u32,
    pub(super) top: u32,
    pub(super) width: u32,
    pub(super) height: u32,
}

/// Resizes to exactly `width` x `height` pixels.
///
/// # Errors
/// [`Error::Invalid`] when either image has a side of zero pixels.
pub fn resize(image: &RgbImage, width: u32, height: u32, resample: Resample) -> Result<RgbImage> {
    resize_region(image, (width, height), Region { left: 0, top: 0, width, height }, resample)
}

/// The part `region` of the image that [`resize`] to `size` (width, height) would give, without computing the rest:
/// a strip of 1 x 20000 pixels would otherwise grow to gigabytes before its crop.
///
/// The two passes are run one after the other, each in single precision with its result rounded to 8 bits. The
/// library's own 8-bit path runs the vertical pass first, which shows at hard edges, where the overshoot of the filter
/// is clipped between the passes, and its coarser weights alone make up to two levels of difference to Pillow. (Pillow
/// itself goes vertical first since version 13 where height shrinks much more than width, never when the aspect ratio
/// is kept.)
pub(super) fn resize_region(
    image: &RgbImage,
    size: (u32, u32),
    region: Region,
    resample: Resample,
) -> Result<RgbImage> {
    let (width, height) = image.dimensions();
    if [width, height, region.width, region.height].contains(&0) {
        let sides = format!("{width}x{height} to {}x{}", region.width, region.height);
        return Err(Error::invalid("image size", format!("no side may be 0 pixels, asked to resize {sides}")));
    }
    let Some(filter) = resample.filter() else { return Ok(nearest(image, size, region)) };
    let (left, span_x) = source_span(width, size.0, region.left, region.width);
    let (top, span_y) = source_span(height, size.1, region.top, region.height);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter)).use_alpha(false);
    let mut resizer = Resizer::new();
    // Rows beyond the reach of the filter would be computed for nothing.
    let reach = resample.support() * (f64::from(height) / f64::from(size.1)).max(1.0) + 1.0;
    let first = (top - reach).max(0.0) as u32;
    let last = ((top + span_y + reach).ceil() as u32).min(height);
    let mut wide: Vec<F32x3> = Vec::with_capacity(region.width as usize * (last - first) as usize);
    // Strips stay in the cache, and a photo never exists in single precision as a whole.
    for start in (first..last).step_by(STRIP_ROWS as usize) {
        let rows = STRIP_ROWS.min(last - start);
        let samples = &image.as_raw()[3 * (start as usize) * width as usize..][..3 * rows as usize * width as usize];
        let floats: Vec<F32x3> = samples.chunks_exact(3).map(to_float).collect();
        let across = options.crop(left, 0.0, span_x, f64::from(rows));
        wide.extend(pass(&mut resizer, &floats, (width, rows), (region.width, rows), &across)?.map(rounded));
    }
    let down = options.crop(0.0, top - f64::from(first), f64::from(region.width), span_y);
    let source = (region.width, last - first);
    let pixels = pass(&mut resizer, &wide, source, (region.width, region.height), &down)?;
    let samples = pixels.flat_map(|pixel| rounded(pixel).0.map(|sample| sample as u8)).collect();
    RgbImage::from_raw(region.width, region.height, samples).ok_or_else(|| broken("buffer length"))
}

/// Rows of one horizontal pass.
const STRIP_ROWS: u32 = 32;

/// Takes the pixel under the middle of each new one.
fn nearest(image: &RgbImage, size: (u32, u32), region: Region) -> RgbImage {
    // Summed up step by step, as the reference does: a middle on the border of two pixels is decided by rounding.
    let places = |source: u32, target: u32, start: u32, length: u32| -> Vec<u32> {
        let scale = f64::from(source) / f64::from(target);
        let middles = successors(Some(scale * 0.5), |middle| Some(middle + scale));
        middles.skip(start as usize).take(length as usize).map(|middle| (middle as u32).min(source - 1)).collect()
    };
    let columns = places(image.width(), size.0, region.left, region.width);
    let rows = places(image.height(), size.1, region.top, region.height);
    RgbImage::from_fn(region.width, region.height, |x, y| *image.get_pixel(columns[x as usize], rows[y as usize]))
}

/// Where `length` pixels from `start` of a side resized from `source` to `target` pixels lie in the source: start and
/// length.
fn source_span(source: u32, target: u32, start: u32, length: u32) -> (f64, f64) {
    let scale = f64::from(source) / f64::from(target);
    let begin = f64::from(start) * scale;
    (begin, (f64::from(length) * scale).min(f64::from(source) - begin))
}

fn pass(
    resizer: &mut Resizer,
    pixels: &[F32x3],
    from: (u32, u32),
    to: (u32, u32),
    options: &ResizeOptions,
) -> Result<impl Iterator<Item = F32x3>> {
    let source = TypedImageRef::new(from.0, from.1, pixels).map_err(broken)?;
    let mut buffer = vec![F32x3::new([0.0; 3]); to.0 as usize * to.1 as usize];
    let mut target = TypedImage::from_pixels_slice(to.0, to.1, &mut buffer).map_err(broken)?;
    resizer.resize_typed(&source, &mut target, options).map_err(broken)?;
    Ok(buffer.into_iter())
}

fn to_float(samples: &[u8]) -> F32x3 {
    F32x3::new([f32::from(samples[0]), f32::from(samples[1]), f32::from(samples[2])])
}

/// The nearest grey level, as if stored in 8 bits.
fn rounded(pixel: F32x3) -> F32x3 {
    F32x3::new(pixel.0.map(|sample| (sample + 0.5).clamp(0.0, 255.0).floor()))
}

fn broken(reason: impl ToString) -> Error {
    Error::invalid("image resize", reason.to_string())
}

#[cfg(test)]
mod tests {
    use ::image::{Rgb, RgbImage, imageops};

    use super::{Region, Resample, resize, resize_region};

    #[test]
    fn a_box_filter_averages_and_a_constant_stays() {
        let stripes = RgbImage::from_fn(4, 1, |x, _| Rgb([10 * x as u8, 0, 255]));
        let halved = resize(&stripes, 2, 1, Resample::Box).unwrap();
        assert_eq!(halved.as_raw(), &[5, 0, 255, 25, 0, 255]);
        let flat = resize(&RgbImage::from_pixel(7, 5, Rgb([9, 99, 199])), 13, 3, Resample::Bicubic).unwrap();
        assert!(flat.pixels().all(|pixel| pixel.0 == [9, 99, 199]));
    }

    #[test]
    fn a_region_equals_the_crop_of_the_whole() {
        let image = RgbImage::from_fn(61, 47, |x, y| Rgb([(x * 37 % 256) as u8, (y * 91 % 256) as u8, (x * y) as u8]));
        for (size, region) in [
            ((97, 80), Region { left: 13, top: 7, width: 50, height: 60 }),
            ((20, 47), Region { left: 3, top: 5, width: 9, height: 30 }),
        ] {
            for resample in [Resample::Nearest, Resample::Bilinear, Resample::Bicubic] {
                let whole = resize(&image, size.0, size.1, resample).unwrap();
                let expected = imageops::crop_imm(&whole, region.left, region.top, region.width, region.height);
                let found = resize_region(&image, size, region, resample).unwrap();
                let pairs = found.as_raw().iter().zip(expected.to_image().into_raw());
                // The weights may differ in their last bit, which shows as one grey level now and then.
                let far = pairs.map(|(a, b)| a.abs_diff(b)).max().unwrap();
                assert!(found.dimensions() == (region.width, region.height) && far <= 1, "{resample:?}: {far}");
            }
        }
    }

    #[test]
    fn an_empty_side_is_refused() {
        assert!(resize(&RgbImage::new(0, 4), 2, 2, Resample::Bicubic).is_err());
        assert!(resize(&RgbImage::new(4, 4), 2, 0, Resample::Bicubic).is_err());
    }

    #[test]
    fn pillow_codes_are_known_from_0_to_5() {
        assert_eq!(Resample::from_pil(3), Some(Resample::Bicubic));
        assert_eq!(Resample::from_pil(6), None);
    }
}
