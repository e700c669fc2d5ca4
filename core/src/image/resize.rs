//! Resizing as Pillow does it: antialiased convolution, horizontal pass first, 8-bit values between the passes.

use ::image::RgbImage;
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
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

    fn algorithm(self) -> ResizeAlg {
        ResizeAlg::Convolution(match self {
            Self::Nearest => return ResizeAlg::Nearest,
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
/// The two passes are run one after the other, because the library's own order is vertical first: both orders clip the
/// overshoot of the filter to 8 bits in between, so another order gives other pixels at hard edges.
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
    let (left, span_x) = source_span(width, size.0, region.left, region.width);
    let (top, span_y) = source_span(height, size.1, region.top, region.height);
    let options = ResizeOptions::new().resize_alg(resample.algorithm()).use_alpha(false);
    if resample == Resample::Nearest {
        return pass(image, region.width, region.height, &options.crop(left, top, span_x, span_y));
    }
    let across = options.crop(left, 0.0, span_x, f64::from(height));
    let wide = pass(image, region.width, height, &across)?;
    pass(&wide, region.width, region.height, &options.crop(0.0, top, f64::from(region.width), span_y))
}

/// Where `length` pixels from `start` of a side resized from `source` to `target` pixels lie in the source: start and
/// length.
fn source_span(source: u32, target: u32, start: u32, length: u32) -> (f64, f64) {
    let scale = f64::from(source) / f64::from(target);
    let begin = f64::from(start) * scale;
    (begin, (f64::from(length) * scale).min(f64::from(source) - begin))
}

fn pass(image: &RgbImage, width: u32, height: u32, options: &ResizeOptions) -> Result<RgbImage> {
    let broken = |error: String| Error::invalid("image resize", error);
    let source = ImageRef::new(image.width(), image.height(), image.as_raw(), PixelType::U8x3)
        .map_err(|error| broken(error.to_string()))?;
    let mut target = Image::new(width, height, PixelType::U8x3);
    Resizer::new().resize(&source, &mut target, options).map_err(|error| broken(error.to_string()))?;
    RgbImage::from_raw(width, height, target.into_vec()).ok_or_else(|| broken("wrong buffer length".into()))
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
