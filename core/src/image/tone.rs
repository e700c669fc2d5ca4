//! Changes of grey levels, one level for another, with the arithmetic of Pillow's `ImageOps`.

use ::image::RgbImage;

/// For each channel, what every level becomes.
type Table = [[u8; 256]; 3];

/// Stretches each channel so that its darkest level becomes 0 and its brightest 255.
pub fn auto_contrast(image: &RgbImage) -> RgbImage {
    let table = histograms(image).map(|counts| {
        let low = counts.iter().position(|count| *count > 0).unwrap_or(0);
        let high = counts.iter().rposition(|count| *count > 0).unwrap_or(255);
        if high <= low {
            return std::array::from_fn(|level| level as u8);
        }
        let scale = 255.0 / (high - low) as f64;
        let offset = -(low as f64) * scale;
        std::array::from_fn(|level| (level as f64 * scale + offset).clamp(0.0, 255.0) as u8)
    });
    replace(image, &table)
}

/// Spreads the levels of each channel so that all are about equally frequent.
pub fn equalize(image: &RgbImage) -> RgbImage {
    let table = histograms(image).map(|counts| {
        let identity = std::array::from_fn(|level| level as u8);
        let total: u64 = counts.iter().sum();
        let Some(last) = counts.iter().rev().find(|count| **count > 0) else { return identity };
        let step = (total - last) / 255;
        if step == 0 {
            return identity;
        }
        let mut below = step / 2;
        counts.map(|count| {
            let level = (below / step).min(255) as u8;
            below += count;
            level
        })
    });
    replace(image, &table)
}

/// Keeps the `bits` highest bits of each level, at most 8.
pub fn posterize(image: &RgbImage, bits: u32) -> RgbImage {
    let mask = 0xFF_u8.checked_shl(8 - bits.min(8)).unwrap_or(0);
    replace(image, &[std::array::from_fn(|level| level as u8 & mask); 3])
}

/// Inverts the levels from `threshold` on.
pub fn solarize(image: &RgbImage, threshold: u32) -> RgbImage {
    let changed = |level: usize| if (level as u32) < threshold { level as u8 } else { 255 - level as u8 };
    replace(image, &[std::array::from_fn(changed); 3])
}

fn histograms(image: &RgbImage) -> [[u64; 256]; 3] {
    let mut counts = [[0; 256]; 3];
    for pixel in image.pixels() {
        for (channel, level) in pixel.0.into_iter().enumerate() {
            counts[channel][usize::from(level)] += 1;
        }
    }
    counts
}

fn replace(image: &RgbImage, table: &Table) -> RgbImage {
    let mut changed = image.clone();
    for pixel in changed.pixels_mut() {
        for (channel, level) in pixel.0.iter_mut().enumerate() {
            *level = table[channel][usize::from(*level)];
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use ::image::RgbImage;

    use super::{auto_contrast, equalize, posterize, solarize};

    #[test]
    fn levels_by_hand() {
        let image = RgbImage::from_raw(2, 1, vec![10, 100, 7, 60, 100, 200]).unwrap();
        assert_eq!(auto_contrast(&image).into_raw(), [0, 100, 0, 255, 100, 255]);
        assert_eq!(posterize(&image, 4).into_raw(), [0, 96, 0, 48, 96, 192]);
        assert_eq!(posterize(&image, 0).into_raw(), [0; 6]);
        assert_eq!(solarize(&image, 100).into_raw(), [10, 155, 7, 60, 155, 55]);
        // Too few pixels for a step: nothing changes.
        assert_eq!(equalize(&image), image);
    }
}
