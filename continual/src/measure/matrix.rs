//! The accuracy matrix and everything that is read from it. One matrix, many definitions: libraries print different numbers
//! under the same word, so each definition has its own name here.

use serde::{Deserialize, Serialize};

/// `rows[k][i]`: accuracy (0 to 1) on the test images of experience `i` after experience `k` was learned. `None` where the
/// model cannot answer, because it has no row for a class that has not come yet.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AccuracyMatrix {
    /// One row for each experience that was learned.
    pub rows: Vec<Vec<Option<f64>>>,
}

/// Everything that is read from an accuracy matrix. `None` where it is not defined: too few experiences, or a model that
/// cannot answer for what has not come yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Measures {
    /// Mean over experiences of the accuracy after the last one (MTIL's Last).
    pub last: Option<f64>,
    /// Mean of all entries: the mean over experiences of the mean over time (MTIL's Avg).
    pub mtil_average: Option<f64>,
    /// Mean over experiences, from the second on, of the mean accuracy before it was learned (MTIL's Transfer).
    pub transfer: Option<f64>,
    /// Accuracy right after an experience was learned minus the last (Avalanche); mean over all but the last experience.
    pub forgetting_since_learned: Option<f64>,
    /// Best accuracy of any row since an experience was learned minus the last (mammoth, PILOT, to whom it is 0 before): never negative.
    pub forgetting_best_of_all_rows: Option<f64>,
    /// Best accuracy of any row before the last minus the last (Chaudhry et al., 2018; Renate, FACIL), also of rows in which an open head
    /// answers for what has not come yet.
    pub forgetting_best_of_earlier_rows: Option<f64>,
    /// Last accuracy minus that right after an experience was learned (Lopez-Paz and Ranzato, 2017).
    pub backward_transfer: Option<f64>,
    /// Accuracy just before an experience is learned minus zero-shot; mean from the second experience on. Zero-shot takes
    /// the place of the random network of Lopez-Paz and Ranzato.
    pub forward_transfer: Option<f64>,
    /// Worst change against zero-shot of an experience that has not come yet, over all rows.
    pub worst_zero_shot_change: Option<f64>,
    /// Accuracy on experiences that have not come yet as a share of zero-shot's own, both summed over all rows: 1 where nothing
    /// is lost. `None` for a head that is bound to its classes, which has no answer there to keep.
    pub zero_shot_retention: Option<f64>,
}

impl Measures {
    /// All of them by name, in a fixed order.
    pub fn named(&self) -> [(&'static str, Option<f64>); 10] {
        [
            ("last", self.last),
            ("mtil_average", self.mtil_average),
            ("transfer", self.transfer),
            ("forgetting_since_learned", self.forgetting_since_learned),
            ("forgetting_best_of_all_rows", self.forgetting_best_of_all_rows),
            ("forgetting_best_of_earlier_rows", self.forgetting_best_of_earlier_rows),
            ("backward_transfer", self.backward_transfer),
            ("forward_transfer", self.forward_transfer),
            ("worst_zero_shot_change", self.worst_zero_shot_change),
            ("zero_shot_retention", self.zero_shot_retention),
        ]
    }
}

impl AccuracyMatrix {
    /// The entry of experience `task` after experience `step`.
    pub fn get(&self, step: usize, task: usize) -> Option<f64> {
        *self.rows.get(step)?.get(task)?
    }

    /// All measures. `zero_shot[i]` is the accuracy on experience `i` without any adapter, where it is known.
    pub fn measures(&self, zero_shot: &[Option<f64>]) -> Measures {
        let steps = self.rows.len();
        let tasks = self.rows.first().map_or(0, Vec::len);
        if steps == 0 || tasks == 0 {
            return Measures::default();
        }
        let end = steps - 1;
        let known = tasks.min(steps);
        let column = |task: usize, rows: std::ops::Range<usize>| mean(rows.map(|step| self.get(step, task)));
        let best =
            |task: usize, rows: std::ops::Range<usize>| rows.filter_map(|step| self.get(step, task)).reduce(f64::max);
        let earlier = |of: &dyn Fn(usize) -> Option<f64>| if known < 2 { None } else { mean((0..known - 1).map(of)) };
        let later = |of: &dyn Fn(usize) -> Option<f64>| if known < 2 { None } else { mean((1..known).map(of)) };
        let minus = |left: Option<f64>, right: Option<f64>| Some(left? - right?);
        let last = |task: usize| self.get(end, task);
        let baseline = |task: usize| zero_shot.get(task).copied().flatten();
        let ahead = || (0..steps).flat_map(move |step| (step + 1..tasks).map(move |task| (step, task)));
        let changes = ahead().filter_map(|(step, task)| minus(self.get(step, task), baseline(task)));
        let kept = mean(ahead().map(|(step, task)| self.get(step, task)));
        let own = mean(ahead().map(|(_, task)| baseline(task))).filter(|own| *own > 0.0);
        Measures {
            last: mean((0..tasks).map(last)),
            mtil_average: mean((0..tasks).map(|task| column(task, 0..steps))),
            transfer: later(&|task| column(task, 0..task)),
            forgetting_since_learned: earlier(&|task| minus(self.get(task, task), last(task))),
            forgetting_best_of_all_rows: earlier(&|task| minus(best(task, task..steps), last(task))),
            forgetting_best_of_earlier_rows: earlier(&|task| minus(best(task, 0..end), last(task))),
            backward_transfer: earlier(&|task| minus(last(task), self.get(task, task))),
            forward_transfer: later(&|task| minus(self.get(task - 1, task), baseline(task))),
            worst_zero_shot_change: changes.reduce(f64::min),
            zero_shot_retention: kept.zip(own).map(|(kept, own)| kept / own),
        }
    }
}

/// The mean of values that are all there.
fn mean(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let values: Vec<f64> = values.collect::<Option<_>>()?;
    if values.is_empty() { None } else { Some(values.iter().sum::<f64>() / values.len() as f64) }
}

#[cfg(test)]
mod tests {
    use super::AccuracyMatrix;

    #[test]
    fn every_definition_by_hand() {
        let rows = [[0.9, 0.2, 0.3], [0.95, 0.8, 0.1], [0.6, 0.85, 0.7]];
        let matrix = AccuracyMatrix { rows: rows.iter().map(|row| row.iter().map(|v| Some(*v)).collect()).collect() };
        let measures = matrix.measures(&[Some(0.5), Some(0.3), Some(0.2)]);
        let close = |found: Option<f64>, expected: f64| assert!((found.unwrap() - expected).abs() < 1e-12, "{found:?}");
        close(measures.last, (0.6 + 0.85 + 0.7) / 3.0);
        close(measures.transfer, (0.2 + (0.3 + 0.1) / 2.0) / 2.0);
        close(measures.mtil_average, rows.concat().iter().sum::<f64>() / 9.0);
        close(measures.forgetting_since_learned, ((0.9 - 0.6) + (0.8 - 0.85)) / 2.0);
        close(measures.forgetting_best_of_all_rows, ((0.95 - 0.6) + 0.0) / 2.0);
        close(measures.forgetting_best_of_earlier_rows, ((0.95 - 0.6) + (0.8 - 0.85)) / 2.0);
        close(measures.backward_transfer, -measures.forgetting_since_learned.unwrap());
        close(measures.forward_transfer, ((0.2 - 0.3) + (0.1 - 0.2)) / 2.0);
        close(measures.worst_zero_shot_change, -0.1);
        close(measures.zero_shot_retention, (0.2 + 0.3 + 0.1) / (0.3 + 0.2 + 0.2));
        // Zero-shot was better at the second than anything since: that was not learned, and is not forgotten.
        let open = [[0.9, 0.99, 0.3], [0.95, 0.8, 0.1], [0.6, 0.85, 0.7]];
        let open = AccuracyMatrix { rows: open.iter().map(|row| row.iter().map(|v| Some(*v)).collect()).collect() };
        let open = open.measures(&[None; 3]);
        close(open.forgetting_best_of_all_rows, ((0.95 - 0.6) + 0.0) / 2.0);
        close(open.forgetting_best_of_earlier_rows, ((0.95 - 0.6) + (0.99 - 0.85)) / 2.0);
        // Every one has a name of its own, and its own value there.
        let written = serde_json::to_value(measures).unwrap();
        let named = measures.named().map(|(name, value)| (name.to_string(), serde_json::json!(value)));
        assert_eq!(written, serde_json::Value::Object(named.into_iter().collect()));
    }

    #[test]
    fn what_scores_as_zero_shot_keeps_all_of_it() {
        let (right, zero_shot) = ([0.4, 0.25, 0.7], [0.4, 0.25, 0.7].map(Some));
        let matrix = AccuracyMatrix { rows: vec![right.map(Some).to_vec(); 3] };
        assert_eq!(matrix.measures(&zero_shot).zero_shot_retention, Some(1.0));
        // Where zero-shot has nothing right there is nothing to keep, nor before a single experience.
        assert_eq!(matrix.measures(&[Some(0.0); 3]).zero_shot_retention, None);
        let single = AccuracyMatrix { rows: vec![vec![Some(0.5)]] };
        assert_eq!(single.measures(&[Some(0.5)]).zero_shot_retention, None);
    }

    #[test]
    fn a_model_without_rows_for_later_classes_has_no_transfer() {
        let rows = vec![vec![Some(0.9), None], vec![Some(0.7), Some(0.8)]];
        let measures = AccuracyMatrix { rows }.measures(&[None, None]);
        assert_eq!((measures.transfer, measures.mtil_average, measures.forward_transfer), (None, None, None));
        assert_eq!(measures.zero_shot_retention, None);
        assert!((measures.forgetting_since_learned.unwrap() - 0.2).abs() < 1e-12);
        assert_eq!(AccuracyMatrix::default().measures(&[]), Default::default());
    }
}
