//! How often the best-scored class is the right one.

use serde::{Deserialize, Serialize};

use super::calibration::{expected_calibration_error, negative_log_likelihood};
use crate::error::{Error, Result};

/// Probabilities of one row of scores.
pub fn softmax(logits: &[f32]) -> Vec<f32> {
    let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut shares: Vec<f32> = logits.iter().map(|logit| (logit - greatest).exp()).collect();
    let sum: f32 = shares.iter().sum();
    shares.iter_mut().for_each(|share| *share /= sum);
    shares
}

/// The `count` most probable classes with their probabilities, best first; of equal ones the first.
pub fn most_probable(logits: &[f32], count: usize) -> Vec<(usize, f32)> {
    let mut shares: Vec<(usize, f32)> = softmax(logits).into_iter().enumerate().collect();
    shares.sort_by(|left, right| right.1.total_cmp(&left.1));
    shares.truncate(count);
    shares
}

/// What one evaluation measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Share of examples whose best-scored class is the right one, 0 to 1.
    pub accuracy: f64,
    /// Number of examples.
    pub n: usize,
    /// Accuracy of the examples of each class; `None` for a class without examples.
    pub per_class: Vec<Option<f64>>,
    /// Mean of the F1 scores of the classes that occur as label or prediction.
    pub macro_f1: f64,
    /// Expected calibration error over 15 bins, 0 to 1.
    pub ece: f64,
    /// Mean negative log-likelihood in nats.
    pub nll: f64,
}

impl Metrics {
    /// Measures logits `[n, classes]`, already scaled, against `n` labels.
    ///
    /// # Errors
    /// [`Error::Invalid`] for no examples, a value that is not finite or a label out of range; [`Error::Mismatch`] for
    /// a wrong length.
    pub fn from_logits(logits: &[f32], classes: usize, labels: &[usize]) -> Result<Self> {
        let predicted = predictions(logits, classes, labels)?;
        let table = confusion(&predicted, labels, classes);
        Ok(Self {
            accuracy: accuracy(&predicted, labels),
            n: labels.len(),
            per_class: per_class_accuracy(&table),
            macro_f1: macro_f1(&table),
            ece: expected_calibration_error(logits, classes, labels)?,
            nll: negative_log_likelihood(logits, classes, labels)?,
        })
    }
}

/// Checks that `logits` is `[n, classes]` of finite values and that `n` labels name its columns.
pub(super) fn check(logits: &[f32], classes: usize, labels: &[usize]) -> Result<()> {
    if classes == 0 || labels.is_empty() {
        let reason =
            format!("there must be something to measure, found {} examples of {classes} classes", labels.len());
        return Err(Error::invalid("metrics", reason));
    }
    if labels.len().checked_mul(classes) != Some(logits.len()) {
        let expected = format!("{} x {classes} values", labels.len());
        return Err(Error::mismatch("logits", expected, format!("{} values", logits.len())));
    }
    if let Some((row, label)) = labels.iter().enumerate().find(|&(_, &label)| label >= classes) {
        return Err(Error::invalid("labels", format!("row {row} has label {label}, there are {classes} classes")));
    }
    if let Some(at) = logits.iter().position(|logit| !logit.is_finite()) {
        return Err(Error::invalid("logits", format!("row {} holds {}", at / classes, logits[at])));
    }
    Ok(())
}

/// The class of the greatest logit of each row of `[n, classes]`; of equal ones the first.
///
/// # Errors
/// As [`Metrics::from_logits`].
pub fn predictions(logits: &[f32], classes: usize, labels: &[usize]) -> Result<Vec<usize>> {
    check(logits, classes, labels)?;
    let best = |row: &[f32]| (1..classes).fold(0, |best, class| if row[class] > row[best] { class } else { best });
    Ok(logits.chunks_exact(classes).map(best).collect())
}

/// Share of predictions that equal their labels; 0 when there are none.
pub fn accuracy(predicted: &[usize], labels: &[usize]) -> f64 {
    let right = predicted.iter().zip(labels).filter(|(predicted, label)| predicted == label).count();
    right as f64 / labels.len().max(1) as f64
}

/// Counts of `[true class][predicted class]`. Labels and predictions beyond `classes` are not counted.
pub fn confusion(predicted: &[usize], labels: &[usize], classes: usize) -> Vec<Vec<usize>> {
    let mut table = vec![vec![0; classes]; classes];
    for (&predicted, &label) in predicted.iter().zip(labels) {
        if let Some(count) = table.get_mut(label).and_then(|row| row.get_mut(predicted)) {
            *count += 1;
        }
    }
    table
}

/// Accuracy of each row of a confusion matrix; `None` for a class without examples.
pub fn per_class_accuracy(confusion: &[Vec<usize>]) -> Vec<Option<f64>> {
    let share = |(class, row): (usize, &Vec<usize>)| {
        let total: usize = row.iter().sum();
        (total > 0).then(|| row[class] as f64 / total as f64)
    };
    confusion.iter().enumerate().map(share).collect()
}

/// Mean F1 of the classes of a confusion matrix that occur as label or prediction; 0 when none does.
pub fn macro_f1(confusion: &[Vec<usize>]) -> f64 {
    let scores: Vec<f64> = (0..confusion.len())
        .filter_map(|class| {
            let labelled: usize = confusion[class].iter().sum();
            let predicted: usize = confusion.iter().map(|row| row[class]).sum();
            let both = labelled + predicted;
            (both > 0).then(|| 2.0 * confusion[class][class] as f64 / both as f64)
        })
        .collect();
    scores.iter().sum::<f64>() / scores.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::{Metrics, confusion};

    #[test]
    fn four_rows_by_hand() {
        // Predicted 0, 1, 1, 0 (the tie of the last row goes to the first); labels 0, 1, 0, 0; class 2 never occurs.
        let logits = [2.0, 1.0, 0.0, 0.0, 3.0, 1.0, 1.0, 2.0, 0.0, 5.0, 5.0, 1.0];
        let metrics = Metrics::from_logits(&logits, 3, &[0, 1, 0, 0]).unwrap();
        assert_eq!((metrics.accuracy, metrics.n), (0.75, 4));
        assert_eq!(metrics.per_class, [Some(2.0 / 3.0), Some(1.0), None]);
        // F1: class 0 has 2 * 2 / (3 + 2) = 0.8, class 1 has 2 * 1 / (1 + 2) = 2/3.
        assert!((metrics.macro_f1 - (0.8 + 2.0 / 3.0) / 2.0).abs() < 1e-12);
        assert_eq!(confusion(&[0, 1, 1, 0], &[0, 1, 0, 0], 3), [[2, 1, 0], [0, 1, 0], [0, 0, 0]]);
    }

    #[test]
    fn a_report_has_its_keys_and_comes_back() {
        let metrics = Metrics::from_logits(&[1.0, 0.0], 2, &[0]).unwrap();
        let json = serde_json::to_value(&metrics).unwrap();
        assert!(["accuracy", "n", "per_class", "ece"].iter().all(|key| json.get(key).is_some()));
        assert_eq!(serde_json::from_value::<Metrics>(json).unwrap(), metrics);
    }

    #[test]
    fn wrong_shapes_labels_and_values_are_refused() {
        for (logits, classes, labels) in [
            (vec![], 2, vec![]),
            (vec![1.0; 3], 2, vec![0]),
            (vec![1.0; 2], 2, vec![2]),
            (vec![1.0, f32::NAN], 2, vec![0]),
            (vec![f32::INFINITY, 1.0], 2, vec![0]),
        ] {
            assert!(Metrics::from_logits(&logits, classes, &labels).is_err(), "{logits:?} {labels:?}");
        }
    }
}
