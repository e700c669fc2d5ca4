//! Damage that cameras, channels and light do to images, in five severities: shifted data for robustness tests.
//!
//! Strengths follow ImageNet-C (Hendrycks and Dietterich, 2019, arXiv 1903.12261) where it has the kind; lengths there are
//! for 224 pixels and scale with the shorter side of the image.

use std::fmt;
use std::io::Cursor;

use ::image::codecs::jpeg::JpegEncoder;
use ::image::{ImageFormat, RgbImage, imageops};
use rand::RngExt as _;

use super::decode::decode_image_bytes;
use crate::error::{Error, Result};
use crate::seed::Seed;

/// Number of severities, from 1, the mildest, on.
pub const SEVERITIES: usize = 5;

/// A kind of damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Corruption {
    /// Nothing: the same images in the same format, to compare with.
    Clean,
    /// Gaussian noise on every value.
    Noise,
    /// A Gaussian blur.
    Blur,
    /// Strong JPEG compression.
    Jpeg,
    /// A colour cast: another gain for each channel, drawn for each image.
    Colour,
    /// Levels drawn towards the mean.
    LowContrast,
}

impl Corruption {
    /// All kinds.
    pub const ALL: [Self; 6] = [Self::Clean, Self::Noise, Self::Blur, Self::Jpeg, Self::Colour, Self::LowContrast];

    /// Its name on the command line and in folders.
    pub fn name(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Noise => "noise",
            Self::Blur => "blur",
            Self::Jpeg => "jpeg",
            Self::Colour => "colour",
            Self::LowContrast => "low-contrast",
        }
    }

    /// The kind of this name.
    ///
    /// # Errors
    /// [`Error::Unknown`] with all names.
    pub fn named(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| Error::Unknown {
            kind: "corruption",
            name: name.into(),
            candidates: Self::ALL.map(|kind| kind.name().to_string()).to_vec(),
        })
    }

    /// The damaged image; `seed` decides what is random in it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a severity other than 1 to 5 or an image without pixels.
    pub fn apply(self, image: &RgbImage, severity: usize, seed: Seed) -> Result<RgbImage> {
        if !(1..=SEVERITIES).contains(&severity) {
            return Err(Error::invalid("severity", format!("{severity} must be 1 to {SEVERITIES}")));
        }
        if image.width() == 0 || image.height() == 0 {
            return Err(Error::invalid("image size", "the image has no pixels"));
        }
        let at = severity - 1;
        Ok(match self {
            Self::Clean => image.clone(),
            Self::Noise => noisy(image, [0.08, 0.12, 0.18, 0.26, 0.38][at], seed),
            Self::Blur => {
                let side = image.width().min(image.height()) as f32;
                imageops::blur(image, [1.0, 2.0, 3.0, 4.0, 6.0][at] * side / 224.0)
            }
            Self::Jpeg => compressed(image, [25, 18, 15, 10, 7][at])?,
            Self::Colour => cast(image, [0.15, 0.3, 0.45, 0.6, 0.8][at], seed),
            Self::LowContrast => flattened(image, [0.4, 0.3, 0.2, 0.1, 0.05][at]),
        })
    }
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn noisy(image: &RgbImage, deviation: f32, seed: Seed) -> RgbImage {
    let mut changed = image.clone();
    let draws = seed.normals(changed.as_raw().len(), 255.0 * deviation);
    for (level, draw) in changed.as_mut().iter_mut().zip(draws) {
        *level = (f32::from(*level) + draw).round().clamp(0.0, 255.0) as u8;
    }
    changed
}

fn compressed(image: &RgbImage, quality: u8) -> Result<RgbImage> {
    let mut bytes = Cursor::new(Vec::new());
    let encoder = JpegEncoder::new_with_quality(&mut bytes, quality);
    image
        .write_with_encoder(encoder)
        .map_err(|error| Error::invalid(format!("{:?} image", ImageFormat::Jpeg), error.to_string()))?;
    decode_image_bytes(bytes.get_ref(), std::path::Path::new("compressed image"))
}

fn cast(image: &RgbImage, strength: f32, seed: Seed) -> RgbImage {
    let mut rng = seed.rng();
    let draws: [f32; 3] = std::array::from_fn(|_| rng.random_range(-1.0..1.0));
    // Without their mean, so that the light changes its colour and not its amount, and at full strength for every image.
    let mean = draws.iter().sum::<f32>() / 3.0;
    let greatest = draws.iter().map(|draw| (draw - mean).abs()).fold(f32::MIN_POSITIVE, f32::max);
    let gains = draws.map(|draw| (strength * (draw - mean) / greatest).exp());
    let mut changed = image.clone();
    for pixel in changed.pixels_mut() {
        for (level, gain) in pixel.0.iter_mut().zip(gains) {
            *level = (f32::from(*level) * gain).round().clamp(0.0, 255.0) as u8;
        }
    }
    changed
}

fn flattened(image: &RgbImage, factor: f64) -> RgbImage {
    let count = image.pixels().len() as f64;
    let mut sums = [0.0; 3];
    for pixel in image.pixels() {
        for (sum, level) in sums.iter_mut().zip(pixel.0) {
            *sum += f64::from(level);
        }
    }
    let mut changed = image.clone();
    for pixel in changed.pixels_mut() {
        for (level, sum) in pixel.0.iter_mut().zip(sums) {
            let mean = sum / count;
            *level = (mean + factor * (f64::from(*level) - mean)).round().clamp(0.0, 255.0) as u8;
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use ::image::{Rgb, RgbImage};

    use super::Corruption;
    use crate::seed::Seed;

    fn photo() -> RgbImage {
        RgbImage::from_fn(64, 48, |x, y| Rgb([(x * 4) as u8, (y * 5) as u8, ((x * 7 + y * 13) % 256) as u8]))
    }

    fn distance(left: &RgbImage, right: &RgbImage) -> f64 {
        let pairs = left.as_raw().iter().zip(right.as_raw());
        let sum: f64 = pairs.map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
        (sum / left.as_raw().len() as f64).sqrt()
    }

    #[test]
    fn every_severity_does_more_than_the_one_before() {
        let image = photo();
        for kind in Corruption::ALL {
            assert_eq!(Corruption::named(kind.name()).unwrap(), kind);
            let damage = |severity, seed| kind.apply(&image, severity, Seed::new(seed)).unwrap();
            let distances: Vec<f64> = (1..=5).map(|severity| distance(&image, &damage(severity, 1))).collect();
            if kind == Corruption::Clean {
                assert_eq!(distances, [0.0; 5]);
                continue;
            }
            assert!(distances.windows(2).all(|pair| pair[0] < pair[1]), "{kind}: {distances:?}");
            assert_eq!(damage(3, 1), damage(3, 1));
            let random = matches!(kind, Corruption::Noise | Corruption::Colour);
            assert_eq!(damage(3, 1) != damage(3, 2), random, "{kind}");
        }
        // Noise of deviation 0.08 of 255 levels, where nothing is cut off.
        let grey = RgbImage::from_pixel(64, 64, Rgb([128; 3]));
        let noisy = Corruption::Noise.apply(&grey, 1, Seed::new(2)).unwrap();
        assert!((distance(&grey, &noisy) - 20.4).abs() < 0.6);
        assert!(Corruption::Blur.apply(&grey, 6, Seed::new(1)).is_err());
        assert!(Corruption::named("rain").is_err());
    }
}
