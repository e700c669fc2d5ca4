//! Training on classes of unequal size, and on images with several labels.

use inarch_core::Seed;
use inarch_core::data::Example;
use inarch_peft::{Judgement, Several};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What is done about classes of unequal size.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Imbalance {
    /// Nothing.
    #[default]
    None,
    /// Batches hold the classes in equal shares; images of small classes come more often.
    BalancedSampling,
    /// Each class weighs in the loss as the inverse of its size, `n / (classes n_c)`; of several labels the positives weigh
    /// `(n - n_c) / n_c`.
    ClassWeights,
    /// `tau log prior` is added to the scores in training, so that what is learned is best for classes of equal size (Menon
    /// et al., 2021, arXiv 2007.07314); the value is `tau`, 1 in the paper.
    LogitAdjustment(f64),
}

impl Imbalance {
    /// Whether it is the default, which a recipe does not mention.
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::None
    }

    /// Checks the value.
    pub(crate) fn check(self) -> Result<(), String> {
        match self {
            Self::LogitAdjustment(tau) if !(tau.is_finite() && tau > 0.0) => {
                Err(format!("`logit-adjustment` must be above 0, found {tau}"))
            }
            _ => Ok(()),
        }
    }
}

/// How the steps of a run are judged.
#[derive(Debug, Clone, Default)]
pub(crate) struct Balance {
    weights: Option<Vec<f32>>,
    shift: Option<Vec<f32>>,
    /// The score of each class at which it is as likely as not, where images have several labels.
    offsets: Option<Vec<f32>>,
}

impl Balance {
    /// For so many classes and these training examples; where images have several labels, `means` are the mean zero-shot
    /// scores of the classes over them.
    ///
    /// # Errors
    /// A setting that has no meaning for several labels.
    pub(crate) fn new(
        imbalance: Imbalance,
        classes: usize,
        train: &[Example],
        means: Option<Vec<f32>>,
    ) -> Result<Self> {
        let several = means.is_some();
        let (n, counts) = (train.len() as f64, counts(classes, train, several));
        // One more of either kind, so that a class that every image has, or none, has a finite weight.
        let smoothed = |count: f64| (count + 1.0) / (n + 2.0);
        let mut balance = Self::default();
        match imbalance {
            Imbalance::None => {}
            Imbalance::BalancedSampling | Imbalance::LogitAdjustment(_) if several => {
                return Err(Error::Recipe {
                    origin: "train.imbalance".into(),
                    reason: "images with several labels are in no single class; use `class-weights`".into(),
                });
            }
            Imbalance::BalancedSampling => {}
            Imbalance::ClassWeights => {
                let weight = |count: &f64| match several {
                    true => (1.0 - smoothed(*count)) / smoothed(*count),
                    false => n / (classes as f64 * count.max(1.0)),
                };
                balance.weights = Some(counts.iter().map(|count| weight(count) as f32).collect());
            }
            Imbalance::LogitAdjustment(tau) => {
                let prior = |count: &f64| (tau * (count.max(1.0) / n).ln()) as f32;
                balance.shift = Some(counts.iter().map(prior).collect());
            }
        }
        if let Some(means) = means {
            let odds = |count: f64| (smoothed(count) / (1.0 - smoothed(count))).ln() as f32;
            balance.offsets = Some(means.iter().zip(&counts).map(|(mean, count)| mean - odds(*count)).collect());
        }
        Ok(balance)
    }

    /// The score of each class at which it is as likely as not, where images have several labels.
    pub(crate) fn offsets(&self) -> Option<&[f32]> {
        self.offsets.as_deref()
    }

    /// The truth `[examples, classes]` of a step, where images have several labels.
    pub(crate) fn truth(&self, train: &[Example], examples: &[usize]) -> Vec<f32> {
        let Some(offsets) = &self.offsets else { return Vec::new() };
        let mut truth = vec![0.0; examples.len() * offsets.len()];
        for (row, example) in truth.chunks_exact_mut(offsets.len()).zip(examples) {
            train[*example].labels.iter().for_each(|label| row[*label] = 1.0);
        }
        truth
    }

    /// What a step is judged by.
    pub(crate) fn judgement<'a>(&'a self, truth: &'a [f32]) -> Judgement<'a> {
        let several = self.offsets.as_deref().map(|offsets| Several { truth, offsets });
        Judgement { weights: self.weights.as_deref(), shift: self.shift.as_deref(), several }
    }
}

/// Examples of each class.
fn counts(classes: usize, train: &[Example], several: bool) -> Vec<f64> {
    let mut counts = vec![0.0; classes];
    for example in train {
        let labels = if several { &example.labels[..] } else { &[example.label] };
        labels.iter().for_each(|label| counts[*label] += 1.0);
    }
    counts
}

/// The order in which an epoch goes through the examples when classes have equal shares: each class in turn gives its next
/// one, in an order of its own that begins again when it is at its end. As many as there are examples.
pub(crate) fn balanced_order(labels: &[usize], seed: Seed) -> Vec<usize> {
    let classes = labels.iter().map(|label| label + 1).max().unwrap_or(0);
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); classes];
    labels.iter().enumerate().for_each(|(example, label)| members[*label].push(example));
    members.retain(|examples| !examples.is_empty());
    let orders: Vec<Vec<usize>> = members
        .iter()
        .enumerate()
        .map(|(class, examples)| {
            // Enough rounds for all of the epoch to come from this class.
            let rounds = labels.len().div_ceil(members.len() * examples.len()).max(1);
            let round = |round: usize| seed.split(class).split(round).order(examples.len());
            (0..rounds).flat_map(round).map(|place| examples[place]).collect()
        })
        .collect();
    let turns = labels.len().div_ceil(members.len().max(1));
    let turn =
        |turn: usize| seed.split("turn").split(turn).order(orders.len()).into_iter().map(move |class| (class, turn));
    (0..turns).flat_map(turn).map(|(class, turn)| orders[class][turn]).take(labels.len()).collect()
}

#[cfg(test)]
mod tests {
    use inarch_core::Seed;

    use super::balanced_order;

    #[test]
    fn every_batch_has_the_classes_in_equal_shares() {
        // 90 of class 0, 7 of class 1, 3 of class 2.
        let labels: Vec<usize> = [vec![0; 90], vec![1; 7], vec![2; 3]].concat();
        let order = balanced_order(&labels, Seed::new(1));
        assert_eq!(order.len(), 100);
        for batch in order.chunks_exact(30) {
            for class in 0..3 {
                assert_eq!(batch.iter().filter(|example| labels[**example] == class).count(), 10);
            }
        }
        // No image comes twice before all of its class have come once, and the great class does not repeat.
        let of = |class: usize| -> Vec<usize> {
            order.iter().copied().filter(|example| labels[*example] == class).collect()
        };
        for (class, size) in [(0, 34), (1, 7), (2, 3)] {
            let mut first: Vec<usize> = of(class)[..size.min(of(class).len())].to_vec();
            first.sort_unstable();
            first.dedup();
            assert_eq!(first.len(), size.min(of(class).len()), "class {class}");
        }
        assert_eq!(order, balanced_order(&labels, Seed::new(1)));
        assert_ne!(order, balanced_order(&labels, Seed::new(2)));
        assert!(balanced_order(&[], Seed::new(1)).is_empty());
    }
}
