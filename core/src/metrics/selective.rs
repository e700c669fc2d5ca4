//! What is won by not answering when unsure.

use serde::{Deserialize, Serialize};

use super::classification::{predictions, softmax};
use crate::error::Result;

/// The thresholds of a report.
const THRESHOLDS: [f64; 9] = [0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99];

/// The shares of a report.
const SHARES: [f64; 4] = [1.0, 0.9, 0.8, 0.5];

/// Accuracy of the answers that are given when the others are withheld (El-Yaniv and Wiener, 2010).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Selective {
    /// Area under the curve of risk over coverage, 0 to 1: the mean error rate of the `k` surest answers over all `k`.
    pub risk_coverage_area: f64,
    /// What some thresholds give.
    pub points: Vec<SelectivePoint>,
    /// What answering some shares of the examples gives; reports of older versions have none.
    #[serde(default)]
    pub surest: Vec<SurestPoint>,
}

/// What answering a share of the examples gives, those with the highest probability.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SurestPoint {
    /// Share of the examples that shall be answered at least.
    pub share: f64,
    /// The lowest probability among their answers, which is the threshold that answers them.
    pub threshold: f64,
    /// Share that is answered: more where others are as sure as the last.
    pub coverage: f64,
    /// Accuracy of the answers.
    pub accuracy: f64,
}

/// What one threshold gives.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SelectivePoint {
    /// Answers with a lower probability are withheld.
    pub threshold: f64,
    /// Share of the examples that are answered.
    pub coverage: f64,
    /// Accuracy of the answers; `None` when there are none.
    pub accuracy: Option<f64>,
}

impl Selective {
    /// Measures logits `[n, classes]`, already scaled, against `n` labels; `further` thresholds are added to the customary
    /// ones.
    ///
    /// # Errors
    /// As [`super::Metrics::from_logits`].
    pub fn from_logits(logits: &[f32], classes: usize, labels: &[usize], further: Option<f64>) -> Result<Self> {
        let predicted = predictions(logits, classes, labels)?;
        let mut answers: Vec<(f64, bool)> = logits
            .chunks_exact(classes)
            .zip(predicted.iter().zip(labels))
            .map(|(row, (predicted, label))| (f64::from(softmax(row)[*predicted]), predicted == label))
            .collect();
        answers.sort_by(|left, right| right.0.total_cmp(&left.0));
        let mut thresholds: Vec<f64> = THRESHOLDS.into_iter().chain(further).collect();
        thresholds.sort_by(f64::total_cmp);
        thresholds.dedup();
        let points = thresholds.into_iter().map(|threshold| {
            let given: Vec<bool> =
                answers.iter().take_while(|(surety, _)| *surety >= threshold).map(|(_, right)| *right).collect();
            let right = given.iter().filter(|right| **right).count();
            SelectivePoint {
                threshold,
                coverage: given.len() as f64 / answers.len() as f64,
                accuracy: (!given.is_empty()).then(|| right as f64 / given.len() as f64),
            }
        });
        let surest = SHARES.into_iter().map(|share| surest(&answers, share)).collect();
        Ok(Self { points: points.collect(), surest, risk_coverage_area: area(&answers) })
    }
}

/// The answers that a share of the examples gets; there is at least one, and the surest come first.
fn surest(answers: &[(f64, bool)], share: f64) -> SurestPoint {
    // Nine tenths of ten are not ten because of the last bit.
    let wanted = (share * answers.len() as f64 - 1e-9).ceil() as usize;
    let threshold = answers[wanted.clamp(1, answers.len()) - 1].0;
    let given = answers.partition_point(|(surety, _)| *surety >= threshold);
    let right = answers[..given].iter().filter(|(_, right)| *right).count();
    let coverage = given as f64 / answers.len() as f64;
    SurestPoint { share, threshold, coverage, accuracy: right as f64 / given as f64 }
}

/// Mean error rate of the surest answers; equally sure ones come in together.
fn area(answers: &[(f64, bool)]) -> f64 {
    let (mut seen, mut wrong, mut sum) = (0.0, 0.0, 0.0);
    for group in answers.chunk_by(|left, right| left.0 == right.0) {
        seen += group.len() as f64;
        wrong += group.iter().filter(|(_, right)| !right).count() as f64;
        sum += group.len() as f64 * wrong / seen;
    }
    sum / answers.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::Selective;

    #[test]
    fn four_answers_by_hand() {
        let row = |p: f32| [p.ln(), (1.0 - p).ln()];
        // Sureties 0.97 right, 0.85 wrong, 0.65 right, 0.55 wrong.
        let logits = [row(0.97), row(0.15), row(0.65), row(0.55)].concat();
        let found = Selective::from_logits(&logits, 2, &[0, 0, 0, 1], Some(0.86)).unwrap();
        let at = |threshold: f64| {
            let point = found.points.iter().find(|point| point.threshold == threshold).unwrap();
            (point.coverage, point.accuracy)
        };
        assert_eq!(at(0.0), (1.0, Some(0.5)));
        assert_eq!(at(0.6), (0.75, Some(2.0 / 3.0)));
        assert_eq!(at(0.8), (0.5, Some(0.5)));
        assert_eq!(at(0.86), (0.25, Some(1.0)));
        assert_eq!(at(0.99), (0.0, None));
        let expected = (0.0 + 0.5 + 1.0 / 3.0 + 0.5) / 4.0;
        assert!((found.risk_coverage_area - expected).abs() < 1e-12);
        // 3.6 and 3.2 answers are four.
        let surest: Vec<_> = found.surest.iter().map(|point| (point.share, point.coverage, point.accuracy)).collect();
        assert_eq!(surest, [(1.0, 1.0, 0.5), (0.9, 1.0, 0.5), (0.8, 1.0, 0.5), (0.5, 0.5, 0.5)]);
        assert!((found.surest[3].threshold - 0.85).abs() < 1e-6 && (found.surest[0].threshold - 0.55).abs() < 1e-6);
    }

    #[test]
    fn equally_sure_answers_come_in_together() {
        let row = |p: f32| [p.ln(), (1.0 - p).ln()];
        let sureties = [0.95, 0.9, 0.9, 0.9, 0.8, 0.7, 0.7, 0.65, 0.6, 0.55];
        let logits: Vec<f32> = sureties.into_iter().flat_map(row).collect();
        let found = Selective::from_logits(&logits, 2, &[0, 0, 0, 1, 0, 1, 0, 0, 0, 1], None).unwrap();
        let surest: Vec<_> = found.surest.iter().map(|point| (point.coverage, point.accuracy)).collect();
        assert_eq!(surest, [(1.0, 0.7), (0.9, 7.0 / 9.0), (0.8, 0.75), (0.5, 0.8)]);
        let half = Selective::from_logits(&logits[..8], 2, &[0, 0, 0, 1], None).unwrap().surest[3];
        assert_eq!((half.coverage, half.accuracy), (1.0, 0.75));
    }
}
