//! MIR: rehearsal of the samples that a step would hurt most (Aljundi et al., 2019, arXiv 1908.04742).
//!
//! Of `candidates` samples drawn from the memory, of experiences before and each once, those `replay` join the batch `b` whose loss would
//! rise most by a step on `b` alone: `l(theta - lr * grad CE(b), m) - l(theta, m)`; then ER's `CE(b, m)`. The virtual step is that of
//! the run's optimizer, which for plain SGD is the authors'.

use inarch_core::Seed;
use inarch_peft::Loss;
use inarch_recipes::{Foresight, Moment};

use super::{Episode, Rehearsal, Strategy};
use crate::error::Result;
use crate::memory::{Memory, drawn};

/// Maximally interfered retrieval.
pub(super) struct Mir {
    replay: usize,
    candidates: usize,
    /// Positions in the memory of the samples of past experiences.
    past: Vec<usize>,
}

impl Mir {
    pub(super) fn new(replay: usize, candidates: usize) -> Self {
        Self { replay, candidates: candidates.max(replay), past: Vec::new() }
    }
}

/// The rows from `fresh` on whose loss rises most, `count` of them, the most first; of equals the first.
fn interfered(foresight: &Foresight, labels: &[usize], fresh: usize, count: usize) -> Vec<usize> {
    let classes = foresight.before.len() / labels.len().max(1);
    let loss = |scores: &[f32], row: usize| {
        let scores = &scores[row * classes..(row + 1) * classes];
        let greatest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = scores.iter().map(|score| f64::from(score - greatest).exp()).sum();
        f64::from(greatest - scores[labels[row]]) + sum.ln()
    };
    let rise = |row: usize| loss(&foresight.after, row) - loss(&foresight.before, row);
    let mut rows: Vec<(f64, usize)> = (fresh..labels.len()).map(|row| (rise(row), row)).collect();
    rows.sort_by(|left, right| right.0.total_cmp(&left.0).then(left.1.cmp(&right.1)));
    rows.into_iter().take(count).map(|(_, row)| row).collect()
}

impl Strategy for Mir {
    fn rehearsal(&self) -> Option<Rehearsal> {
        Some(Rehearsal { rows: self.candidates, draws: 1 })
    }

    fn rehearse(&self, _memory: &Memory, draws: Seed) -> Vec<usize> {
        // No more than there are: one that is drawn twice would be rehearsed twice.
        let places = drawn(self.past.len(), self.candidates.min(self.past.len()), draws.split(0));
        places.into_iter().map(|place| self.past[place]).collect()
    }

    fn begin(&mut self, episode: &Episode<'_>) -> Result<()> {
        self.past = episode.past().map(|(position, _)| position).collect();
        Ok(())
    }

    fn foresees(&self) -> bool {
        true
    }

    fn loss(&self, moment: &Moment<'_>, _episode: &Episode<'_>) -> Loss {
        let (step, fresh, learner) = (moment.step, moment.fresh, moment.adapter.learner());
        if fresh == moment.examples.len() {
            return learner.loss(step);
        }
        let mut rows: Vec<usize> = (0..fresh).collect();
        if let Some(foresight) = moment.foresight {
            rows.extend(interfered(foresight, step.labels, fresh, self.replay));
        }
        step.with_rows(&rows, |step| learner.loss(step))
    }
}

#[cfg(test)]
mod tests {
    use inarch_core::{Digest, Seed};
    use inarch_recipes::Foresight;

    use super::super::Strategy as _;
    use super::{Mir, interfered};
    use crate::memory::{Fingerprint, Memory, MemoryConfig};

    #[test]
    fn candidates_are_drawn_once_each_from_what_came_before() {
        let digest = Digest::of(b"x");
        let print =
            Fingerprint { name: "x".into(), backbone: digest.clone(), preprocess: digest, window: None, dim: 8 };
        let memory = Memory::new(MemoryConfig::default(), print).unwrap();
        let mir = |candidates: usize| Mir { past: vec![2, 3, 5, 7, 11, 13], ..Mir::new(2, candidates) };
        let mut found = mir(50).rehearse(&memory, Seed::new(1));
        found.sort_unstable();
        assert_eq!(found, [2, 3, 5, 7, 11, 13], "no more than there are");
        let few = mir(4).rehearse(&memory, Seed::new(1));
        assert!(few.len() == 4 && few.iter().all(|position| found.contains(position)));
        assert_ne!(few, mir(4).rehearse(&memory, Seed::new(2)));
        assert!(Mir::new(2, 4).rehearse(&memory, Seed::new(1)).is_empty(), "before the second experience");
    }

    #[test]
    fn the_rows_whose_loss_rises_most_are_those_of_a_plain_count() {
        let (rows, classes, fresh) = (40, 5, 8);
        let draw = |name: &str| Seed::new(3).split(name).normals(rows * classes, 2.0);
        let foresight = Foresight { before: draw("before"), after: draw("after") };
        let labels: Vec<usize> = (0..rows).map(|row| row * 7 % classes).collect();
        let loss = |scores: &[f32], row: usize| {
            let own: Vec<f64> = scores[row * classes..][..classes].iter().map(|score| f64::from(*score)).collect();
            -(own[labels[row]].exp() / own.iter().map(|score| score.exp()).sum::<f64>()).ln()
        };
        let rises: Vec<f64> = (0..rows).map(|row| loss(&foresight.after, row) - loss(&foresight.before, row)).collect();
        let found = interfered(&foresight, &labels, fresh, 10);
        for row in fresh..rows {
            let above = (fresh..rows).filter(|other| rises[*other] > rises[row]).count();
            assert_eq!(found.contains(&row), above < 10, "row {row}");
        }
        assert!(found.windows(2).all(|pair| rises[pair[0]] >= rises[pair[1]]));
        assert_eq!(interfered(&foresight, &labels, fresh, 1000).len(), rows - fresh);
    }
}
