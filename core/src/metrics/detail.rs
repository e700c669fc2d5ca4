//! What a report says beyond accuracy: ranking of each class, balance, abstention.

use std::collections::BTreeSet;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::classification::{check, confusion, per_class_accuracy, predictions};
use super::ranking::{ClassRanking, RankingConfig};
use super::selective::Selective;
use crate::error::{Error, Result};

/// Most draws for the intervals of all classes together; larger sets are given fewer resamples, at least 100.
const MAX_DRAWS: usize = 200_000_000;

/// How the measures of a report are taken.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct DetailConfig {
    /// How classes are ranked.
    pub ranking: RankingConfig,
    /// A threshold of probability below which answers are withheld, beside the customary ones.
    pub abstain: Option<f64>,
}

/// What a report says beyond accuracy. Classes are ranked by their log-probability under the softmax (for several labels an
/// image by their score), each against all others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Detail {
    /// Mean of the classes' accuracies; `None` for images with several labels.
    pub balanced_accuracy: Option<f64>,
    /// Mean over the classes of the area under the ROC curve, one class against the others; for two classes that of either.
    pub auroc: Option<f64>,
    /// Mean over the classes of average precision.
    pub mean_average_precision: Option<f64>,
    /// The specificity that `sensitivity` of `ranking` is given at.
    pub specificity: f64,
    /// Bootstrap resamples behind the intervals, which hold 95 % of them.
    pub resamples: usize,
    /// How many groups (patients) a resample draws in place of examples; `None` where no group has several examples.
    pub resampled_groups: Option<usize>,
    /// Each class against all others, in the order of the classes; `None` where there are none or nothing else.
    pub ranking: Vec<Option<ClassRanking>>,
    /// Accuracy when unsure answers are withheld; `None` for images with several labels.
    pub selective: Option<Selective>,
}

impl Detail {
    /// Measures logits `[n, classes]`, already scaled, against `n` labels. `groups` has the number of each example's group,
    /// whose examples are drawn together for the intervals.
    ///
    /// # Errors
    /// As [`super::Metrics::from_logits`], [`Error::Mismatch`] for another number of groups, and [`Error::Invalid`] for a
    /// specificity outside 0 to 1.
    pub fn from_logits(
        logits: &[f32],
        classes: usize,
        labels: &[usize],
        groups: Option<&[usize]>,
        config: DetailConfig,
    ) -> Result<Self> {
        check(logits, classes, labels)?;
        // In single precision at last, so that equal rows tie whatever the order of their sums.
        let scores: Vec<f32> = logits.chunks_exact(classes).flat_map(log_probabilities).collect();
        let score = |row: usize, class: usize| f64::from(scores[row * classes + class]);
        let positive = |row: usize, class: usize| labels[row] == class;
        let mut detail = Self::ranked([labels.len(), classes], &score, &positive, groups, config)?;
        let table = confusion(&predictions(logits, classes, labels)?, labels, classes);
        let recalls: Vec<f64> = per_class_accuracy(&table).into_iter().flatten().collect();
        detail.balanced_accuracy = Some(recalls.iter().sum::<f64>() / recalls.len().max(1) as f64);
        detail.selective = Some(Selective::from_logits(logits, classes, labels, config.abstain)?);
        Ok(detail)
    }

    /// Measures scores `[n, classes]` of examples with any number of labels: `truth` `[n, classes]` says which.
    ///
    /// # Errors
    /// As [`from_logits`](Self::from_logits).
    pub fn from_labels(
        scores: &[f32],
        classes: usize,
        truth: &[bool],
        groups: Option<&[usize]>,
        config: DetailConfig,
    ) -> Result<Self> {
        if truth.len() != scores.len() || classes == 0 || scores.is_empty() || !scores.len().is_multiple_of(classes) {
            let found = format!("{} labels", truth.len());
            return Err(Error::mismatch("labels", format!("{} in rows of {classes}", scores.len()), found));
        }
        if let Some(at) = scores.iter().position(|score| !score.is_finite()) {
            return Err(Error::invalid("scores", format!("row {} holds {}", at / classes, scores[at])));
        }
        let score = |row: usize, class: usize| f64::from(scores[row * classes + class]);
        let positive = |row: usize, class: usize| truth[row * classes + class];
        Self::ranked([scores.len() / classes, classes], &score, &positive, groups, config)
    }

    fn ranked(
        [rows, classes]: [usize; 2],
        score: &(dyn Fn(usize, usize) -> f64 + Sync),
        positive: &(dyn Fn(usize, usize) -> bool + Sync),
        groups: Option<&[usize]>,
        config: DetailConfig,
    ) -> Result<Self> {
        if let Some(groups) = groups.filter(|groups| groups.len() != rows) {
            return Err(Error::mismatch("groups", rows, groups.len()));
        }
        let grouped = groups.map(|groups| (groups, groups.iter().collect::<BTreeSet<_>>().len()));
        let grouped = grouped.filter(|(_, number)| *number < rows);
        let mut ranking = config.ranking;
        if !(0.0..=1.0).contains(&ranking.specificity) {
            return Err(Error::invalid("specificity", format!("must be 0 to 1, found {}", ranking.specificity)));
        }
        ranking.resamples = ranking.resamples.min((MAX_DRAWS / (rows * classes).max(1)).max(100));
        let one = |class: usize| {
            let scores: Vec<f64> = (0..rows).map(|row| score(row, class)).collect();
            let positive: Vec<bool> = (0..rows).map(|row| positive(row, class)).collect();
            match grouped {
                Some((groups, _)) => ClassRanking::grouped(&scores, &positive, groups, ranking),
                None => ClassRanking::of(&scores, &positive, ranking),
            }
        };
        let found: Vec<Option<ClassRanking>> = (0..classes).into_par_iter().map(one).collect();
        let mean = |of: fn(&ClassRanking) -> f64| {
            let values: Vec<f64> = found.iter().flatten().map(of).collect();
            (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
        };
        Ok(Self {
            balanced_accuracy: None,
            auroc: mean(|class| class.auroc.value),
            mean_average_precision: mean(|class| class.average_precision.value),
            specificity: ranking.specificity,
            resamples: ranking.resamples,
            resampled_groups: grouped.map(|(_, number)| number),
            ranking: found,
            selective: None,
        })
    }
}

fn log_probabilities(row: &[f32]) -> Vec<f32> {
    let greatest = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let shifted: Vec<f64> = row.iter().map(|&logit| f64::from(logit) - greatest).collect();
    let normaliser = shifted.iter().map(|logit| logit.exp()).sum::<f64>().ln();
    shifted.into_iter().map(|logit| (logit - normaliser) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::{Detail, DetailConfig};

    #[test]
    fn two_classes_have_one_area_and_balance_weighs_classes_alike() {
        let row = |p: f32| [p.ln(), (1.0 - p).ln()];
        let logits = [row(0.9), row(0.8), row(0.4), row(0.6), row(0.3)].concat();
        let found = Detail::from_logits(&logits, 2, &[0, 0, 0, 1, 1], None, DetailConfig::default()).unwrap();
        // Two of three and one of two are found; of six pairs one is the wrong way round.
        assert_eq!(found.balanced_accuracy, Some((2.0 / 3.0 + 0.5) / 2.0));
        assert!((found.auroc.unwrap() - 5.0 / 6.0).abs() < 1e-12);
        assert_eq!(found.ranking[0].as_ref().unwrap().auroc.value, found.ranking[1].as_ref().unwrap().auroc.value);
        assert!(found.ranking[0].as_ref().unwrap().auroc.interval.is_some());
        let mut wrong = DetailConfig::default();
        wrong.ranking.specificity = 1.5;
        assert!(Detail::from_logits(&logits, 2, &[0; 5], None, wrong).unwrap_err().to_string().contains("specificity"));
    }

    #[test]
    fn several_labels_an_image_rank_each_class_by_its_own() {
        let scores = [3.0, 1.0, 2.0, 2.0, 1.0, 3.0];
        let truth = [true, true, true, false, false, false];
        let found = Detail::from_labels(&scores, 2, &truth, None, DetailConfig::default()).unwrap();
        let area = |class: usize| found.ranking[class].as_ref().unwrap().auroc.value;
        assert_eq!((area(0), area(1), found.auroc), (1.0, 0.0, Some(0.5)));
        assert_eq!(found.mean_average_precision, Some((1.0 + 1.0 / 3.0) / 2.0));
        assert!(Detail::from_labels(&scores, 2, &truth[..5], None, DetailConfig::default()).is_err());
        let broken = [3.0, 1.0, 2.0, f32::NAN, 1.0, 3.0];
        let error = Detail::from_labels(&broken, 2, &truth, None, DetailConfig::default()).unwrap_err().to_string();
        assert!(error.contains("row 1 holds NaN"), "{error}");
    }
    #[test]
    fn groups_are_drawn_where_one_has_several_images() {
        let logits = [2.0, 1.0, 1.5, 0.5, 0.2, 1.0, 1.0, 1.2];
        let labels = [0, 1, 1, 0];
        let found = |groups: Option<&[usize]>| {
            Detail::from_logits(&logits, 2, &labels, groups, DetailConfig::default()).unwrap()
        };
        assert_eq!(found(Some(&[5, 9, 9, 2])).resampled_groups, Some(3));
        assert_eq!(found(Some(&[5, 1, 9, 2])), found(None));
        assert_eq!(found(None).resampled_groups, None);
        let short = Detail::from_logits(&logits, 2, &labels, Some(&[1, 2]), DetailConfig::default());
        assert!(short.unwrap_err().to_string().contains("groups: expected 4, found 2"));
    }
}
