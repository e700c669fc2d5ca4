//! Whether a score means what it says.

use super::classification::check;
use crate::error::Result;

/// Number of bins of [`expected_calibration_error`], the field's custom.
pub const ECE_BINS: usize = 15;

/// The greatest factor on logits; answers that are all right would ask for ever more.
const GREATEST_FACTOR: f64 = 100.0;

/// Expected calibration error of the softmax of logits `[n, classes]`, already scaled: the mean over the examples of
/// |accuracy - confidence| of the bin that an example's confidence falls into, with 15 bins of equal width, each
/// including its upper end.
///
/// # Errors
/// As [`super::Metrics::from_logits`].
///
/// # Reference
/// Guo et al. 2017, arXiv 1706.04599, equation 3.
pub fn expected_calibration_error(logits: &[f32], classes: usize, labels: &[usize]) -> Result<f64> {
    check(logits, classes, labels)?;
    // Per bin: right answers minus confidences; its size cancels against the weight of the bin.
    let mut gaps = [0.0; ECE_BINS];
    for (row, &label) in logits.chunks_exact(classes).zip(labels) {
        let best = (1..classes).fold(0, |best, class| if row[class] > row[best] { class } else { best });
        let confidence = (f64::from(row[best]) - log_sum_exp(row)).exp();
        let bin = ((confidence * ECE_BINS as f64).ceil() as usize).clamp(1, ECE_BINS) - 1;
        gaps[bin] += f64::from(u8::from(best == label)) - confidence;
    }
    Ok(gaps.iter().map(|gap| gap.abs()).sum::<f64>() / labels.len() as f64)
}

/// Mean negative log-likelihood, in nats, of the labels under the softmax of logits `[n, classes]`.
///
/// # Errors
/// As [`super::Metrics::from_logits`].
pub fn negative_log_likelihood(logits: &[f32], classes: usize, labels: &[usize]) -> Result<f64> {
    check(logits, classes, labels)?;
    let rows = logits.chunks_exact(classes).zip(labels);
    let total: f64 = rows.map(|(row, &label)| log_sum_exp(row) - f64::from(row[label])).sum();
    Ok(total / labels.len() as f64)
}

/// The factor on logits `[n, classes]` under which the labels are likeliest, the inverse of the temperature: the least
/// negative log-likelihood, which is convex in it, from 1/100 to 100.
///
/// # Errors
/// As [`super::Metrics::from_logits`].
///
/// # Reference
/// Guo et al. 2017, arXiv 1706.04599, section 4.2.
pub fn likeliest_factor(logits: &[f32], classes: usize, labels: &[usize]) -> Result<f64> {
    check(logits, classes, labels)?;
    // The derivative by the factor: how much greater than the label's logit the expected one is.
    let slope = |factor: f64| -> f64 {
        let rows = logits.chunks_exact(classes).zip(labels);
        let gaps = rows.map(|(row, &label)| {
            let greatest = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            let (mut sum, mut weighted) = (0.0, 0.0);
            for &logit in row {
                let below = f64::from(logit) - greatest;
                let weight = (factor * below).exp();
                sum += weight;
                weighted += weight * below;
            }
            weighted / sum - (f64::from(row[label]) - greatest)
        });
        gaps.sum()
    };
    let (mut low, mut high) = (-GREATEST_FACTOR.ln(), GREATEST_FACTOR.ln());
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if slope(middle.exp()) < 0.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok(((low + high) / 2.0).exp())
}

fn log_sum_exp(row: &[f32]) -> f64 {
    let greatest = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    greatest + row.iter().map(|&logit| (f64::from(logit) - greatest).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::{expected_calibration_error, likeliest_factor, negative_log_likelihood};

    /// Logits of two classes whose softmax is (p, 1 - p).
    fn row(p: f32) -> [f32; 2] {
        [p.ln(), (1.0 - p).ln()]
    }

    #[test]
    fn five_confidences_by_hand() {
        // Confidences 0.9, 0.62 and 0.75 lie in three bins: (13/15, 14/15], (9/15, 10/15] and (11/15, 12/15].
        let logits = [row(0.9), row(0.9), row(0.62), row(0.62), row(0.75)].concat();
        // Right: 1 of 2 at 0.9, 2 of 2 at 0.62, 0 of 1 at 0.75.
        let ece = expected_calibration_error(&logits, 2, &[0, 1, 0, 0, 1]).unwrap();
        let expected = 0.4 * (0.5_f64 - 0.9).abs() + 0.4 * (1.0_f64 - 0.62).abs() + 0.2 * 0.75;
        assert!((ece - expected).abs() < 1e-6, "{ece} {expected}");
    }

    #[test]
    fn opposite_errors_cancel_only_within_a_bin() {
        let same = [row(0.9), row(0.9)].concat();
        let other = [row(0.9), row(0.7)].concat();
        assert!((expected_calibration_error(&same, 2, &[0, 1]).unwrap() - 0.4).abs() < 1e-6);
        assert!((expected_calibration_error(&other, 2, &[0, 1]).unwrap() - (0.1 + 0.7) / 2.0).abs() < 1e-6);
    }

    #[test]
    fn three_of_four_right_are_sure_by_three_quarters() {
        let logits = [2.0f32, 0.0].repeat(4);
        let factor = likeliest_factor(&logits, 2, &[0, 0, 0, 1]).unwrap();
        assert!((factor - 3f64.ln() / 2.0).abs() < 1e-9, "{factor}");
        let scaled: Vec<f32> = logits.iter().map(|logit| logit * factor as f32).collect();
        assert!(expected_calibration_error(&scaled, 2, &[0, 0, 0, 1]).unwrap() < 1e-6);
        assert!((likeliest_factor(&logits, 2, &[0; 4]).unwrap() - 100.0).abs() < 1e-9);
        assert!((likeliest_factor(&logits, 2, &[1; 4]).unwrap() - 0.01).abs() < 1e-9);
        assert!(likeliest_factor(&logits, 2, &[2; 4]).is_err());
    }

    #[test]
    fn certainty_and_great_logits_are_exact() {
        assert_eq!(expected_calibration_error(&[1000.0, -1000.0], 2, &[0]).unwrap(), 0.0);
        assert_eq!(negative_log_likelihood(&[1000.0, -1000.0], 2, &[1]).unwrap(), 2000.0);
        let nll = negative_log_likelihood(&[0.0, 0.0, 0.0, 0.0], 2, &[0, 1]).unwrap();
        assert!((nll - std::f64::consts::LN_2).abs() < 1e-12);
    }
}
