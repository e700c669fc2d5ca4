//! Random views of a training image.

use ::image::{Rgb, RgbImage, imageops};
use rand::RngExt as _;
use serde::{Deserialize, Serialize};

use super::colour::ColourJitter;
use super::preprocess::{Preprocess, Size};
use super::resize::resize;
use crate::error::{Error, Result};
use crate::seed::Seed;

/// Which part of the image a view shows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum AugmentCrop {
    /// The same centre as in evaluation.
    Centre,
    /// A random rectangle, resized to the output size (torchvision's `RandomResizedCrop`).
    Resized {
        /// Least and greatest share of the image's area.
        scale: (f32, f32),
        /// Least and greatest width divided by height; drawn uniformly in the logarithm.
        ratio: (f32, f32),
    },
    /// A random shift: the centre view is padded on all sides and cut back to its size. For tiny images.
    Padded {
        /// Pixels on each side.
        pad: u32,
        /// What the padding shows.
        fill: PadFill,
    },
}

/// What padding shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PadFill {
    /// The image mirrored at its edge, the edge itself not repeated.
    #[default]
    Reflect,
    /// Black.
    Zero,
}

/// A random change of training images: crop, flip, colour, cutout, in this order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Augment {
    /// Which part is shown.
    pub crop: AugmentCrop,
    /// Probability of a mirror image (left and right exchanged).
    pub flip: f32,
    /// Random colours.
    #[serde(default)]
    pub jitter: Option<ColourJitter>,
    /// Side of a black square at a random centre, as a fraction of the shorter side of the output.
    #[serde(default)]
    pub cutout: Option<f32>,
}

impl Augment {
    /// The views of contrastive pre-training: area 8 to 100 %, ratio 3:4 to 4:3, mirrored half of the time.
    pub fn clip() -> Self {
        let crop = AugmentCrop::Resized { scale: (0.08, 1.0), ratio: (3.0 / 4.0, 4.0 / 3.0) };
        Self { crop, flip: 0.5, jitter: None, cutout: None }
    }

    /// The usual views of tiny images: shifts of up to `pad` pixels over a mirrored border, mirrored half of the time.
    pub fn tiny(pad: u32) -> Self {
        Self { crop: AugmentCrop::Padded { pad, fill: PadFill::Reflect }, flip: 0.5, jitter: None, cutout: None }
    }

    /// Whether every view is the centre view.
    pub fn draws_nothing(&self) -> bool {
        self.crop == AugmentCrop::Centre && self.flip == 0.0 && self.jitter.is_none() && self.cutout.is_none()
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the setting.
    pub fn validate(&self) -> Result<()> {
        let check = |what: &str, holds: bool, reason: String| {
            if holds { Ok(()) } else { Err(Error::invalid(format!("augmentation {what}"), reason)) }
        };
        match self.crop {
            AugmentCrop::Centre => {}
            AugmentCrop::Resized { scale: (low, high), ratio: (narrow, wide) } => {
                let holds = low > 0.0 && low <= high && high <= 1.0;
                check("scale", holds, format!("({low}, {high}) must satisfy 0 < low <= high <= 1"))?;
                let holds = narrow > 0.0 && narrow <= wide && wide.is_finite();
                check("ratio", holds, format!("({narrow}, {wide}) must satisfy 0 < low <= high"))?;
            }
            AugmentCrop::Padded { pad, .. } => check("pad", pad <= 4096, format!("{pad} must be at most 4096 pixels"))?,
        }
        check("flip", (0.0..=1.0).contains(&self.flip), format!("{} must be a probability", self.flip))?;
        if let Some(cutout) = self.cutout {
            check("cutout", cutout > 0.0 && cutout <= 1.0, format!("{cutout} must be above 0 and at most 1"))?;
        }
        self.jitter.map_or(Ok(()), |jitter| jitter.validate())
    }

    /// A random view of the size `preprocess.crop`, to be passed to [`Preprocess::normalise`].
    ///
    /// Each step has its own stream of the seed, so changing one setting leaves the draws of the others alone.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an image without pixels.
    pub fn apply(&self, image: &RgbImage, preprocess: &Preprocess, seed: Seed) -> Result<RgbImage> {
        let size = preprocess.crop;
        let crop_seed = seed.split("crop");
        let mut view = match self.crop {
            AugmentCrop::Resized { scale, ratio } if image.width() > 0 && image.height() > 0 => {
                let area = sample_rectangle(image.width(), image.height(), scale, ratio, crop_seed);
                // Cut first, then resize, as the reference does: the filter must not see pixels outside.
                let part = imageops::crop_imm(image, area.left, area.top, area.width, area.height).to_image();
                resize(&part, size.width, size.height, preprocess.resample)?
            }
            AugmentCrop::Padded { pad, fill } => {
                shifted(&preprocess.resize_and_crop(image)?, size, pad, fill, crop_seed)
            }
            _ => preprocess.resize_and_crop(image)?,
        };
        if seed.split("flip").rng().random::<f32>() < self.flip {
            imageops::flip_horizontal_in_place(&mut view);
        }
        if let Some(jitter) = self.jitter {
            jitter.apply(&mut view, seed.split("jitter"));
        }
        if let Some(fraction) = self.cutout {
            cut_out(&mut view, fraction, seed.split("cutout"));
        }
        Ok(view)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rectangle {
    left: u32,
    top: u32,
    width: u32,
    height: u32,
}

/// torchvision's rule: ten tries, then the largest centred rectangle whose ratio is allowed.
fn sample_rectangle(width: u32, height: u32, scale: (f32, f32), ratio: (f32, f32), seed: Seed) -> Rectangle {
    let mut rng = seed.rng();
    let (full_width, full_height) = (f64::from(width), f64::from(height));
    let (narrow, wide) = (f64::from(ratio.0), f64::from(ratio.1));
    for _ in 0..10 {
        let area = full_width * full_height * rng.random_range(f64::from(scale.0)..=f64::from(scale.1));
        let aspect = rng.random_range(narrow.ln()..=wide.ln()).exp();
        let part_width = (area * aspect).sqrt().round_ties_even() as u32;
        let part_height = (area / aspect).sqrt().round_ties_even() as u32;
        if (1..=width).contains(&part_width) && (1..=height).contains(&part_height) {
            let top = rng.random_range(0..=height - part_height);
            let left = rng.random_range(0..=width - part_width);
            return Rectangle { left, top, width: part_width, height: part_height };
        }
    }
    let aspect = full_width / full_height;
    let (part_width, part_height) = if aspect < narrow {
        (width, ((full_width / narrow).round_ties_even() as u32).clamp(1, height))
    } else if aspect > wide {
        (((full_height * wide).round_ties_even() as u32).clamp(1, width), height)
    } else {
        (width, height)
    };
    Rectangle {
        left: (width - part_width) / 2,
        top: (height - part_height) / 2,
        width: part_width,
        height: part_height,
    }
}

/// A window of `size` at a random place of the image padded by `pad`, without making the padded image.
fn shifted(image: &RgbImage, size: Size, pad: u32, fill: PadFill, seed: Seed) -> RgbImage {
    let mut rng = seed.rng();
    let down = i64::from(rng.random_range(0..=2 * pad)) - i64::from(pad);
    let right = i64::from(rng.random_range(0..=2 * pad)) - i64::from(pad);
    RgbImage::from_fn(size.width, size.height, |x, y| {
        let (x, y) = (i64::from(x) + right, i64::from(y) + down);
        match fill {
            PadFill::Reflect => *image.get_pixel(reflect(x, image.width()), reflect(y, image.height())),
            PadFill::Zero => {
                let inside = |at: i64, length: u32| u32::try_from(at).ok().filter(|&at| at < length);
                match (inside(x, image.width()), inside(y, image.height())) {
                    (Some(x), Some(y)) => *image.get_pixel(x, y),
                    _ => Rgb([0; 3]),
                }
            }
        }
    })
}

/// The pixel seen at `at` between two mirrors on the outermost pixels.
fn reflect(at: i64, length: u32) -> u32 {
    let last = i64::from(length) - 1;
    if last == 0 {
        return 0;
    }
    let turn = at.rem_euclid(2 * last);
    turn.min(2 * last - turn) as u32
}

fn cut_out(image: &mut RgbImage, fraction: f32, seed: Seed) {
    let (width, height) = image.dimensions();
    let side = ((width.min(height) as f32 * fraction).round() as u32).max(1);
    let mut rng = seed.rng();
    // The centre is anywhere, so the square may be cut off at the border, as in the method's paper.
    let mut range = |length: u32| {
        let start = i64::from(rng.random_range(0..length)) - i64::from(side / 2);
        start.max(0) as u32..((start + i64::from(side)) as u32).min(length)
    };
    let (rows, columns) = (range(height), range(width));
    for y in rows {
        for x in columns.clone() {
            image.put_pixel(x, y, Rgb([0; 3]));
        }
    }
}

#[cfg(test)]
mod tests {
    use ::image::{Rgb, RgbImage};

    use super::{Augment, AugmentCrop, PadFill, Rectangle, reflect, sample_rectangle};
    use crate::image::{ColourJitter, Preprocess, Resample, resize};
    use crate::seed::Seed;

    fn photo() -> RgbImage {
        RgbImage::from_fn(40, 30, |x, y| Rgb([(x * 6) as u8, (y * 8) as u8, (x * y % 256) as u8]))
    }

    #[test]
    fn rectangles_lie_inside_and_keep_their_ranges() {
        for seed in 0..500 {
            let found = sample_rectangle(400, 300, (0.08, 1.0), (0.75, 4.0 / 3.0), Seed::new(seed));
            assert!(found.left + found.width <= 400 && found.top + found.height <= 300);
            let share = f64::from(found.width * found.height) / 120_000.0;
            let aspect = f64::from(found.width) / f64::from(found.height);
            assert!((0.078..=1.0).contains(&share) && (0.74..=1.35).contains(&aspect), "{found:?}");
        }
    }

    #[test]
    fn an_extreme_image_falls_back_to_the_largest_allowed_centre() {
        let found = sample_rectangle(1000, 10, (0.9, 1.0), (0.75, 1.25), Seed::new(1));
        assert_eq!(found, Rectangle { left: 494, top: 0, width: 12, height: 10 });
    }

    #[test]
    fn the_whole_image_is_the_view_when_nothing_is_random() {
        let preprocess = Preprocess::clip(16);
        let whole = AugmentCrop::Resized { scale: (1.0, 1.0), ratio: (4.0 / 3.0, 4.0 / 3.0) };
        let augment = Augment { crop: whole, flip: 0.0, ..Augment::clip() };
        let expected = resize(&photo(), 16, 16, Resample::Bicubic).unwrap();
        assert_eq!(augment.apply(&photo(), &preprocess, Seed::new(3)).unwrap(), expected);
        let still = Augment { crop: AugmentCrop::Padded { pad: 0, fill: PadFill::Zero }, flip: 1.0, ..augment };
        let mut mirrored = preprocess.resize_and_crop(&photo()).unwrap();
        ::image::imageops::flip_horizontal_in_place(&mut mirrored);
        assert_eq!(still.apply(&photo(), &preprocess, Seed::new(3)).unwrap(), mirrored);
    }

    #[test]
    fn mirrors_do_not_repeat_the_edge() {
        let seen: Vec<u32> = (-3..7).map(|at| reflect(at, 4)).collect();
        assert_eq!(seen, [3, 2, 1, 0, 1, 2, 3, 2, 1, 0]);
        assert_eq!(reflect(-5, 1), 0);
    }

    #[test]
    fn the_seed_decides_and_steps_are_independent() {
        let preprocess = Preprocess::clip(16);
        let jitter = Some(ColourJitter { brightness: 0.2, contrast: 0.2, saturation: 0.2 });
        for augment in [Augment::clip(), Augment::tiny(4), Augment { jitter, cutout: Some(0.5), ..Augment::tiny(2) }] {
            augment.validate().unwrap();
            let view = |seed| augment.apply(&photo(), &preprocess, Seed::new(seed)).unwrap();
            assert_eq!(view(1), view(1));
            assert!((2..9).any(|seed| view(seed) != view(1)));
            let text = serde_json::to_string(&augment).unwrap();
            assert_eq!(serde_json::from_str::<Augment>(&text).unwrap(), augment);
        }
        let plain = Augment::tiny(4).apply(&photo(), &preprocess, Seed::new(5)).unwrap();
        let holed =
            Augment { cutout: Some(0.5), ..Augment::tiny(4) }.apply(&photo(), &preprocess, Seed::new(5)).unwrap();
        let changed = plain.pixels().zip(holed.pixels()).filter(|(a, b)| a != b);
        assert!(changed.clone().count() > 0 && changed.map(|(_, hole)| hole.0).all(|hole| hole == [0; 3]));
    }

    #[test]
    fn impossible_ranges_are_refused() {
        let crop = AugmentCrop::Resized { scale: (0.5, 0.2), ratio: (1.0, 1.0) };
        assert!(Augment { crop, ..Augment::clip() }.validate().is_err());
        assert!(Augment { flip: 1.5, ..Augment::clip() }.validate().is_err());
        assert!(Augment { cutout: Some(0.0), ..Augment::clip() }.validate().is_err());
        assert!(serde_json::from_str::<Augment>(r#"{"crop": "centre", "flip": 0, "flop": 1}"#).is_err());
    }
}
