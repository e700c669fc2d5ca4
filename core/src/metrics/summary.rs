//! Several runs in one number.

use serde::{Deserialize, Serialize};

/// Mean and spread over seeds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MeanStd {
    /// Arithmetic mean.
    pub mean: f64,
    /// Population standard deviation (divided by the number of values, as `np.std`).
    pub std: f64,
    /// Number of values.
    pub n: usize,
}

impl MeanStd {
    /// Summarises values; `None` when there are none.
    pub fn of(values: &[f64]) -> Option<Self> {
        if values.is_empty() {
            return None;
        }
        let n = values.len();
        let mean = values.iter().sum::<f64>() / n as f64;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n as f64;
        Some(Self { mean, std: variance.sqrt(), n })
    }
}

/// Harmonic mean of two accuracies, e.g. of base and new classes; 0 when both are 0.
pub fn harmonic_mean(base: f64, new: f64) -> f64 {
    if base + new > 0.0 { 2.0 * base * new / (base + new) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::{MeanStd, harmonic_mean};

    #[test]
    fn the_spread_is_that_of_the_population() {
        // Deviations -3, -1, -1, -1, 0, 0, 2, 4: squares sum to 32, over 8 values 4.
        let summary = MeanStd::of(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).unwrap();
        assert_eq!(summary, MeanStd { mean: 5.0, std: 2.0, n: 8 });
        assert_eq!(MeanStd::of(&[]), None);
    }

    #[test]
    fn the_harmonic_mean_leans_to_the_weaker() {
        assert!((harmonic_mean(0.8, 0.6) - 0.96 / 1.4).abs() < 1e-12);
        assert_eq!((harmonic_mean(0.9, 0.0), harmonic_mean(0.0, 0.0)), (0.0, 0.0));
    }
}
