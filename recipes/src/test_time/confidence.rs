//! How sure scores are, and which views are sure enough.

pub(super) use inarch_core::metrics::softmax;

use super::rows::Rows;

/// What the references add inside of a logarithm; a memory that compares entropies must do the same.
const FLOOR: f32 = 1e-5;

/// `-sum p ln p` of the softmax of one row of scores, in nats.
pub(super) fn entropy(logits: &[f32]) -> f32 {
    let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = logits.iter().map(|logit| (logit - greatest).exp()).sum();
    let rest = sum.ln() + greatest;
    logits.iter().map(|logit| -(logit - rest).exp() * (logit - rest)).sum()
}

/// `-sum p ln(p + 1e-5)`: the entropy by which the memories of TDA and its kin are ordered.
pub(super) fn floored_entropy(probabilities: &[f32]) -> f32 {
    probabilities.iter().map(|share| -share * (share + FLOOR).ln()).sum()
}

/// The place of the greatest value; of equal ones the first.
pub(super) fn greatest(values: &[f32]) -> usize {
    (1..values.len()).fold(0, |best, at| if values[at] > values[best] { at } else { best })
}

/// The rows of scores `[views, classes]` in the order of their entropies, the surest first.
pub(super) fn by_confidence(logits: &Rows) -> Vec<usize> {
    let entropies: Vec<f32> = logits.iter().map(entropy).collect();
    let mut order: Vec<usize> = (0..entropies.len()).collect();
    order.sort_by(|left, right| entropies[*left].total_cmp(&entropies[*right]));
    order
}

/// How many of `views` a share of them is, rounded down, at least one.
pub(super) fn share_of(views: usize, share: f64) -> usize {
    ((views as f64 * share) as usize).clamp(1, views.max(1))
}

/// The surest share of the views, the surest first.
pub(super) fn confident(logits: &Rows, share: f64) -> Vec<usize> {
    let mut order = by_confidence(logits);
    order.truncate(share_of(logits.count(), share));
    order
}

#[cfg(test)]
mod tests {
    use super::{confident, entropy, greatest, softmax};
    use crate::test_time::Rows;

    #[test]
    fn the_surest_views_come_first() {
        assert!((entropy(&[3.0, 3.0]) - std::f32::consts::LN_2).abs() < 1e-6);
        assert!((softmax(&[1000.0, 1000.0])[1] - 0.5).abs() < 1e-6);
        let logits = Rows::new(2, vec![0.0, 0.0, 5.0, 0.0, 0.0, 1.0, 0.0, 9.0]);
        assert_eq!(confident(&logits, 0.5), [3, 1]);
        assert_eq!(confident(&logits, 0.1), [3]);
        assert_eq!(greatest(&[1.0, 2.0, 2.0]), 1);
    }
}
