//! The maximum mean discrepancy with a permutation test (Gretton et al., 2012).

use inarch_core::Seed;
use serde::{Deserialize, Serialize};

/// The outcome of the test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MeanDiscrepancy {
    /// The squared discrepancy, unbiased.
    pub statistic: f64,
    /// Share of permutations with at least that much.
    pub p_value: f64,
}

impl MeanDiscrepancy {
    /// Compares `[rows, dim]` samples under a Gaussian kernel whose width is the median distance.
    pub fn test(left: &[f32], right: &[f32], dim: usize, permutations: usize, seed: Seed) -> Self {
        let rows: Vec<&[f32]> = left.chunks_exact(dim).chain(right.chunks_exact(dim)).collect();
        let (count, first) = (rows.len(), left.len() / dim.max(1));
        let mut squares = vec![0.0f64; count * count];
        for row in 0..count {
            for other in 0..row {
                let square: f64 = rows[row].iter().zip(rows[other]).map(|(a, b)| f64::from(a - b).powi(2)).sum();
                squares[row * count + other] = square;
                squares[other * count + row] = square;
            }
        }
        let mut sorted: Vec<f64> =
            (0..count).flat_map(|row| squares[row * count..row * count + row].to_vec()).collect();
        sorted.sort_by(f64::total_cmp);
        let median = sorted.get(sorted.len() / 2).copied().unwrap_or(1.0).max(1e-12);
        let kernel: Vec<f64> = squares.iter().map(|square| (-square / median).exp()).collect();
        let statistic = discrepancy(&kernel, &(0..count).collect::<Vec<_>>(), first);
        let as_great = (0..permutations)
            .filter(|permutation| discrepancy(&kernel, &seed.split(permutation).order(count), first) >= statistic)
            .count();
        Self { statistic, p_value: (as_great + 1) as f64 / (permutations + 1) as f64 }
    }
}

/// The unbiased estimate, with the first `first` of the ordered rows as one sample.
fn discrepancy(kernel: &[f64], order: &[usize], first: usize) -> f64 {
    let count = order.len();
    let (mut own, mut other, mut across) = (0.0, 0.0, 0.0);
    for (place, row) in order.iter().enumerate() {
        for (second, column) in order.iter().enumerate().take(place) {
            let value = kernel[row * count + column];
            match (place < first, second < first) {
                (true, true) => own += value,
                (false, false) => other += value,
                _ => across += value,
            }
        }
    }
    let (n, m) = (first as f64, (count - first) as f64);
    2.0 * own / (n * (n - 1.0)).max(1.0) + 2.0 * other / (m * (m - 1.0)).max(1.0) - 2.0 * across / (n * m).max(1.0)
}

#[cfg(test)]
mod tests {
    use inarch_core::Seed;

    use super::MeanDiscrepancy;

    #[test]
    fn a_shift_is_found_and_none_is_not() {
        let draw = |seed: u64, shift: f32| -> Vec<f32> {
            Seed::new(seed).normals(60 * 4, 1.0).into_iter().map(|value| value + shift).collect()
        };
        let test = |right: &[f32]| MeanDiscrepancy::test(&draw(1, 0.0), right, 4, 100, Seed::new(3));
        assert!(test(&draw(2, 1.0)).p_value < 0.02);
        assert!(test(&draw(2, 0.0)).p_value > 0.05);
    }
}
