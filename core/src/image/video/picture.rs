//! From the planes of a decoded frame to RGB.

/// Binary digits behind the point of a factor.
const POINT: u32 = 16;

/// How stored levels become RGB: what each adds to red, green and blue, in units of `2^-POINT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Colours {
    black: i32,
    luma: i32,
    red: i32,
    green: (i32, i32),
    blue: i32,
}

impl Colours {
    /// The colours of a matrix, by its code in ITU-T H.264, table E-5, and a range. A matrix that is not said or not
    /// known is that of BT.601, as in FFmpeg.
    pub(super) fn new(matrix: u32, full_range: bool) -> Self {
        let (red, blue) = match matrix {
            1 => (0.2126, 0.0722),
            4 => (0.30, 0.11),
            7 => (0.212, 0.087),
            9 | 10 => (0.2627, 0.0593),
            _ => (0.299, 0.114),
        };
        let green: f64 = 1.0 - red - blue;
        let (black, luma, chroma) = if full_range { (0, 1.0, 1.0) } else { (16, 255.0 / 219.0, 255.0 / 224.0) };
        let fixed = |factor: f64| (factor * f64::from(1 << POINT)).round() as i32;
        let (of_red, of_blue) = (2.0 * (1.0 - red) * chroma, 2.0 * (1.0 - blue) * chroma);
        Self {
            black,
            luma: fixed(luma),
            red: fixed(of_red),
            green: (fixed(of_blue * blue / green), fixed(of_red * red / green)),
            blue: fixed(of_blue),
        }
    }

    fn rgb(self, luma: u8, blueness: u8, redness: u8) -> [u8; 3] {
        let grey = (i32::from(luma) - self.black) * self.luma + (1 << (POINT - 1));
        let (blueness, redness) = (i32::from(blueness) - 128, i32::from(redness) - 128);
        let level = |sum: i32| (sum >> POINT).clamp(0, 255) as u8;
        [
            level(grey + redness * self.red),
            level(grey - blueness * self.green.0 - redness * self.green.1),
            level(grey + blueness * self.blue),
        ]
    }
}

/// A frame in 4:2:0: each value of the two colour planes counts for two by two pixels.
pub(super) struct Planes<'a> {
    /// Width and height in pixels.
    pub(super) size: (usize, usize),
    /// Brightness, blueness and redness, each with the distance between its rows.
    pub(super) planes: [(&'a [u8], usize); 3],
}

impl Planes<'_> {
    /// The pixels, row by row; `None` where a plane has too few values.
    pub(super) fn rgb(&self, colours: Colours) -> Option<Vec<u8>> {
        let (width, height) = self.size;
        let row = |plane: usize, row: usize, length: usize| {
            let (values, stride) = self.planes[plane];
            let start = row.checked_mul(stride)?;
            values.get(start..start.checked_add(length)?)
        };
        let mut pixels = Vec::with_capacity(3 * width * height);
        for y in 0..height {
            let half = width.div_ceil(2);
            let (luma, blueness, redness) = (row(0, y, width)?, row(1, y / 2, half)?, row(2, y / 2, half)?);
            for (x, level) in luma.iter().enumerate() {
                pixels.extend(colours.rgb(*level, blueness[x / 2], redness[x / 2]));
            }
        }
        Some(pixels)
    }
}

#[cfg(test)]
mod tests {
    use super::{Colours, Planes};

    #[test]
    fn primaries_come_back_through_every_matrix() {
        // Black, white and red, as the formulas of BT.601 and BT.709 store them, rounded.
        for (matrix, full_range, stored, expected) in [
            (5, false, [16, 128, 128], [0, 0, 0]),
            (5, false, [235, 128, 128], [255, 255, 255]),
            (5, false, [81, 90, 240], [255, 0, 0]),
            (6, true, [76, 85, 255], [255, 0, 0]),
            (1, false, [63, 102, 240], [255, 0, 0]),
            (1, true, [182, 30, 12], [0, 254, 1]),
            (9, false, [74, 97, 240], [255, 0, 0]),
        ] {
            let found = Colours::new(matrix, full_range).rgb(stored[0], stored[1], stored[2]);
            let near = found.iter().zip(expected).all(|(found, expected): (_, u8)| found.abs_diff(expected) <= 2);
            assert!(near, "matrix {matrix}: {found:?}, expected {expected:?}");
        }
        assert_eq!(Colours::new(2, false), Colours::new(6, false));
    }

    #[test]
    fn a_colour_counts_for_four_pixels_and_rows_have_their_distance() {
        let (luma, blueness, redness) = ([16, 235, 16, 0, 235, 16, 235, 0], [128, 128, 9], [128, 128, 9]);
        let planes = [(&luma[..], 4), (&blueness[..], 3), (&redness[..], 3)];
        let found = Planes { size: (3, 2), planes }.rgb(Colours::new(2, false)).expect("enough");
        let levels: Vec<u8> = found.iter().copied().step_by(3).collect();
        assert_eq!(levels, [0, 255, 0, 255, 0, 255]);
        assert_eq!(Planes { size: (5, 2), planes }.rgb(Colours::new(2, false)), None);
    }
}
