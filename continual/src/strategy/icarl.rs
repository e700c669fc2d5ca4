//! iCaRL: a representation that is trained with rehearsal and distillation, and class means of exemplars that answer (Rebuffi et
//! al., 2017, arXiv 1611.07725).
//!
//! Training: `CE(b, m) + weight T^2 KL(before || own)` over rows of the batch and of the memory, the second over the classes known
//! before. The memory herds ([`Sampler::Herding`]). The answer is the class whose mean `mu_c` of normalised features of exemplars,
//! through the trained adapter and normalised again, is nearest to the normalised feature of the image: a
//! [`LinearProbe`] of the means behind what changes image features, since `|u - mu|^2 = 2 - 2 u . mu`. What only gives or changes
//! scores is trained and does not answer.
//!
//! Departures: softmax in place of one sigmoid for each class (as in PyCIL), because scores that are scaled cosines have no zero;
//! herding is by the frozen feature, which never goes stale, and as many are kept as fit, also where that is not the same number for
//! each class. On a method that leaves image features alone the answer is that of `nme`, whatever is trained.

use inarch_core::backbone::{Entry, Sites as _, Tower};
use inarch_peft::{LinearProbe, LinearProbeConfig, Loss, MethodConfig, stacked};
use inarch_recipes::Moment;

use super::teacher::Teacher;
use super::{Adapter, Episode, Outcome, Rehearsal, Strategy};
use crate::error::Result;
use crate::memory::Sampler;

/// Incremental classifier and representation learning.
pub(super) struct Icarl {
    replay: usize,
    weight: f64,
    temperature: f64,
    teacher: Teacher,
}

impl Icarl {
    pub(super) fn new(replay: usize, weight: f64, temperature: f64) -> Self {
        Self { replay, weight, temperature, teacher: Teacher::default() }
    }
}

/// The mean of the normalised rows of each class, `[classes, dim]`, normalised; zeros for a class without a row.
fn class_means(rows: &[f32], labels: &[usize], classes: usize) -> Vec<f32> {
    let dim = rows.len() / labels.len().max(1);
    let mut sums = vec![0.0f64; classes * dim];
    let length = |row: &[f64]| row.iter().map(|value| value * value).sum::<f64>().sqrt().max(1e-12);
    for (row, label) in rows.chunks_exact(dim.max(1)).zip(labels) {
        let row: Vec<f64> = row.iter().map(|value| f64::from(*value)).collect();
        let length = length(&row);
        sums[label * dim..(label + 1) * dim].iter_mut().zip(&row).for_each(|(sum, value)| *sum += value / length);
    }
    let unit = |sum: &[f64]| {
        let length = length(sum);
        sum.iter().map(move |value| (value / length) as f32).collect::<Vec<f32>>()
    };
    sums.chunks(dim.max(1)).flat_map(unit).collect()
}

/// The parts of an adapter that change image features.
fn representation(method: &MethodConfig, adapter: Adapter) -> Vec<(MethodConfig, Adapter)> {
    let parts: Vec<(MethodConfig, Adapter)> = match (method, adapter) {
        (MethodConfig::Stack(config), Adapter::Stack(stack)) => {
            config.members.iter().cloned().zip(stack.members().iter().cloned()).collect()
        }
        (method, adapter) => vec![(method.clone(), adapter)],
    };
    parts.into_iter().filter(|(_, part)| part.entry(Tower::Image) != Entry::Never).collect()
}

impl Strategy for Icarl {
    fn rehearsal(&self) -> Option<Rehearsal> {
        Some(Rehearsal { rows: self.replay, draws: 1 })
    }

    fn sampler(&self) -> Option<Sampler> {
        Some(Sampler::Herding)
    }

    fn begin(&mut self, episode: &Episode<'_>) -> Result<()> {
        self.teacher = Teacher::before(episode, &episode.seen())?;
        Ok(())
    }

    fn loss(&self, moment: &Moment<'_>, _episode: &Episode<'_>) -> Loss {
        let mut loss = moment.adapter.learner().loss(moment.step);
        if self.teacher.knows() {
            let distance = self.teacher.distance(&moment.step.logits, moment.examples, self.temperature);
            loss.task = loss.task + distance * self.weight;
        }
        loss
    }

    fn settle(&mut self, episode: &Episode<'_>, outcome: Outcome) -> Result<Outcome> {
        let trained = outcome.trained.clone().without_autodiff();
        let features = episode.session.adapted_features(&trained, episode.rehearsal)?;
        let labels: Vec<usize> = features.kept.iter().map(|position| episode.rehearsal[*position].label).collect();
        let means = class_means(&features.values, &labels, episode.classes.len());
        let device = episode.session.backbone().device();
        let head = Adapter::LinearProbe(LinearProbe::of(means, features.dim, device));
        let probe = MethodConfig::LinearProbe(LinearProbeConfig::default());
        let parts = representation(&episode.recipe.method, trained).into_iter().chain([(probe, head)]);
        let (method, answer) = stacked(parts)?;
        Ok(Outcome { answer, method: Some(method), ..outcome })
    }
}

#[cfg(test)]
mod tests {
    use super::class_means;

    #[test]
    fn means_are_of_directions_and_have_length_one() {
        let rows = [3.0, 4.0, 0.0, 0.5, 2.0, 0.0];
        let means = class_means(&rows, &[0, 0, 2], 3);
        // (0.6, 0.8) and (0, 1): their sum (0.6, 1.8) has the length 0.6 * sqrt(10).
        let expected = [1.0 / 10f32.sqrt(), 3.0 / 10f32.sqrt(), 0.0, 0.0, 1.0, 0.0];
        means.iter().zip(expected).for_each(|(found, expected)| assert!((found - expected).abs() < 1e-6, "{means:?}"));
    }
}
