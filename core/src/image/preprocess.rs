//! From an image of any size to normalised pixels of one size, as CLIP's reference preprocessing does it.

use ::image::{RgbImage, imageops};
use serde::{Deserialize, Serialize};

use super::resize::{Region, Resample, resize_region};
use crate::error::{Error, Result};

/// Mean of the pixels in \[0, 1\] per channel, red first, on which OpenAI's CLIP was trained.
pub const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];

/// Standard deviation that goes with [`CLIP_MEAN`].
pub const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// Mean and standard deviation of the ViT and SigLIP families: pixels go to \[-1, 1\].
pub const HALF_MEAN_STD: [f32; 3] = [0.5; 3];

/// Height and width in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Height in pixels.
    pub height: u32,
    /// Width in pixels.
    pub width: u32,
}

impl Size {
    /// A square.
    pub fn square(side: u32) -> Self {
        Self { height: side, width: side }
    }
}

/// How an image is brought to scale before the crop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resize {
    /// The shorter side becomes this many pixels; the longer one `side * long / short`, rounded down.
    ShortestEdge(u32),
    /// Exactly this size; the aspect ratio is not kept.
    Exact(Size),
    /// No resize.
    Keep,
}

/// Where along an image the crop lies: along its longer side after the resize, and along its width where none is longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CropPlace {
    /// In the middle.
    Centre,
    /// At its left or upper end.
    Start,
    /// At its right or lower end.
    End,
}

impl CropPlace {
    /// All, the crop of evaluation first.
    pub const ALL: [Self; 3] = [Self::Centre, Self::Start, Self::End];

    /// Where the crop begins when so many pixels are left over.
    fn offset(self, left_over: u32) -> u32 {
        match self {
            Self::Centre => left_over / 2,
            Self::Start => 0,
            Self::End => left_over,
        }
    }
}

/// The fixed preprocessing of a backbone: resize, centre crop, rescale, normalise.
///
/// Every image comes out with the size `crop`; an image that is smaller after the resize is padded with black.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocess {
    /// The resize.
    pub resize: Resize,
    /// The size of the output.
    pub crop: Size,
    /// The filter of the resize.
    pub resample: Resample,
    /// What a grey level from 0 to 255 is multiplied with, usually 1/255.
    pub rescale: f64,
    /// Subtracted after the rescaling, per channel, red first.
    pub mean: [f32; 3],
    /// Divides after the subtraction, per channel, red first.
    pub std: [f32; 3],
}

impl Preprocess {
    /// The preprocessing of OpenAI's CLIP at one input size: bicubic, shortest edge, centre crop, CLIP's statistics.
    pub fn clip(size: u32) -> Self {
        Self {
            resize: Resize::ShortestEdge(size),
            crop: Size::square(size),
            resample: Resample::Bicubic,
            rescale: 1.0 / 255.0,
            mean: CLIP_MEAN,
            std: CLIP_STD,
        }
    }

    /// Checks that the settings can work at all.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the setting.
    pub fn validate(&self) -> Result<()> {
        let longest = 16_384;
        let size = |what: &str, value: u32| match value {
            0 => Err(Error::invalid(format!("preprocessing {what}"), "must be at least 1 pixel")),
            _ if value > longest => {
                Err(Error::invalid(format!("preprocessing {what}"), format!("{value} is more than {longest} pixels")))
            }
            _ => Ok(()),
        };
        match self.resize {
            Resize::ShortestEdge(edge) => size("shortest edge", edge)?,
            Resize::Exact(exact) => size("height", exact.height).and(size("width", exact.width))?,
            Resize::Keep => {}
        }
        size("crop height", self.crop.height).and(size("crop width", self.crop.width))?;
        if !(self.rescale.is_finite() && self.rescale > 0.0) {
            return Err(Error::invalid("preprocessing rescale", format!("{} is not positive", self.rescale)));
        }
        if self.mean.iter().any(|value| !value.is_finite()) {
            return Err(Error::invalid("preprocessing mean", format!("{:?} must be finite", self.mean)));
        }
        if self.std.iter().any(|&value| !(value.is_finite() && value > 0.0)) {
            return Err(Error::invalid("preprocessing std", format!("{:?} must be positive", self.std)));
        }
        Ok(())
    }

    /// Resizes and centre-crops to the size `crop`, within one grey level of Pillow.
    ///
    /// Only the part of the resized image that survives the crop is computed.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an image without pixels.
    pub fn resize_and_crop(&self, image: &RgbImage) -> Result<RgbImage> {
        self.resize_and_crop_at(image, CropPlace::Centre)
    }

    /// The same with the crop at some place along the image; across it, the crop lies in the middle.
    ///
    /// # Errors
    /// As [`resize_and_crop`](Self::resize_and_crop).
    pub fn resize_and_crop_at(&self, image: &RgbImage, place: CropPlace) -> Result<RgbImage> {
        if image.width() == 0 || image.height() == 0 {
            return Err(Error::invalid("image size", "the image has no pixels"));
        }
        let (width, height) = self.resized(image);
        let (mut left, crop_left, part_width) = overlap(width, self.crop.width);
        let (mut top, crop_top, part_height) = overlap(height, self.crop.height);
        let (beside, below) = (width.saturating_sub(part_width), height.saturating_sub(part_height));
        if beside >= below {
            left = place.offset(beside);
        } else {
            top = place.offset(below);
        }
        let region = Region { left, top, width: part_width, height: part_height };
        let part = resize_region(image, (width, height), region, self.resample)?;
        if part.dimensions() == (self.crop.width, self.crop.height) {
            return Ok(part);
        }
        let mut output = RgbImage::new(self.crop.width, self.crop.height);
        imageops::replace(&mut output, &part, i64::from(crop_left), i64::from(crop_top));
        Ok(output)
    }

    /// Normalised pixels of an image, `[3, height, width]` of the size `crop`, red first.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an image without pixels.
    pub fn pixels(&self, image: &RgbImage) -> Result<Vec<f32>> {
        Ok(self.normalise(&self.resize_and_crop(image)?))
    }

    /// Whether some image is larger than the crop after the resize, so that crops at other places show something else.
    pub fn leaves_over(&self) -> bool {
        match self.resize {
            Resize::Exact(size) => size.width > self.crop.width || size.height > self.crop.height,
            Resize::ShortestEdge(_) | Resize::Keep => true,
        }
    }

    /// Normalises an image as it is, e.g. an augmented one: `[3, height, width]`, red first.
    pub fn normalise(&self, image: &RgbImage) -> Vec<f32> {
        let area = image.width() as usize * image.height() as usize;
        let mut pixels = vec![0.0; 3 * area];
        for channel in 0..3 {
            let (mean, std) = (f64::from(self.mean[channel]), f64::from(self.std[channel]));
            // There are only 256 grey levels: the arithmetic is done once for each, in double precision.
            let levels: [f32; 256] = std::array::from_fn(|level| ((level as f64 * self.rescale - mean) / std) as f32);
            let plane = &mut pixels[channel * area..(channel + 1) * area];
            for (value, level) in plane.iter_mut().zip(image.as_raw().iter().skip(channel).step_by(3)) {
                *value = levels[usize::from(*level)];
            }
        }
        pixels
    }

    /// Normalises levels from 0 to 255 that need not be whole, `[height, width, 3]`, to `[3, height, width]`, red first.
    pub fn normalise_levels(&self, levels: &[f32]) -> Vec<f32> {
        let mut pixels = Vec::with_capacity(levels.len());
        for channel in 0..3 {
            let (mean, std) = (f64::from(self.mean[channel]), f64::from(self.std[channel]));
            let (factor, offset) = ((self.rescale / std) as f32, (mean / std) as f32);
            pixels.extend(levels.iter().skip(channel).step_by(3).map(|level| level * factor - offset));
        }
        pixels
    }

    /// The image that was normalised, levels rounded: the way back from `[3, height, width]` of the size `crop`.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for another number of values.
    pub fn denormalise(&self, pixels: &[f32]) -> Result<RgbImage> {
        let area = self.crop.width as usize * self.crop.height as usize;
        if pixels.len() != 3 * area {
            return Err(Error::mismatch("values of an image", 3 * area, pixels.len()));
        }
        let level = |at: usize, channel: usize| {
            let value = pixels[channel * area + at] * self.std[channel] + self.mean[channel];
            (f64::from(value) / self.rescale).round().clamp(0.0, 255.0) as u8
        };
        Ok(RgbImage::from_fn(self.crop.width, self.crop.height, |x, y| {
            let at = y as usize * self.crop.width as usize + x as usize;
            ::image::Rgb(std::array::from_fn(|channel| level(at, channel)))
        }))
    }

    /// Number of values of one image after [`Preprocess::pixels`].
    pub fn values_per_image(&self) -> usize {
        3 * self.crop.height as usize * self.crop.width as usize
    }

    /// Width and height after the resize.
    fn resized(&self, image: &RgbImage) -> (u32, u32) {
        let (width, height) = image.dimensions();
        match self.resize {
            Resize::Keep => (width, height),
            Resize::Exact(size) => (size.width, size.height),
            Resize::ShortestEdge(edge) => {
                let (short, long) = (width.min(height), width.max(height));
                // `int(edge * long / short)` in Python: a double division, rounded down.
                let other = (f64::from(edge) * f64::from(long) / f64::from(short)) as u32;
                if width <= height { (edge, other) } else { (other, edge) }
            }
        }
    }
}

/// How a side of `have` pixels meets a centred crop of `want`: start in the image, start in the crop, common length.
///
/// The crop starts at `floor((have - want) / 2)`, so a side that is too short gets its odd black pixel in front: the
/// rounding of the reference.
fn overlap(have: u32, want: u32) -> (u32, u32, u32) {
    if have >= want { ((have - want) / 2, 0, want) } else { (0, (want - have).div_ceil(2), have) }
}

#[cfg(test)]
mod tests {
    use ::image::{Rgb, RgbImage};

    use super::{CropPlace, Preprocess, Resize, Size, overlap};

    #[test]
    fn the_long_side_is_rounded_down_and_never_computed_beyond_the_crop() {
        let preprocess = Preprocess::clip(224);
        assert_eq!(preprocess.resized(&RgbImage::new(160, 213)), (224, 298));
        assert_eq!(preprocess.resized(&RgbImage::new(213, 160)), (298, 224));
        let strip = RgbImage::from_pixel(1, 20_000, Rgb([7, 8, 9]));
        let output = preprocess.resize_and_crop(&strip).unwrap();
        assert!(output.pixels().all(|pixel| pixel.0 == [7, 8, 9]));
    }

    #[test]
    fn the_odd_pixel_of_a_padding_comes_first() {
        assert_eq!(overlap(298, 224), (37, 0, 224));
        assert_eq!(overlap(225, 224), (0, 0, 224));
        assert_eq!(overlap(3, 4), (0, 1, 3));
        let keep = Preprocess { resize: Resize::Keep, crop: Size { height: 1, width: 4 }, ..Preprocess::clip(4) };
        let output = keep.resize_and_crop(&RgbImage::from_pixel(3, 1, Rgb([5, 5, 5]))).unwrap();
        assert_eq!(output.as_raw(), &[0, 0, 0, 5, 5, 5, 5, 5, 5, 5, 5, 5]);
    }

    #[test]
    fn crops_lie_along_the_longer_side() {
        // A wide image, a tall one, and one that is a square larger than the crop; the grey level is the place along them.
        let wide = RgbImage::from_fn(9, 4, |x, _| Rgb([x as u8; 3]));
        let tall = RgbImage::from_fn(4, 9, |_, y| Rgb([y as u8; 3]));
        let square = RgbImage::from_fn(6, 6, |x, y| Rgb([x as u8, y as u8, 0]));
        let preprocess = Preprocess { resize: Resize::Keep, ..Preprocess::clip(4) };
        let first = |image: &RgbImage, place| preprocess.resize_and_crop_at(image, place).unwrap().get_pixel(0, 0).0;
        let found = |image: &RgbImage| CropPlace::ALL.map(|place| first(image, place));
        assert_eq!(found(&wide), [[2; 3], [0; 3], [5; 3]]);
        assert_eq!(found(&tall), [[2; 3], [0; 3], [5; 3]]);
        assert_eq!(found(&square), [[1, 1, 0], [0, 1, 0], [2, 1, 0]]);
        // What is smaller than the crop is padded as ever.
        let small = RgbImage::from_pixel(3, 4, Rgb([7; 3]));
        assert_eq!(found(&small), [[0; 3]; 3]);
        assert!(preprocess.leaves_over());
        assert!(!Preprocess { resize: Resize::Exact(Size::square(4)), ..preprocess }.leaves_over());
    }

    #[test]
    fn pixels_are_planes_of_normalised_values() {
        let preprocess =
            Preprocess { rescale: 0.01, mean: [0.5, 0.0, 1.0], std: [0.5, 1.0, 2.0], ..Preprocess::clip(1) };
        let pixels = preprocess.normalise(&RgbImage::from_raw(2, 1, vec![100, 20, 200, 0, 40, 100]).unwrap());
        let expected = [1.0, -1.0, 0.2, 0.4, 0.5, 0.0];
        assert!(pixels.iter().zip(expected).all(|(a, b): (&f32, f32)| (a - b).abs() < 1e-6), "{pixels:?}");
        let levels = preprocess.normalise_levels(&[100.0, 20.0, 200.0, 0.0, 40.0, 100.0]);
        assert!(levels.iter().zip(expected).all(|(a, b): (&f32, f32)| (a - b).abs() < 1e-6), "{levels:?}");
        let pair = Preprocess { crop: Size { height: 1, width: 2 }, ..preprocess };
        assert_eq!(pair.denormalise(&pixels).unwrap().into_raw(), [100, 20, 200, 0, 40, 100]);
    }

    #[test]
    fn settings_survive_json_and_bad_ones_are_refused() {
        let preprocess = Preprocess { resize: Resize::Exact(Size::square(9)), ..Preprocess::clip(8) };
        let text = serde_json::to_string(&preprocess).unwrap();
        assert_eq!(serde_json::from_str::<Preprocess>(&text).unwrap(), preprocess);
        assert!(serde_json::from_str::<Preprocess>(&text.replacen("\"crop\"", "\"croop\"", 1)).is_err());
        assert!(Preprocess::clip(0).validate().is_err());
        assert!(Preprocess { std: [0.0; 3], ..Preprocess::clip(8) }.validate().is_err());
    }
}
