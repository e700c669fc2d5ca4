//! AugMix: a mixture of an image with chains of simple changes of it (Hendrycks et al., 2020, arXiv 1912.02781), as
//! test-time prompt tuning uses it (Shu et al., 2022, arXiv 2209.07511).
//!
//! `m x + (1 - m) sum_i w_i c_i(x)` with `m` from Beta(1, 1), `w` `[3]` from Dirichlet(1, 1, 1) and three chains `c_i` of
//! one to three of nine operations, each operation and its strength drawn anew.

use ::image::RgbImage;
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

use super::tone::{auto_contrast, equalize, posterize, solarize};
use super::warp::Affine;
use crate::seed::Seed;

/// Number of chains that are mixed.
const CHAINS: usize = 3;
/// Most operations in a chain.
const LONGEST: usize = 3;

/// One of AugMix's operations with its strength.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Operation {
    /// Each channel stretched to all levels.
    AutoContrast,
    /// Levels made equally frequent.
    Equalize,
    /// So many bits kept.
    Posterize(u32),
    /// Degrees, counter-clockwise.
    Rotate(i32),
    /// Levels inverted from here on.
    Solarize(u32),
    /// Rows shifted, in pixels for each pixel of height.
    ShearX(f64),
    /// Columns shifted.
    ShearY(f64),
    /// Pixels to the left.
    TranslateX(i32),
    /// Pixels to the top.
    TranslateY(i32),
}

impl Operation {
    /// A random operation. `severity` is the greatest level, of 10; a level is drawn uniformly between 0.1 and it, and
    /// whole strengths are rounded down, as in the reference. `width` and `height` are the image's.
    pub fn draw(rng: &mut ChaCha8Rng, severity: f64, width: u32, height: u32) -> Self {
        let kind = rng.random_range(0..9);
        let level = 0.1 + rng.random::<f64>() * (severity - 0.1);
        let float = |most: f64| level * most / 10.0;
        let whole = |most: f64| (level * most / 10.0) as i32;
        let negative = rng.random::<bool>();
        let sign = if negative { -1 } else { 1 };
        match kind {
            0 => Self::AutoContrast,
            1 => Self::Equalize,
            2 => Self::Posterize((4 - whole(4.0)).max(0) as u32),
            3 => Self::Rotate(sign * whole(30.0)),
            4 => Self::Solarize((256 - whole(256.0)).max(0) as u32),
            5 => Self::ShearX(f64::from(sign) * float(0.3)),
            6 => Self::ShearY(f64::from(sign) * float(0.3)),
            7 => Self::TranslateX(sign * whole(f64::from(width) / 3.0)),
            _ => Self::TranslateY(sign * whole(f64::from(height) / 3.0)),
        }
    }

    /// The changed image, of the same size.
    pub fn apply(self, image: &RgbImage) -> RgbImage {
        let (width, height) = image.dimensions();
        match self {
            Self::AutoContrast => auto_contrast(image),
            Self::Equalize => equalize(image),
            Self::Posterize(bits) => posterize(image, bits),
            Self::Rotate(degrees) => Affine::rotation(f64::from(degrees), width, height).apply(image),
            Self::Solarize(threshold) => solarize(image, threshold),
            Self::ShearX(level) => Affine::shear_x(level).apply(image),
            Self::ShearY(level) => Affine::shear_y(level).apply(image),
            Self::TranslateX(pixels) => Affine::translation(f64::from(pixels), 0.0).apply(image),
            Self::TranslateY(pixels) => Affine::translation(0.0, f64::from(pixels)).apply(image),
        }
    }
}

/// The draws of one mixture.
#[derive(Debug, Clone, PartialEq)]
pub struct Mixture {
    /// Share of the unchanged image.
    pub original: f32,
    /// Shares of the chains among the rest; they sum to 1.
    pub weights: [f32; CHAINS],
    /// The chains.
    pub chains: [Vec<Operation>; CHAINS],
}

impl Mixture {
    /// Draws a mixture for an image of this size; `severity` as in [`Operation::draw`].
    pub fn draw(severity: f64, width: u32, height: u32, seed: Seed) -> Self {
        let mut rng = seed.rng();
        // Exponential draws made to sum to 1 are those of Dirichlet(1, 1, 1).
        let exponential: [f64; CHAINS] = std::array::from_fn(|_| -rng.random_range(f64::MIN_POSITIVE..1.0).ln());
        let sum = exponential.iter().sum::<f64>().max(f64::MIN_POSITIVE);
        let original = rng.random::<f32>();
        let chains = std::array::from_fn(|_| {
            let length = rng.random_range(1..=LONGEST);
            (0..length).map(|_| Operation::draw(&mut rng, severity, width, height)).collect()
        });
        Self { original, weights: exponential.map(|share| (share / sum) as f32), chains }
    }

    /// The mixed image: levels from 0 to 255, not rounded, `[height, width, 3]`.
    pub fn apply(&self, image: &RgbImage) -> Vec<f32> {
        let mut mixed: Vec<f32> = image.as_raw().iter().map(|level| self.original * f32::from(*level)).collect();
        for (weight, chain) in self.weights.iter().zip(&self.chains) {
            let share = (1.0 - self.original) * weight;
            let changed = chain.iter().fold(image.clone(), |image, operation| operation.apply(&image));
            for (mixed, level) in mixed.iter_mut().zip(changed.as_raw()) {
                *mixed += share * f32::from(*level);
            }
        }
        mixed
    }
}

#[cfg(test)]
mod tests {
    use ::image::{Rgb, RgbImage};

    use super::{Mixture, Operation};
    use crate::seed::Seed;

    #[test]
    fn a_mixture_of_nothing_but_the_image_is_the_image() {
        let image = RgbImage::from_fn(9, 7, |x, y| Rgb([(x * 20) as u8, (y * 30) as u8, 5]));
        let whole = Mixture { original: 1.0, ..Mixture::draw(1.0, 9, 7, Seed::new(3)) };
        let levels: Vec<f32> = image.as_raw().iter().map(|level| f32::from(*level)).collect();
        assert_eq!(whole.apply(&image), levels);
        let seen = |seed| Mixture::draw(1.0, 9, 7, Seed::new(seed)).apply(&image);
        assert_eq!(seen(1), seen(1));
        assert_ne!(seen(1), seen(2));
    }

    #[test]
    fn mild_strengths_are_those_of_the_reference() {
        let mut rng = Seed::new(5).rng();
        for _ in 0..2000 {
            match Operation::draw(&mut rng, 1.0, 224, 224) {
                Operation::Posterize(bits) => assert_eq!(bits, 4),
                Operation::Rotate(degrees) => assert!(degrees.abs() <= 2),
                Operation::Solarize(threshold) => assert!((231..=254).contains(&threshold), "{threshold}"),
                Operation::ShearX(level) | Operation::ShearY(level) => assert!((0.003..=0.03).contains(&level.abs())),
                Operation::TranslateX(pixels) | Operation::TranslateY(pixels) => assert!(pixels.abs() <= 7),
                Operation::AutoContrast | Operation::Equalize => {}
            }
        }
    }
}
