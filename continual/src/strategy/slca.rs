//! SLCA: a representation that is learned slowly, and a head that is aligned with Gaussians of all classes (Zhang et al., 2023,
//! arXiv 2303.05118).
//!
//! Slow learner: what is no row of a class takes `slow` of the learning rate, and the loss is the cross entropy of what arrives among
//! its own classes. After a training the mean `mu_c` and the covariance `S_c` of each class's features through the adapter are kept, no
//! sample. From the second experience on the head is trained further on `draws` features of each class,
//! `x ~ N(mu_c (0.9 + 0.1 (t_c + 1) / (t + 1)), S_c + 1e-4 I)` for a class that first came in experience `t_c` of `t`, with the
//! loss `CE(z / (tau |z|))` of normalised scores. The aligned head answers; the next training starts from the one before.
//!
//! The head is a `linear-probe`, alone or in a stack. Departures: the alignment takes the run's optimizer; samples of a class that
//! comes again are joined with those before.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use inarch_core::backbone::HostTensor;
use inarch_core::data::{Example, Source};
use inarch_core::image::OnBadImage;
use inarch_core::{Digest, Seed};
use inarch_peft::{Adapter, LinearProbeConfig, Loss, MethodConfig, cross_entropy};
use inarch_recipes::{Budget, Companion, Control, Moment, Recipe, Session, Silent, Subset, Task};

use super::among::{among, classes_of, only, own_loss};
use super::needs::unsuited;
use super::weights::replaced;
use super::{Episode, Outcome, Parameters, Strategy};
use crate::error::{Error, Result};

/// Added to the diagonal of every covariance.
const RIDGE: f64 = 1e-4;
/// How much of a mean fades as classes grow old.
const FADE: f64 = 0.1;
/// What the head's rows are called.
const HEAD: &str = "prototypes";

/// Settings of the alignment.
#[derive(Clone, Copy)]
pub(super) struct Alignment {
    /// Features drawn for each class.
    pub(super) draws: usize,
    /// How often they are gone through.
    pub(super) epochs: usize,
    /// Temperature of normalised scores.
    pub(super) temperature: f64,
}

/// Slow learner with classifier alignment.
pub(super) struct Slca {
    slow: f64,
    alignment: Alignment,
    /// Whether a class is among those that arrive.
    current: Vec<bool>,
    gaussians: BTreeMap<usize, Gaussian>,
}

/// The moments of a class's features.
#[derive(Debug, Clone, PartialEq)]
struct Gaussian {
    /// The experience in which the class first came.
    first: usize,
    count: f64,
    mean: Vec<f64>,
    /// Sums of products of deviations, `[dim, dim]`, row-major.
    scatter: Vec<f64>,
}

impl Gaussian {
    fn of(rows: &[&[f32]], first: usize) -> Self {
        let (count, dim) = (rows.len() as f64, rows.first().map_or(0, |row| row.len()));
        let mut mean = vec![0.0; dim];
        for row in rows {
            mean.iter_mut().zip(*row).for_each(|(mean, value)| *mean += f64::from(*value) / count);
        }
        let mut scatter = vec![0.0; dim * dim];
        for row in rows {
            let apart: Vec<f64> = row.iter().zip(&mean).map(|(value, mean)| f64::from(*value) - mean).collect();
            for (left, sums) in apart.iter().zip(scatter.chunks_exact_mut(dim.max(1))) {
                sums.iter_mut().zip(&apart).for_each(|(sum, right)| *sum += left * right);
            }
        }
        Self { first, count, mean, scatter }
    }

    /// The moments of both sets of samples (Chan et al., 1983).
    fn joined(mut self, other: &Self) -> Self {
        let (total, dim) = (self.count + other.count, self.mean.len());
        let apart: Vec<f64> = other.mean.iter().zip(&self.mean).map(|(other, own)| other - own).collect();
        let between = self.count * other.count / total;
        for (at, sum) in self.scatter.iter_mut().enumerate() {
            *sum += other.scatter[at] + between * apart[at / dim] * apart[at % dim];
        }
        self.mean.iter_mut().zip(&apart).for_each(|(mean, apart)| *mean += apart * other.count / total);
        self.count = total;
        self
    }

    /// As it is written and read back, so that a run that goes on from a file goes on from the same values.
    fn rounded(mut self) -> Self {
        let values = self.mean.iter_mut().chain(&mut self.scatter);
        values.for_each(|value| *value = f64::from(*value as f32));
        self
    }

    /// The lower factor of the covariance with its ridge, row-major.
    fn factor(&self) -> Vec<f64> {
        let dim = self.mean.len();
        let mut lower = vec![0.0; dim * dim];
        for row in 0..dim {
            for column in 0..=row {
                let inner: f64 = (0..column).map(|inner| lower[row * dim + inner] * lower[column * dim + inner]).sum();
                let covariance = self.scatter[row * dim + column] / (self.count - 1.0).max(1.0);
                if row == column {
                    lower[row * dim + row] = (covariance + RIDGE - inner).max(RIDGE * 1e-3).sqrt();
                } else {
                    lower[row * dim + column] = (covariance - inner) / lower[column * dim + column];
                }
            }
        }
        lower
    }

    /// Features `[count, dim]` around `shrink` times the mean.
    fn draw(&self, count: usize, shrink: f64, seed: Seed) -> Vec<Vec<f32>> {
        let (dim, lower) = (self.mean.len(), self.factor());
        let normals = seed.normals(count * dim, 1.0);
        let one = |noise: &[f32]| {
            let value = |(row, mean): (usize, &f64)| {
                let factors = &lower[row * dim..=row * dim + row];
                let moved: f64 = factors.iter().zip(noise).map(|(factor, noise)| factor * f64::from(*noise)).sum();
                (shrink * mean + moved) as f32
            };
            self.mean.iter().enumerate().map(value).collect()
        };
        normals.chunks_exact(dim.max(1)).map(one).collect()
    }
}

/// The loss of the alignment. A class without a Gaussian, which was learned under another strategy, has no draws: in the softmax it
/// would only be taught to answer nothing.
struct Normalised {
    temperature: f64,
    drawn: Vec<bool>,
}

impl Companion for Normalised {
    fn loss(&self, moment: &Moment<'_>) -> Loss {
        let logits = moment.step.logits.clone();
        let lengths = only(logits.clone(), &self.drawn).powf_scalar(2.0).sum_dim(1).sqrt().clamp_min(1e-7);
        let normalised = logits / (lengths * self.temperature);
        Loss::plain(cross_entropy(among(normalised, &self.drawn), moment.step.labels))
    }
}

impl Slca {
    pub(super) fn new(slow: f64, alignment: Alignment) -> Self {
        Self { slow, alignment, current: Vec::new(), gaussians: BTreeMap::new() }
    }

    /// The head `[classes, dim]` trained further on draws of all classes.
    fn aligned(&self, episode: &Episode<'_>, head: HostTensor) -> Result<HostTensor> {
        let Alignment { draws, epochs, temperature } = self.alignment;
        let seed = Seed::new(episode.recipe.seed).split("alignment");
        // A session of its own: what is drawn goes with it, and a stop waits for the few seconds that this takes.
        let stop = AtomicBool::new(false);
        let (backbone, dataset) = (episode.session.backbone(), episode.session.dataset());
        let control = Control::new(&Silent, &stop);
        let session = Session::new(backbone, dataset, Subset::All, OnBadImage::Fail, control)?;
        let mut train = Vec::new();
        for (class, gaussian) in &self.gaussians {
            let age = (gaussian.first + 1) as f64 / (episode.index + 1) as f64;
            let rows = gaussian.draw(draws, 1.0 - FADE + FADE * age, seed.split(*class));
            for (number, row) in rows.into_iter().enumerate() {
                let id = format!("drawn/{class}/{number}");
                session.give(&id, row);
                train.push(Example::new(id, Source::Row(0), *class));
            }
        }
        let method = MethodConfig::LinearProbe(LinearProbeConfig::default());
        let mut recipe = Recipe { method, ..episode.recipe.clone() };
        recipe.train.budget = Budget::Epochs(epochs);
        let start = session.fresh_adapter(&recipe, episode.classes)?;
        let before = head.clone();
        let start = replaced(start, Parameters::from([(HEAD.to_string(), head)]))?;
        let identity = Digest::of(b"alignment");
        let task = Task {
            recipe: &recipe,
            classes: episode.classes,
            train,
            rehearsal: Vec::new(),
            views: 1,
            start: Some(start),
            identity,
        };
        let folder = tempfile::tempdir().map_err(inarch_core::Error::io("make", std::env::temp_dir()))?;
        let drawn = (0..episode.classes.len()).map(|class| self.gaussians.contains_key(&class)).collect();
        let learned = session.learn(task, &mut Normalised { temperature, drawn }, folder.path())?;
        let mut aligned = learned.adapter.parameters().remove(HEAD).ok_or_else(no_head)?;
        // The optimizer's decay would let rows of which nothing is known fade.
        let dim = aligned.data.len() / episode.classes.len().max(1);
        for class in (0..episode.classes.len()).filter(|class| !self.gaussians.contains_key(class)) {
            let row = class * dim..(class + 1) * dim;
            aligned.data[row.clone()].copy_from_slice(&before.data[row]);
        }
        Ok(aligned)
    }
}

pub(super) fn no_head() -> Error {
    let reason =
        "it aligns the rows of a `linear-probe`; train one, alone or in a stack (`fit.method.name = \"stack\"`)";
    unsuited("slca", reason)
}

/// The name of the head's rows among an adapter's parameters.
fn head_of(method: &MethodConfig, parameters: &Parameters) -> Option<String> {
    let heads = |name: &&String| name.ends_with(HEAD) && method.bound_to_classes();
    parameters.keys().find(heads).cloned()
}

impl Strategy for Slca {
    fn rate(&self, method: &MethodConfig, parameter: &str) -> f64 {
        if method.holds_classes(parameter) { 1.0 } else { self.slow }
    }

    fn begin(&mut self, episode: &Episode<'_>) -> Result<()> {
        if head_of(&episode.recipe.method, &episode.start.parameters()).is_none() {
            return Err(no_head());
        }
        self.current = classes_of(episode);
        Ok(())
    }

    fn loss(&self, moment: &Moment<'_>, _episode: &Episode<'_>) -> Loss {
        own_loss(moment.adapter, moment.step, &self.current)
    }

    fn end(&mut self, episode: &Episode<'_>, adapter: Adapter) -> Result<Outcome> {
        let features = episode.session.adapted_features(&adapter.clone().without_autodiff(), episode.train)?;
        let mut rows: BTreeMap<usize, Vec<&[f32]>> = BTreeMap::new();
        for (row, position) in features.values.chunks_exact(features.dim).zip(&features.kept) {
            rows.entry(episode.train[*position].label).or_default().push(row);
        }
        for (class, rows) in rows {
            let found = Gaussian::of(&rows, episode.index);
            let joined = match self.gaussians.remove(&class) {
                Some(before) => before.joined(&found),
                None => found,
            };
            self.gaussians.insert(class, joined.rounded());
        }
        // Nobody asks before the experience is over.
        if episode.index == 0 || !episode.is_last() {
            return Ok(Outcome::of(adapter));
        }
        let mut parameters = adapter.parameters();
        let name = head_of(&episode.recipe.method, &parameters).ok_or_else(no_head)?;
        let head = parameters.remove(&name).ok_or_else(no_head)?;
        parameters.insert(name, self.aligned(episode, head)?);
        let answer = replaced(adapter.clone(), parameters)?;
        Ok(Outcome { trained: adapter, answer, method: None })
    }

    fn state(&self) -> BTreeMap<String, Parameters> {
        let of = |(class, gaussian): (&usize, &Gaussian)| {
            let dim = gaussian.mean.len();
            let tensor = |name: &str, shape: Vec<usize>, values: &[f64]| {
                let data = values.iter().map(|value| *value as f32).collect();
                (name.to_string(), HostTensor { shape, data, origin: name.into() })
            };
            let parts = Parameters::from([
                tensor("first", vec![1], &[gaussian.first as f64]),
                tensor("count", vec![1], &[gaussian.count]),
                tensor("mean", vec![dim], &gaussian.mean),
                tensor("scatter", vec![dim, dim], &gaussian.scatter),
            ]);
            (format!("gaussian-{class:06}"), parts)
        };
        self.gaussians.iter().map(of).collect()
    }

    fn restore(&mut self, state: BTreeMap<String, Parameters>) {
        let of = |(name, parts): (String, Parameters)| {
            let class = name.strip_prefix("gaussian-")?.parse().ok()?;
            let part = |name: &str| -> Option<Vec<f64>> {
                Some(parts.get(name)?.data.iter().map(|value| f64::from(*value)).collect())
            };
            let one = |name: &str| part(name)?.first().copied();
            let (first, count) = (one("first")? as usize, one("count")?);
            let (mean, scatter) = (part("mean")?, part("scatter")?);
            (scatter.len() == mean.len() * mean.len()).then_some((class, Gaussian { first, count, mean, scatter }))
        };
        self.gaussians = state.into_iter().filter_map(of).collect();
    }
}

#[cfg(test)]
mod tests {
    use inarch_core::Seed;

    use super::{FADE, Gaussian, RIDGE};

    fn rows(seed: u64, count: usize) -> Vec<Vec<f32>> {
        let all = Seed::new(seed).normals(count * 3, 1.0);
        // Correlated, around (1, -2, 3).
        all.chunks(3).map(|z| vec![1.0 + z[0], -2.0 + z[0] + 0.5 * z[1], 3.0 + 0.2 * z[2] - z[1]]).collect()
    }

    fn moments(rows: &[Vec<f32>]) -> (Vec<f64>, Vec<f64>) {
        let count = rows.len() as f64;
        let mean: Vec<f64> = (0..3).map(|at| rows.iter().map(|row| f64::from(row[at])).sum::<f64>() / count).collect();
        let apart = |row: &Vec<f32>, at: usize| f64::from(row[at]) - mean[at];
        let covariance = (0..9)
            .map(|at| rows.iter().map(|row| apart(row, at / 3) * apart(row, at % 3)).sum::<f64>() / (count - 1.0))
            .collect();
        (mean, covariance)
    }

    #[test]
    fn moments_of_parts_join_to_those_of_all_and_draws_have_them() {
        let (left, right) = (rows(1, 40), rows(2, 25));
        fn of(rows: &[Vec<f32>]) -> Gaussian {
            Gaussian::of(&rows.iter().map(Vec::as_slice).collect::<Vec<_>>(), 4)
        }
        let joined = of(&left).joined(&of(&right));
        let (mean, covariance) = moments(&[left, right].concat());
        for (found, expected) in joined.mean.iter().zip(&mean) {
            assert!((found - expected).abs() < 1e-9);
        }
        let lower = joined.factor();
        for (at, expected) in covariance.iter().enumerate() {
            let (row, column) = (at / 3, at % 3);
            assert!((joined.scatter[at] / 64.0 - expected).abs() < 1e-9);
            let product: f64 = (0..3).map(|inner| lower[row * 3 + inner] * lower[column * 3 + inner]).sum();
            let ridge = if row == column { RIDGE } else { 0.0 };
            assert!((product - expected - ridge).abs() < 1e-9);
        }
        let shrink = 1.0 - FADE;
        let (drawn_mean, drawn_covariance) = moments(&joined.draw(20_000, shrink, Seed::new(3)));
        for at in 0..3 {
            assert!((drawn_mean[at] - shrink * mean[at]).abs() < 0.03, "{drawn_mean:?}");
        }
        for at in 0..9 {
            assert!((drawn_covariance[at] - covariance[at]).abs() < 0.06, "{drawn_covariance:?} {covariance:?}");
        }
    }
}
