//! Whether a score means what it says.

use super::classification::check;
use crate::error::Result;

/// Number of bins of [`expected_calibration_error`], the field's custom.
pub const ECE_BINS: usize = 15;

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

fn log_sum_exp(row: &[f32]) -> f64 {
    let greatest = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    greatest + row.iter().map(|&logit| (f64::from(logit) - greatest).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::{expected_calibration_error, negative_log_likelihood};

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
    fn certainty_and_great_logits_are_exact() {
        assert_eq!(expected_calibration_error(&[1000.0, -1000.0], 2, &[0]).unwrap(), 0.0);
        assert_eq!(negative_log_likelihood(&[1000.0, -1000.0], 2, &[1]).unwrap(), 2000.0);
        let nll = negative_log_likelihood(&[0.0, 0.0, 0.0, 0.0], 2, &[0, 1]).unwrap();
        assert!((nll - std::f64::consts::LN_2).abs() < 1e-12);
    }
}
