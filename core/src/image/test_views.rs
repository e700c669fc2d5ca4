//! Many views of one image, for adaptation at test time: the centre view and random ones.

use ::image::RgbImage;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::augment::Augment;
use super::augmix::Mixture;
use super::preprocess::Preprocess;
use super::resize::Resample;
use crate::error::{Error, Result};
use crate::seed::Seed;

/// Most views of one image.
pub const MAX_VIEWS: usize = 1024;

/// How random views are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ViewRecipe {
    /// A random rectangle of 8 to 100 % of the area, resized with a bilinear filter and mirrored half of the time.
    Crop,
    /// The same, then AugMix.
    #[default]
    Augmix,
}

/// The views of test-time prompt tuning (Shu et al., 2022, arXiv 2209.07511): view 0 is that of evaluation, the others
/// are random.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TestViews {
    /// Number of views, view 0 included.
    pub count: usize,
    /// How the others are made.
    pub recipe: ViewRecipe,
    /// Greatest level of AugMix's operations, of 10; 1 in the reference.
    pub severity: f64,
}

impl TestViews {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the setting.
    pub fn validate(&self) -> Result<()> {
        if !(1..=MAX_VIEWS).contains(&self.count) {
            return Err(Error::invalid("views", format!("{} must be 1 to {MAX_VIEWS}", self.count)));
        }
        if !(0.1..=10.0).contains(&self.severity) {
            return Err(Error::invalid("severity of views", format!("{} must be 0.1 to 10", self.severity)));
        }
        Ok(())
    }

    /// Normalised pixels of one view, `[3, height, width]`. It depends on the seed, the image and the view's number
    /// alone: `seed` is split by `image`, a name that stays the same wherever the file lies.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an image without pixels.
    pub fn view(
        &self,
        pixels: &RgbImage,
        image: &str,
        view: usize,
        preprocess: &Preprocess,
        seed: Seed,
    ) -> Result<Vec<f32>> {
        if view == 0 {
            return preprocess.pixels(pixels);
        }
        let seed = seed.split("views").split(image).split(view);
        let bilinear = Preprocess { resample: Resample::Bilinear, ..preprocess.clone() };
        let crop = Augment::clip().apply(pixels, &bilinear, seed.split("view"))?;
        match self.recipe {
            ViewRecipe::Crop => Ok(preprocess.normalise(&crop)),
            ViewRecipe::Augmix => {
                let mixture = Mixture::draw(self.severity, crop.width(), crop.height(), seed.split("augmix"));
                Ok(preprocess.normalise_levels(&mixture.apply(&crop)))
            }
        }
    }

    /// Normalised pixels of the views of some images, `[images * views, 3, height, width]`, image-major. All cores work;
    /// the result does not depend on how many there are.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an image without pixels.
    pub fn batch(&self, images: &[(&str, &RgbImage)], preprocess: &Preprocess, seed: Seed) -> Result<Vec<f32>> {
        let size = preprocess.values_per_image();
        let mut values = vec![0.0; images.len() * self.count * size];
        values.par_chunks_mut(size).enumerate().try_for_each(|(at, values)| {
            let (image, pixels) = images[at / self.count];
            values.copy_from_slice(&self.view(pixels, image, at % self.count, preprocess, seed)?);
            Ok(())
        })?;
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use ::image::{Rgb, RgbImage};

    use super::{TestViews, ViewRecipe};
    use crate::image::Preprocess;
    use crate::seed::Seed;

    #[test]
    fn views_depend_on_seed_image_and_number_and_not_on_the_batch() {
        let photo = RgbImage::from_fn(40, 30, |x, y| Rgb([(x * 6) as u8, (y * 8) as u8, (x * y % 256) as u8]));
        let other = RgbImage::from_pixel(20, 20, Rgb([90, 10, 200]));
        let preprocess = Preprocess::clip(16);
        for recipe in [ViewRecipe::Crop, ViewRecipe::Augmix] {
            let views = TestViews { count: 5, recipe, severity: 1.0 };
            let batch = |images: &[(&str, &RgbImage)], seed| views.batch(images, &preprocess, Seed::new(seed)).unwrap();
            let both = batch(&[("other", &other), ("photo", &photo)], 7);
            let size = 3 * 16 * 16;
            assert_eq!(both[5 * size..], batch(&[("photo", &photo)], 7));
            assert_eq!(both[5 * size..6 * size], preprocess.pixels(&photo).unwrap());
            let alone = batch(&[("photo", &photo)], 7);
            assert_ne!(alone[size..], batch(&[("photo", &photo)], 8)[size..]);
            assert_ne!(alone[size..], batch(&[("renamed", &photo)], 7)[size..]);
            assert_ne!(alone[size..2 * size], alone[2 * size..3 * size]);
            // More views only add to fewer.
            let more = TestViews { count: 6, ..views }.batch(&[("photo", &photo)], &preprocess, Seed::new(7)).unwrap();
            assert_eq!(more[..5 * size], alone);
        }
        assert!(TestViews { count: 0, recipe: ViewRecipe::Crop, severity: 1.0 }.validate().is_err());
        assert!(TestViews { count: 2, recipe: ViewRecipe::Crop, severity: 11.0 }.validate().is_err());
    }
}
