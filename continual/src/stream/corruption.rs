//! Domains made from one data set: common corruptions, after Hendrycks and Dietterich (2019, arXiv 1903.12261), at a middle
//! severity. Written as images, so that every method meets them like any other domain.

use std::path::Path;

use image::RgbImage;
use image::imageops;
use inarch_core::data::{Example, Source};
use inarch_core::image::ImageList;
use inarch_core::{Seed, file};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Longest shorter side of a written image, in pixels.
const MOST_PIXELS: u32 = 256;
/// Images in memory at once.
const BATCH: usize = 32;

/// A change of all images of a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Corruption {
    /// The images as they are.
    None,
    /// Normal noise of deviation 0.18.
    GaussianNoise,
    /// A Gaussian blur of 2 % of the shorter side.
    Blur,
    /// A fifth of the contrast.
    Contrast,
    /// Brighter by 0.3.
    Brightness,
    /// A fifth of the resolution.
    Pixelate,
}

impl Corruption {
    /// All of them, the plain images first.
    pub const ALL: [Self; 6] =
        [Self::None, Self::GaussianNoise, Self::Blur, Self::Contrast, Self::Brightness, Self::Pixelate];

    /// Its name in recipes and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::GaussianNoise => "gaussian-noise",
            Self::Blur => "blur",
            Self::Contrast => "contrast",
            Self::Brightness => "brightness",
            Self::Pixelate => "pixelate",
        }
    }

    /// The changed image; `seed` decides the noise.
    pub fn apply(self, image: &RgbImage, seed: Seed) -> RgbImage {
        let (width, height) = image.dimensions();
        let each = |change: &dyn Fn(f32) -> f32| {
            let mut image = image.clone();
            image.iter_mut().for_each(|value| *value = (change(f32::from(*value) / 255.0) * 255.0).round() as u8);
            image
        };
        match self {
            Self::None => image.clone(),
            Self::Contrast => {
                let mean = image.iter().map(|value| f32::from(*value)).sum::<f32>() / (255.0 * image.len() as f32);
                each(&|value| mean + 0.2 * (value - mean))
            }
            Self::Brightness => each(&|value| value + 0.3),
            Self::Blur => imageops::blur(image, (0.02 * width.min(height) as f32).max(0.8)),
            Self::Pixelate => {
                let small =
                    imageops::resize(image, (width / 5).max(1), (height / 5).max(1), imageops::FilterType::Triangle);
                imageops::resize(&small, width, height, imageops::FilterType::Nearest)
            }
            Self::GaussianNoise => {
                let noise = seed.normals(image.len(), 0.18 * 255.0);
                let mut image = image.clone();
                image
                    .iter_mut()
                    .zip(noise)
                    .for_each(|(value, noise)| *value = (f32::from(*value) + noise).round() as u8);
                image
            }
        }
    }

    /// Writes the changed images of examples under `folder` and gives the examples of the new domain. Images that are
    /// there are left alone. One that cannot be read is in the domain as it is, for whoever reads it to stop at or to leave out.
    ///
    /// # Errors
    /// An image that cannot be written, or examples of features.
    pub(super) fn domain(self, examples: &[Example], folder: &Path, seed: Seed) -> Result<Vec<Example>> {
        let (mut domain, mut missing) = (Vec::with_capacity(examples.len()), Vec::new());
        for example in examples {
            let Source::Image(path) = &example.source else {
                return Err(Error::setting(
                    "stream.corruptions",
                    "only still images can be corrupted; the data set holds features or clips",
                ));
            };
            let id = format!("{}/{}", self.name(), example.id);
            let mut shown = path.clone();
            if self != Self::None {
                shown = folder.join(format!("{:016x}.png", seed.hash(&id)));
                if !shown.is_file() {
                    missing.push((domain.len(), path.as_path(), shown.clone(), seed.split(&id)));
                }
            }
            domain.push(Example { id, source: Source::Image(shown), ..example.clone() });
        }
        let mut images = ImageList::new(missing.iter().map(|(_, path, ..)| *path).collect());
        for batch in missing.chunks(BATCH) {
            for ((at, path, into, seed), (_, image)) in batch.iter().zip(images.decode(batch.len())) {
                match image {
                    Ok(image) => self.write(image, path, into, *seed)?,
                    Err(_) => domain[*at].source = Source::Image(path.to_path_buf()),
                }
            }
        }
        Ok(domain)
    }

    /// Writes the changed image of a file.
    fn write(self, image: RgbImage, path: &Path, into: &Path, seed: Seed) -> Result<()> {
        let (width, height) = image.dimensions();
        let shorter = width.min(height);
        let image = if shorter > MOST_PIXELS {
            let scaled = |side: u32| (u64::from(side) * u64::from(MOST_PIXELS) / u64::from(shorter)).max(1) as u32;
            imageops::resize(&image, scaled(width), scaled(height), imageops::FilterType::Triangle)
        } else {
            image
        };
        let mut bytes = std::io::Cursor::new(Vec::new());
        let fault =
            |error: image::ImageError| inarch_core::Error::BadImage { path: path.into(), reason: error.to_string() };
        self.apply(&image, seed).write_to(&mut bytes, image::ImageFormat::Png).map_err(fault)?;
        Ok(file::write(into, bytes.get_ref())?)
    }
}

#[cfg(test)]
mod tests {
    use image::RgbImage;
    use inarch_core::Seed;

    use super::Corruption;

    #[test]
    fn every_corruption_changes_an_image_and_the_seed_alone_decides_how() {
        let image =
            RgbImage::from_fn(40, 30, |x, y| image::Rgb([(x * 6) as u8, (y * 8) as u8, ((x + y) % 7 * 30) as u8]));
        for corruption in Corruption::ALL {
            let changed = corruption.apply(&image, Seed::new(1));
            assert_eq!(changed.dimensions(), image.dimensions());
            assert_eq!(changed == image, corruption == Corruption::None, "{}", corruption.name());
            assert_eq!(changed, corruption.apply(&image, Seed::new(1)));
        }
        let noise = |seed| Corruption::GaussianNoise.apply(&image, Seed::new(seed));
        assert_ne!(noise(1), noise(2));
    }
}
