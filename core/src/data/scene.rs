//! Moving pictures drawn from cut-outs.

use image::{Rgb, RgbImage, Rgba, RgbaImage};

/// A cut-out somewhere on the canvas.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pose {
    /// Middle, as shares of the canvas.
    pub(super) centre: [f32; 2],
    /// Side of the cut-out, as a share of the canvas.
    pub(super) size: f32,
    /// Turn, in radians, clockwise.
    pub(super) angle: f32,
}

/// A ground whose colour changes evenly from corner to corner.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ground(pub(super) [[f32; 3]; 4]);

impl Ground {
    /// An empty canvas.
    pub(super) fn canvas(&self, side: u32) -> RgbImage {
        let share = |at: u32| (at as f32 + 0.5) / side as f32;
        RgbImage::from_fn(side, side, |x, y| {
            let (across, down) = (share(x), share(y));
            let level = |channel: usize| {
                let [a, b, c, d] = self.0.map(|corner| corner[channel]);
                let (top, bottom) = (a + (b - a) * across, c + (d - c) * across);
                (top + (bottom - top) * down).clamp(0.0, 255.0) as u8
            };
            Rgb([level(0), level(1), level(2)])
        })
    }
}

/// Draws a cut-out over a canvas, four samples to a pixel.
pub(super) fn draw(canvas: &mut RgbImage, cutout: &RgbaImage, pose: Pose) {
    let side = canvas.width() as f32;
    let (sine, cosine) = pose.angle.sin_cos();
    for (x, y, pixel) in canvas.enumerate_pixels_mut() {
        let mut sum = [0.0f32; 4];
        for (dx, dy) in [(0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)] {
            let across = ((x as f32 + dx) / side - pose.centre[0]) / pose.size;
            let down = ((y as f32 + dy) / side - pose.centre[1]) / pose.size;
            // Turned back into the cut-out's own frame, whose sides reach from -0.5 to 0.5.
            let (u, v) = (across * cosine + down * sine + 0.5, down * cosine - across * sine + 0.5);
            if let Some(Rgba([red, green, blue, alpha])) = sample(cutout, u, v) {
                let alpha = f32::from(alpha) / 255.0;
                for (sum, value) in sum.iter_mut().zip([red, green, blue]) {
                    *sum += f32::from(value) * alpha;
                }
                sum[3] += alpha;
            }
        }
        let alpha = sum[3] / 4.0;
        for (channel, value) in pixel.0.iter_mut().enumerate() {
            *value = (f32::from(*value) * (1.0 - alpha) + sum[channel] / 4.0).round().clamp(0.0, 255.0) as u8;
        }
    }
}

/// The nearest pixel of a cut-out at a place from 0 to 1.
fn sample(cutout: &RgbaImage, u: f32, v: f32) -> Option<Rgba<u8>> {
    if !(0.0..1.0).contains(&u) || !(0.0..1.0).contains(&v) {
        return None;
    }
    let (width, height) = cutout.dimensions();
    cutout.get_pixel_checked((u * width as f32) as u32, (v * height as f32) as u32).copied()
}

#[cfg(test)]
mod tests {
    use image::{Rgba, RgbaImage};

    use super::{Ground, Pose, draw};

    #[test]
    fn a_quarter_turn_clockwise_brings_the_left_half_to_the_top() {
        // White on the left, nothing on the right.
        let cutout = RgbaImage::from_fn(8, 8, |x, _| Rgba([255, 255, 255, if x < 4 { 255 } else { 0 }]));
        let ground = Ground([[0.0; 3]; 4]);
        let show = |angle: f32| {
            let mut canvas = ground.canvas(16);
            draw(&mut canvas, &cutout, Pose { centre: [0.5, 0.5], size: 0.5, angle });
            let lit = |x: u32, y: u32| canvas.get_pixel(x, y).0[0] > 128;
            [lit(5, 8), lit(10, 8), lit(8, 5), lit(8, 10), lit(1, 1)]
        };
        // Left, right, top, bottom, outside; the middle row and column touch both halves.
        let still = show(0.0);
        assert!(still[0] && !still[1] && !still[4]);
        let turned = show(std::f32::consts::FRAC_PI_2);
        assert!(turned[2] && !turned[3] && !turned[4], "{turned:?}");
    }
}
