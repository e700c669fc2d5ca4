//! How well the images of an experience explain an image: what is left of its feature when it is reconstructed from a mean
//! and a few directions.
//!
//! The reconstruction by the greatest directions of what varies is the best that a linear autoencoder of squared error
//! can do (Baldi and Hornik, 1989), without a training.

use nalgebra::{DMatrix, DVector};

use super::subspace::leading;

/// Below this, what is left of a feature of length 1 is rounding.
const ROUNDING: f64 = 1e-6;

/// What tells the images of an experience.
pub(super) struct Reconstruction {
    /// `[dim]`.
    pub(super) mean: Vec<f32>,
    /// `[code, dim]`, row-major, orthonormal; zeros where fewer directions vary.
    pub(super) directions: Vec<f32>,
    /// One over the squared distance up to which an image is taken to belong.
    pub(super) slope: f32,
}

/// A mean `[dim]` and directions `[dim, code]`.
struct Fit {
    mean: DVector<f64>,
    directions: DMatrix<f64>,
}

impl Fit {
    fn of(points: &[&Vec<f64>], code: usize) -> Self {
        let dim = points.first().map_or(0, |point| point.len());
        let count = points.len().max(1) as f64;
        let mean =
            points.iter().fold(DVector::zeros(dim), |sum, point| sum + DVector::from_column_slice(point)) / count;
        let columns: Vec<DVector<f64>> = points.iter().map(|point| DVector::from_column_slice(point) - &mean).collect();
        let apart = DMatrix::from_fn(dim, columns.len(), |row, at| columns[at][row]);
        let moment = &apart * apart.transpose();
        let total = moment.trace();
        Self { mean, directions: leading(&moment, total, code) }
    }

    /// The squared distance of a point to its reconstruction.
    fn left(&self, point: &[f64]) -> f64 {
        let apart = DVector::from_column_slice(point) - &self.mean;
        (apart.norm_squared() - (self.directions.transpose() * apart).norm_squared()).max(ROUNDING)
    }
}

impl Reconstruction {
    /// From points `[points][dim]`, of which the share `outside` may be taken not to belong. Each half is held against
    /// the other, so that the limit is that of images which did not make it.
    pub(super) fn of(points: &[Vec<f64>], code: usize, outside: f64) -> Self {
        let all: Vec<&Vec<f64>> = points.iter().collect();
        let half = |parity: usize| -> Vec<&Vec<f64>> { points.iter().skip(parity).step_by(2).collect() };
        let halves = [half(0), half(1)];
        let mut left: Vec<f64> = match halves[1].len() {
            0 | 1 => all.iter().map(|point| Fit::of(&all, code).left(point)).collect(),
            _ => [(0, 1), (1, 0)]
                .into_iter()
                .flat_map(|(made, held)| {
                    let fit = Fit::of(&halves[made], code);
                    halves[held].iter().map(|point| fit.left(point)).collect::<Vec<f64>>()
                })
                .collect(),
        };
        left.sort_by(f64::total_cmp);
        let within = ((1.0 - outside) * left.len() as f64).ceil() as usize;
        let limit = left.get(within.clamp(1, left.len().max(1)) - 1).copied().unwrap_or(ROUNDING);
        let Fit { mean, directions } = Fit::of(&all, code);
        let narrow = |values: &[f64]| values.iter().map(|value| *value as f32).collect();
        // Columns lie one behind the other, which are the rows of the transpose.
        Self { mean: narrow(mean.as_slice()), directions: narrow(directions.as_slice()), slope: (1.0 / limit) as f32 }
    }
}

#[cfg(test)]
mod tests {
    use inarch_core::Seed;

    use super::Reconstruction;

    const DIM: usize = 6;

    /// Points around `centre` that vary in two directions, and a little in all.
    fn points(seed: u64, centre: usize, count: usize) -> Vec<Vec<f64>> {
        let draw = |at: usize, name: &str, many: usize| Seed::new(seed).split(name).split(at).normals(many, 1.0);
        let point = |at: usize| {
            let (wide, little) = (draw(at, "wide", 2), draw(at, "little", DIM));
            let value = |axis: usize| {
                let wide = if axis < 2 { f64::from(wide[axis]) } else { 0.0 };
                f64::from(u8::from(axis == centre)) * 5.0 + wide + 0.1 * f64::from(little[axis])
            };
            (0..DIM).map(value).collect()
        };
        (0..count).map(point).collect()
    }

    fn score(own: &Reconstruction, point: &[f64]) -> f64 {
        let apart: Vec<f64> = point.iter().zip(&own.mean).map(|(value, mean)| value - f64::from(*mean)).collect();
        let square = apart.iter().map(|value| value * value).sum::<f64>();
        let within: f64 = own
            .directions
            .chunks(DIM)
            .map(|row| row.iter().zip(&apart).map(|(a, b)| f64::from(*a) * b).sum::<f64>().powi(2))
            .sum();
        (square - within) * f64::from(own.slope)
    }

    #[test]
    fn own_images_are_told_from_others_and_a_share_of_them_is_left_outside() {
        let [own, fresh, other] = [(1, 3, 400), (2, 3, 400), (3, 4, 400)].map(|(seed, at, n)| points(seed, at, n));
        for outside in [0.0, 0.05, 0.3] {
            let found = Reconstruction::of(&own, 2, outside);
            let beyond = |points: &[Vec<f64>]| {
                points.iter().filter(|point| score(&found, point) > 1.0).count() as f64 / points.len() as f64
            };
            assert!((beyond(&fresh) - outside).abs() < 0.05, "{outside}: {}", beyond(&fresh));
            assert_eq!(beyond(&other), 1.0, "{outside}");
        }
        // Where it varies is not what tells an image.
        let found = Reconstruction::of(&own, 2, 0.05);
        let mut far = own[0].clone();
        far[0] += 20.0;
        assert!(score(&found, &far) < score(&found, &other[0]));
    }

    #[test]
    fn few_images_do() {
        for count in 1..5 {
            let found = Reconstruction::of(&points(4, 2, count), 4, 0.05);
            assert_eq!((found.mean.len(), found.directions.len()), (DIM, 4 * DIM));
            assert!(found.slope.is_finite() && found.slope > 0.0, "{count}: {}", found.slope);
            assert!(found.directions.iter().all(|value| value.is_finite()));
        }
    }
}
