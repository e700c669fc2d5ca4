//! The two-sample Kolmogorov-Smirnov test, feature by feature.

use serde::{Deserialize, Serialize};

/// The outcome of a test of each feature.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct KolmogorovSmirnov {
    /// The feature that differs most.
    pub feature: usize,
    /// Its greatest difference of distribution functions.
    pub statistic: f64,
    /// Its p-value times the number of features (Bonferroni), at most 1.
    pub p_value: f64,
}

impl KolmogorovSmirnov {
    /// Compares the columns of `[rows, dim]` samples.
    pub fn test(left: &[f32], right: &[f32], dim: usize) -> Self {
        let column = |rows: &[f32], feature: usize| {
            let mut values: Vec<f32> = rows.iter().skip(feature).step_by(dim).copied().collect();
            values.sort_by(f32::total_cmp);
            values
        };
        let mut worst = Self { feature: 0, statistic: 0.0, p_value: 1.0 };
        for feature in 0..dim {
            let (left, right) = (column(left, feature), column(right, feature));
            let statistic = distance(&left, &right);
            let p_value = (probability(statistic, left.len(), right.len()) * dim as f64).min(1.0);
            if statistic > worst.statistic {
                worst = Self { feature, statistic, p_value };
            }
        }
        worst
    }
}

/// The greatest difference of the distribution functions of two sorted samples.
fn distance(left: &[f32], right: &[f32]) -> f64 {
    let (mut i, mut j, mut greatest) = (0, 0, 0.0f64);
    while i < left.len() && j < right.len() {
        let value = left[i].min(right[j]);
        while i < left.len() && left[i] <= value {
            i += 1;
        }
        while j < right.len() && right[j] <= value {
            j += 1;
        }
        greatest = greatest.max((i as f64 / left.len() as f64 - j as f64 / right.len() as f64).abs());
    }
    greatest
}

/// The asymptotic p-value, with Stephens' correction for small samples.
fn probability(statistic: f64, left: usize, right: usize) -> f64 {
    let size = (left * right) as f64 / (left + right).max(1) as f64;
    let lambda = (size.sqrt() + 0.12 + 0.11 / size.sqrt()) * statistic;
    if lambda < 0.2 {
        return 1.0;
    }
    let sum: f64 = (1..=100)
        .map(|k| {
            let k = f64::from(k);
            let sign = if k % 2.0 == 1.0 { 1.0 } else { -1.0 };
            sign * (-2.0 * k * k * lambda * lambda).exp()
        })
        .sum();
    (2.0 * sum).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::{KolmogorovSmirnov, distance, probability};

    #[test]
    fn distances_and_probabilities_are_those_of_the_tables() {
        assert!((distance(&[1.0, 2.0, 3.0, 4.0], &[3.0, 4.0, 5.0, 6.0]) - 0.5).abs() < 1e-12);
        assert!(distance(&[1.0, 1.0, 2.0], &[1.0, 1.0, 2.0]).abs() < 1e-12);
        // The critical value of D at 5 % for n = m = 100 is 1.358 sqrt(2 / 100) = 0.192.
        assert!((probability(0.192, 100, 100) - 0.05).abs() < 0.008, "{}", probability(0.192, 100, 100));
        let left: Vec<f32> = (0..200).flat_map(|at| [at as f32, (at % 10) as f32]).collect();
        let right: Vec<f32> = (0..200).flat_map(|at| [at as f32 + 120.0, (at % 10) as f32]).collect();
        let worst = KolmogorovSmirnov::test(&left, &right, 2);
        assert!(worst.feature == 0 && worst.p_value < 1e-6, "{worst:?}");
    }
}
