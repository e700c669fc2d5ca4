//! Random brightness, contrast and saturation, with the arithmetic of Pillow's image enhancement.

use ::image::RgbImage;
use rand::RngExt as _;
use rand::seq::SliceRandom as _;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::seed::Seed;

/// Strengths of a colour jitter: a strength `s` draws a factor uniformly from `[max(0, 1 - s), 1 + s]`.
///
/// The three changes are applied in a random order, as in torchvision's `ColorJitter`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ColourJitter {
    /// Towards black or away from it.
    pub brightness: f32,
    /// Towards the mean grey or away from it.
    pub contrast: f32,
    /// Towards the grey image or away from it.
    pub saturation: f32,
}

impl ColourJitter {
    /// Checks the strengths.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the strength.
    pub fn validate(&self) -> Result<()> {
        let strengths = [("brightness", self.brightness), ("contrast", self.contrast), ("saturation", self.saturation)];
        for (name, strength) in strengths {
            if !(0.0..=10.0).contains(&strength) {
                let reason = format!("{strength} must be between 0 and 10");
                return Err(Error::invalid(format!("augmentation {name}"), reason));
            }
        }
        Ok(())
    }

    /// Changes an image in place.
    pub fn apply(&self, image: &mut RgbImage, seed: Seed) {
        let strengths = [self.brightness, self.contrast, self.saturation];
        let mut rng = seed.rng();
        // All draws are made whatever the strengths are, so that turning one change off leaves the others alone.
        let draws: [f32; 3] = std::array::from_fn(|_| rng.random());
        let mut order = [0, 1, 2];
        order.shuffle(&mut rng);
        for index in order {
            let low = (1.0 - strengths[index]).max(0.0);
            let factor = low + draws[index] * (1.0 + strengths[index] - low);
            match index {
                _ if strengths[index] == 0.0 => {}
                0 => brightness(image, factor),
                1 => contrast(image, factor),
                _ => saturation(image, factor),
            }
        }
    }
}

fn brightness(image: &mut RgbImage, factor: f32) {
    let table: [u8; 256] = std::array::from_fn(|level| blend(0.0, level as f32, factor));
    image.as_mut().iter_mut().for_each(|sample| *sample = table[usize::from(*sample)]);
}

fn contrast(image: &mut RgbImage, factor: f32) {
    let total: u64 = image.pixels().map(|pixel| u64::from(grey(pixel.0))).sum();
    let count = (u64::from(image.width()) * u64::from(image.height())).max(1);
    let mean = (total as f64 / count as f64 + 0.5).floor() as f32;
    let table: [u8; 256] = std::array::from_fn(|level| blend(mean, level as f32, factor));
    image.as_mut().iter_mut().for_each(|sample| *sample = table[usize::from(*sample)]);
}

fn saturation(image: &mut RgbImage, factor: f32) {
    for pixel in image.pixels_mut() {
        let level = f32::from(grey(pixel.0));
        pixel.0 = pixel.0.map(|sample| blend(level, f32::from(sample), factor));
    }
}

/// From `from` (factor 0) over `to` (factor 1) and beyond, cut off to the range of a sample.
fn blend(from: f32, to: f32, factor: f32) -> u8 {
    (from + factor * (to - from)) as u8
}

/// Luma of ITU-R 601 in 16-bit fixed point.
fn grey([red, green, blue]: [u8; 3]) -> u8 {
    ((u32::from(red) * 19_595 + u32::from(green) * 38_470 + u32::from(blue) * 7_471 + 0x8000) >> 16) as u8
}

#[cfg(test)]
mod tests {
    use ::image::{Rgb, RgbImage};

    use super::{ColourJitter, brightness, contrast, saturation};
    use crate::seed::Seed;

    #[test]
    fn factors_scale_towards_black_mean_and_grey() {
        // Grey of (200, 100, 50) is 124 (0.299 r + 0.587 g + 0.114 b = 124.2), of (0, 0, 0) it is 0: mean 62.
        let image = RgbImage::from_raw(2, 1, vec![200, 100, 50, 0, 0, 0]).unwrap();
        let changed = |step: fn(&mut RgbImage, f32), factor| {
            let mut copy = image.clone();
            step(&mut copy, factor);
            copy.into_raw()
        };
        assert_eq!(changed(brightness, 0.5), [100, 50, 25, 0, 0, 0]);
        assert_eq!(changed(brightness, 2.0), [255, 200, 100, 0, 0, 0]);
        assert_eq!(changed(contrast, 0.5), [131, 81, 56, 31, 31, 31]);
        assert_eq!(changed(saturation, 0.0), [124, 124, 124, 0, 0, 0]);
        assert_eq!(changed(saturation, 1.0), image.into_raw());
    }

    #[test]
    fn the_same_seed_gives_the_same_colours() {
        let jitter = ColourJitter { brightness: 0.4, contrast: 0.4, saturation: 0.4 };
        let apply = |seed| {
            let mut image = RgbImage::from_pixel(3, 3, Rgb([120, 60, 30]));
            jitter.apply(&mut image, Seed::new(seed));
            image
        };
        assert_eq!(apply(1), apply(1));
        assert_ne!(apply(1), apply(2));
        assert!(ColourJitter { contrast: -1.0, ..jitter }.validate().is_err());
    }
}
