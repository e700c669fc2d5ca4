//! BiC: a correction of the scores of the latest classes, fitted to samples that are never trained on (Wu et al., 2019, arXiv
//! 1905.13260).
//!
//! A share of all samples, by a hash of their ids, is held out for good; those that are remembered are part of the memory and of its
//! budget. Training, on the others: `(1 - l) CE(b, m) + l T^2 KL(before || own)` with `l = n / (n + m)` for `n` classes known
//! before and `m` in what arrives. Then the scores of the latest classes become `a z + b`, with the `a` and `b` of least cross
//! entropy over the held-out samples in the memory; each class counts the same. Corrections of earlier classes stay. What answers is
//! the adapter with [`VectorScaling`] behind it, and a corrected adapter is what the next training is taught by.
//!
//! Departures: the two values are the exact minimum (Newton's method) with `hold (|a - 1|^2 + b^2)` added in place of weight decay
//! over some epochs; classes are balanced by weight and not by leaving samples out.

use std::collections::BTreeMap;

use inarch_core::Seed;
use inarch_core::backbone::HostTensor;
use inarch_peft::{Loss, MethodConfig, VectorScaling, VectorScalingConfig, stacked};
use inarch_recipes::Moment;

use super::teacher::Teacher;
use super::{Adapter, Episode, Outcome, Parameters, Rehearsal, Strategy};
use crate::error::Result;
use crate::memory::{Memory, MemoryConfig, drawn};

/// Newton steps; the loss is convex and a dozen suffice.
const MOST_STEPS: usize = 100;

/// Bias correction.
pub(super) struct Bic {
    replay: usize,
    temperature: f64,
    share: f64,
    hold: f64,
    teacher: Teacher,
    /// Weight of the distillation.
    balance: f64,
    /// Positions of the memory that may be rehearsed.
    open: Vec<usize>,
    /// Factor and offset of each class.
    factors: Vec<f32>,
    offsets: Vec<f32>,
    /// The first of the latest classes.
    latest: usize,
}

/// Held-out scores `[rows, classes]`, row-major, their classes and their weights.
struct Held {
    scores: Vec<f64>,
    labels: Vec<usize>,
    weights: Vec<f64>,
}

/// The loss of a correction, its gradient and its second derivatives `aa`, `ab`, `bb`.
struct Bend {
    value: f64,
    first: [f64; 2],
    second: [f64; 3],
}

impl Held {
    fn new(scores: Vec<f64>, labels: Vec<usize>) -> Self {
        let mut counts: BTreeMap<usize, f64> = BTreeMap::new();
        labels.iter().for_each(|label| *counts.entry(*label).or_default() += 1.0);
        let weights = labels.iter().map(|label| 1.0 / (counts[label] * counts.len() as f64)).collect();
        Self { scores, labels, weights }
    }

    /// With scores of classes from `latest` on as `a z + b`.
    fn bend(&self, latest: usize, [a, b]: [f64; 2], hold: f64) -> Bend {
        let classes = self.scores.len() / self.labels.len().max(1);
        let (mut value, mut first) = (hold * ((a - 1.0).powi(2) + b * b), [2.0 * hold * (a - 1.0), 2.0 * hold * b]);
        let mut second = [2.0 * hold, 0.0, 2.0 * hold];
        for ((row, label), weight) in self.scores.chunks_exact(classes.max(1)).zip(&self.labels).zip(&self.weights) {
            let corrected = |class: usize| if class < latest { row[class] } else { a * row[class] + b };
            let greatest = (0..classes).map(corrected).fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = (0..classes).map(|class| (corrected(class) - greatest).exp()).sum();
            let chance = |class: usize| (corrected(class) - greatest).exp() / sum;
            value += weight * (greatest + sum.ln() - corrected(*label));
            let (mut mean, mut share, mut square) = (0.0, 0.0, 0.0);
            for (class, score) in row.iter().enumerate().skip(latest) {
                mean += chance(class) * score;
                share += chance(class);
                square += chance(class) * score * score;
            }
            let own = if *label < latest { [0.0, 0.0] } else { [row[*label], 1.0] };
            first[0] += weight * (mean - own[0]);
            first[1] += weight * (share - own[1]);
            second[0] += weight * (square - mean * mean);
            second[1] += weight * (mean - mean * share);
            second[2] += weight * (share - share * share);
        }
        Bend { value, first, second }
    }

    /// The factor and the offset of least loss, `None` without samples on both sides.
    fn fitted(&self, latest: usize, hold: f64) -> Option<[f64; 2]> {
        let new = self.labels.iter().filter(|label| **label >= latest).count();
        if new == 0 || new == self.labels.len() {
            return None;
        }
        let mut at = [1.0, 0.0];
        let mut bend = self.bend(latest, at, hold);
        for _ in 0..MOST_STEPS {
            let ([x, y], [aa, ab, bb]) = (bend.first, bend.second);
            let determinant = aa * bb - ab * ab;
            if determinant <= 0.0 || determinant.is_nan() {
                break;
            }
            let step = [(bb * x - ab * y) / determinant, (aa * y - ab * x) / determinant];
            let fall = x * step[0] + y * step[1];
            // Halved until it goes down; far from the minimum a whole step can overshoot.
            let tried = (0..40).map(|half| 0.5f64.powi(half)).find_map(|length| {
                let to = [at[0] - length * step[0], at[1] - length * step[1]];
                let found = self.bend(latest, to, hold);
                (found.value <= bend.value - 1e-4 * length * fall).then_some((to, found))
            });
            let Some((to, found)) = tried.filter(|_| fall > 1e-15) else { break };
            (at, bend) = (to, found);
        }
        Some(at)
    }
}

/// Whether a sample is held out, by its id alone.
fn held_out(id: &str, share: f64, seed: u64) -> bool {
    let draw = Seed::new(seed).split("held out").hash(id) as f64 / (u64::MAX as f64 + 1.0);
    draw < share
}

impl Bic {
    pub(super) fn new(replay: usize, temperature: f64, share: f64, hold: f64) -> Self {
        let (factors, offsets) = (Vec::new(), Vec::new());
        let (teacher, open) = (Teacher::default(), Vec::new());
        Self { replay, temperature, share, hold, teacher, balance: 0.0, open, factors, offsets, latest: 0 }
    }

    fn corrected(&self, class: usize, score: f32) -> f32 {
        let factor = self.factors.get(class).copied().unwrap_or(1.0);
        factor * score + self.offsets.get(class).copied().unwrap_or(0.0)
    }

    /// Positions of a memory that are held out, or that are not.
    fn positions(&self, memory: &Memory, held: bool) -> Vec<usize> {
        let seed = memory.config().seed;
        let samples = memory.samples().enumerate();
        let wanted = samples.filter(|(_, sample)| held_out(&sample.id, self.share, seed) == held);
        wanted.map(|(position, _)| position).collect()
    }
}

impl Strategy for Bic {
    fn rehearsal(&self) -> Option<Rehearsal> {
        Some(Rehearsal { rows: self.replay, draws: 1 })
    }

    fn rehearse(&self, _memory: &Memory, draws: Seed) -> Vec<usize> {
        let places = drawn(self.open.len(), self.replay, draws);
        places.into_iter().map(|place| self.open[place]).collect()
    }

    fn withholds(&self, id: &str, memory: &MemoryConfig) -> bool {
        held_out(id, self.share, memory.seed)
    }

    fn begin(&mut self, episode: &Episode<'_>) -> Result<()> {
        self.open = episode.memory.map_or_else(Vec::new, |memory| self.positions(memory, false));
        let mut teacher = Teacher::before(episode, &episode.seen())?;
        teacher.correct(|class, score| self.corrected(class, score));
        self.teacher = teacher;
        let mut arriving: Vec<usize> = episode.train.iter().map(|example| example.label).collect();
        arriving.sort_unstable();
        arriving.dedup();
        self.balance = episode.before as f64 / (episode.before + arriving.len()).max(1) as f64;
        Ok(())
    }

    fn loss(&self, moment: &Moment<'_>, _episode: &Episode<'_>) -> Loss {
        let mut loss = moment.adapter.learner().loss(moment.step);
        if self.teacher.knows() {
            let distance = self.teacher.distance(&moment.step.logits, moment.examples, self.temperature);
            loss.task = loss.task * (1.0 - self.balance) + distance * self.balance;
        }
        loss
    }

    fn settle(&mut self, episode: &Episode<'_>, outcome: Outcome) -> Result<Outcome> {
        let (session, classes) = (episode.session, episode.classes.len());
        let trained = outcome.trained.clone().without_autodiff();
        if episode.before < classes {
            self.latest = episode.before;
        }
        self.factors.resize(classes, 1.0);
        self.offsets.resize(classes, 0.0);
        if let Some(memory) = episode.memory.filter(|_| self.latest > 0) {
            let held: Vec<_> =
                self.positions(memory, true).into_iter().map(|position| episode.rehearsal[position].clone()).collect();
            let scores = session.scores((episode.recipe, episode.classes, &trained), &held)?;
            let correct = |(at, score): (usize, &f32)| {
                let class = at % classes;
                f64::from(if class < self.latest { self.corrected(class, *score) } else { *score })
            };
            let scores = scores.iter().enumerate().map(correct).collect();
            let held = Held::new(scores, held.iter().map(|example| example.label).collect());
            if let Some([factor, offset]) = held.fitted(self.latest, self.hold) {
                self.factors[self.latest..].fill(factor as f32);
                self.offsets[self.latest..].fill(offset as f32);
            }
        }
        let scaling = VectorScaling::of(&self.factors, &self.offsets, session.backbone().device());
        let config = MethodConfig::VectorScaling(VectorScalingConfig::default());
        let parts = [(episode.recipe.method.clone(), trained), (config, Adapter::VectorScaling(scaling))];
        let (method, answer) = stacked(parts)?;
        Ok(Outcome { answer, method: Some(method), ..outcome })
    }

    fn state(&self) -> BTreeMap<String, Parameters> {
        let tensor = |name: &str, data: Vec<f32>| {
            let shape = vec![data.len()];
            (name.to_string(), HostTensor { shape, data, origin: name.into() })
        };
        if self.factors.is_empty() {
            return BTreeMap::new();
        }
        let correction = Parameters::from([
            tensor("factors", self.factors.clone()),
            tensor("offsets", self.offsets.clone()),
            tensor("latest", vec![self.latest as f32]),
        ]);
        BTreeMap::from([("correction".to_string(), correction)])
    }

    fn restore(&mut self, mut state: BTreeMap<String, Parameters>) {
        let mut correction = state.remove("correction").unwrap_or_default();
        let mut take = |name: &str| correction.remove(name).map(|tensor| tensor.data).unwrap_or_default();
        (self.factors, self.offsets) = (take("factors"), take("offsets"));
        self.latest = take("latest").first().map_or(0, |latest| *latest as usize);
    }
}

#[cfg(test)]
mod tests {
    use inarch_core::Seed;

    use super::{Held, held_out};

    /// Scores of four classes, of which the last two are scored too high.
    fn held() -> Held {
        let noise = Seed::new(5).normals(60 * 4, 1.5);
        let labels: Vec<usize> = (0..60).map(|row| row * row % 7 % 4).collect();
        let score = |(at, noise): (usize, &f32)| {
            let (row, class) = (at / 4, at % 4);
            let own = f64::from(u8::from(labels[row] == class)) * 2.0 + f64::from(*noise);
            if class < 2 { own } else { 1.7 * own + 2.5 }
        };
        Held::new(noise.iter().enumerate().map(score).collect(), labels.clone())
    }

    /// The loss as it is written in the paper, each class counting the same.
    fn loss(held: &Held, [a, b]: [f64; 2]) -> f64 {
        let mut by_class = [(0.0, 0.0); 4];
        for (row, label) in held.scores.chunks(4).zip(&held.labels) {
            let z = [row[0], row[1], a * row[2] + b, a * row[3] + b];
            let sum: f64 = z.iter().map(|z| z.exp()).sum();
            by_class[*label].0 -= (z[*label].exp() / sum).ln();
            by_class[*label].1 += 1.0;
        }
        let present: Vec<f64> = by_class.iter().filter(|(_, n)| *n > 0.0).map(|(sum, n)| sum / n).collect();
        present.iter().sum::<f64>() / present.len() as f64
    }

    #[test]
    fn the_two_values_are_those_of_a_search_over_a_grid() {
        let held = held();
        let [a, b] = held.fitted(2, 0.0).expect("both sides have samples");
        let (mut best, mut width) = ([1.0, 0.0], 4.0);
        for _ in 0..60 {
            let around = (-10..=10).flat_map(|i| (-10..=10).map(move |j| (f64::from(i), f64::from(j))));
            let near = around.map(|(i, j)| [best[0] + i * width / 10.0, best[1] + j * width / 10.0]);
            best = near.min_by(|l, r| loss(&held, *l).total_cmp(&loss(&held, *r))).expect("a grid");
            width *= 0.7;
        }
        assert!((a - best[0]).abs() < 1e-4 && (b - best[1]).abs() < 1e-4, "{a} {b}, {best:?}");
        assert!(loss(&held, [a, b]) < loss(&held, [1.0, 0.0]) - 0.05);
        // What was done to the scores is undone, about.
        assert!(a < 0.9 && b < -0.5, "{a} {b}");
        let bend = held.bend(2, [a, b], 0.0);
        assert!((bend.value - loss(&held, [a, b])).abs() < 1e-9);
        // Held, it moves less; with one side only there is nothing to fit.
        let [near, _] = held.fitted(2, 10.0).expect("both sides have samples");
        assert!((near - 1.0).abs() < (a - 1.0).abs());
        assert!(Held::new(vec![1.0, 2.0, 3.0, 4.0], vec![0, 1]).fitted(2, 0.0).is_none());
    }

    #[test]
    fn a_tenth_is_held_out_for_good() {
        let held = (0..2000).filter(|at| held_out(&format!("{at}"), 0.1, 1)).count();
        assert!((140..260).contains(&held), "{held}");
        assert!(!held_out("x", 0.0, 1) && held_out("x", 1.0, 1));
    }
}
