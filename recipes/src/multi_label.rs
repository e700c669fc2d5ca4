//! Measures over images that have any number of labels.

use inarch_core::data::Example;
use inarch_core::metrics::{Detail, DetailConfig, Metrics};

use crate::error::Result;
use crate::evaluate::groups;

/// Probabilities `[n, classes]` of scores: each class for itself, by how far it is above its offset. Without offsets, as for
/// zero-shot, the mean score of an image takes their place.
pub fn label_probabilities(logits: &[f32], classes: usize, offsets: Option<&[f32]>) -> Vec<f32> {
    margins(logits, classes, offsets).into_iter().map(|margin| 1.0 / (1.0 + (-margin).exp())).collect()
}

fn margins(logits: &[f32], classes: usize, offsets: Option<&[f32]>) -> Vec<f32> {
    let mut margins = logits.to_vec();
    for row in margins.chunks_exact_mut(classes.max(1)) {
        let mean = row.iter().sum::<f32>() / classes as f32;
        row.iter_mut().enumerate().for_each(|(class, score)| *score -= offsets.map_or(mean, |offsets| offsets[class]));
    }
    margins
}

/// Measures scores `[n, classes]`: `accuracy` is the share of right decisions, one for each image and class, `per_class`
/// that of each class, `ece` and `nll` are over the decisions, `macro_f1` is the mean over the classes.
pub(crate) fn measure(
    logits: &[f32],
    classes: usize,
    examples: &[&Example],
    offsets: Option<&[f32]>,
    detail: DetailConfig,
) -> Result<(Metrics, Detail)> {
    let truth: Vec<bool> =
        examples.iter().flat_map(|example| (0..classes).map(|class| example.labels.contains(&class))).collect();
    let margins = margins(logits, classes, offsets);
    // A decision is a choice between two scores, nothing and the margin.
    let pairs: Vec<f32> = margins.iter().flat_map(|margin| [0.0, *margin]).collect();
    let labels: Vec<usize> = truth.iter().map(|held| usize::from(*held)).collect();
    let mut metrics = Metrics::from_logits(&pairs, 2, &labels)?;
    let mut f1 = Vec::with_capacity(classes);
    let mut per_class = Vec::with_capacity(classes);
    for class in 0..classes {
        let own = || (class..truth.len()).step_by(classes).map(|at| (truth[at], margins[at] > 0.0));
        let count = |wanted: (bool, bool)| own().filter(|found| *found == wanted).count() as f64;
        let (hit, missed, wrong) = (count((true, true)), count((true, false)), count((false, true)));
        if hit + missed + wrong > 0.0 {
            f1.push(2.0 * hit / (2.0 * hit + missed + wrong));
        }
        per_class.push(Some(1.0 - (missed + wrong) / examples.len() as f64));
    }
    metrics.n = examples.len();
    metrics.per_class = per_class;
    metrics.macro_f1 = f1.iter().sum::<f64>() / f1.len().max(1) as f64;
    // Each class is ranked over the images, by its own scores: an offset changes nothing there.
    let ranked = if offsets.is_some() { logits } else { &margins };
    let groups = groups(examples.iter().copied());
    Ok((metrics, Detail::from_labels(ranked, classes, &truth, Some(&groups), detail)?))
}

#[cfg(test)]
mod tests {
    use inarch_core::data::{Example, Source};
    use inarch_core::metrics::DetailConfig;

    use super::{label_probabilities, measure};

    #[test]
    fn three_images_by_hand() {
        let example =
            |id: &str, labels: &[usize]| Example { labels: labels.to_vec(), ..Example::new(id, Source::Row(0), 0) };
        let examples = [example("x", &[0, 1]), example("y", &[]), example("z", &[1])];
        // Above the offsets 1 and 2: both; class 0; none.
        let logits = [2.0, 3.0, 1.5, 1.0, 0.0, 1.9];
        let examples: Vec<&Example> = examples.iter().collect();
        let (metrics, detail) =
            measure(&logits, 2, &examples, Some(&[1.0, 2.0]), DetailConfig::default()).expect("three images");
        assert!((metrics.accuracy - 4.0 / 6.0).abs() < 1e-12);
        assert_eq!(metrics.n, 3);
        let expected = [2.0 / 3.0, 2.0 / 3.0];
        assert!(metrics.per_class.iter().zip(expected).all(|(found, want)| (found.unwrap() - want).abs() < 1e-12));
        // F1: class 0 has one hit and one wrong, class 1 one hit and one missed.
        assert!((metrics.macro_f1 - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!((detail.auroc, detail.resampled_groups), (Some(1.0), None));
        let found = label_probabilities(&logits[..2], 2, Some(&[1.0, 2.0]));
        assert!(found.iter().all(|found| (found - 0.731_058_6).abs() < 1e-6), "{found:?}");
    }
}
