//! Affine changes of an image with Pillow's bilinear filter: output of the same size, black where nothing was.

use ::image::{Rgb, RgbImage};

/// `(x, y) -> (a x + b y + c, d x + e y + f)`, from a place in the output to one in the input, in pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Affine(pub [f64; 6]);

impl Affine {
    /// A rotation about the centre, counter-clockwise.
    pub fn rotation(degrees: f64, width: u32, height: u32) -> Self {
        let angle = -degrees.to_radians();
        // Pillow rounds to 15 digits, so that a quarter turn has no rest.
        let round = |value: f64| (value * 1e15).round() / 1e15;
        let (cos, sin) = (round(angle.cos()), round(angle.sin()));
        let (x, y) = (f64::from(width) / 2.0, f64::from(height) / 2.0);
        Self([cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y])
    }

    /// A shift of the rows, by so many pixels for each pixel of height.
    pub fn shear_x(level: f64) -> Self {
        Self([1.0, level, 0.0, 0.0, 1.0, 0.0])
    }

    /// A shift of the columns.
    pub fn shear_y(level: f64) -> Self {
        Self([1.0, 0.0, 0.0, level, 1.0, 0.0])
    }

    /// A shift to the left and to the top.
    pub fn translation(left: f64, top: f64) -> Self {
        Self([1.0, 0.0, left, 0.0, 1.0, top])
    }

    /// The changed image.
    pub fn apply(self, image: &RgbImage) -> RgbImage {
        let Self([a, b, c, d, e, f]) = self;
        let (width, height) = image.dimensions();
        RgbImage::from_fn(width, height, |x, y| {
            let (x, y) = (f64::from(x) + 0.5, f64::from(y) + 0.5);
            sample(image, a * x + b * y + c, d * x + e * y + f)
        })
    }
}

/// The value at a place whose pixel centres lie at halves; the edge pixels reach to the border.
fn sample(image: &RgbImage, x: f64, y: f64) -> Rgb<u8> {
    let (width, height) = image.dimensions();
    if x < 0.0 || y < 0.0 || x >= f64::from(width) || y >= f64::from(height) {
        return Rgb([0; 3]);
    }
    let (x, y) = (x - 0.5, y - 0.5);
    let (column, row) = (x.floor(), y.floor());
    let (across, down) = (x - column, y - row);
    let within = |at: f64, length: u32| (at.max(0.0) as u32).min(length - 1);
    let (left, right) = (within(column, width), within(column + 1.0, width));
    let (top, bottom) = (within(row, height), within(row + 1.0, height));
    let (top_left, top_right) = (image.get_pixel(left, top).0, image.get_pixel(right, top).0);
    let (bottom_left, bottom_right) = (image.get_pixel(left, bottom).0, image.get_pixel(right, bottom).0);
    let between = |from: u8, to: u8, share: f64| f64::from(from) + share * (f64::from(to) - f64::from(from));
    Rgb(std::array::from_fn(|channel| {
        let upper = between(top_left[channel], top_right[channel], across);
        let lower = between(bottom_left[channel], bottom_right[channel], across);
        (upper + down * (lower - upper)) as u8
    }))
}

#[cfg(test)]
mod tests {
    use ::image::{Rgb, RgbImage};

    use super::Affine;

    #[test]
    fn whole_pixels_move_without_a_change_of_value() {
        let image = RgbImage::from_fn(4, 3, |x, y| Rgb([(10 * x + y) as u8, 7, 9]));
        let moved = Affine::translation(1.0, 0.0).apply(&image);
        assert_eq!(moved.get_pixel(0, 2), image.get_pixel(1, 2));
        assert_eq!(moved.get_pixel(3, 2).0, [0; 3]);
        assert_eq!(Affine::rotation(0.0, 4, 3).apply(&image), image);
        let turned = Affine::rotation(180.0, 4, 3).apply(&image);
        assert_eq!(turned.get_pixel(0, 0), image.get_pixel(3, 2));
        // Half a pixel to the left: the mean of two neighbours.
        assert_eq!(Affine::translation(0.5, 0.0).apply(&image).get_pixel(1, 0).0, [15, 7, 9]);
    }
}
