//! A teacher: scores of examples that an adapter in training is to give again.

use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::{Tensor, TensorData};
use inarch_core::data::Example;

use super::Episode;
use crate::error::Result;

/// Scores `[examples, columns]`, row-major, for the first classes.
#[derive(Default)]
pub(super) struct Teacher {
    scores: Vec<f32>,
    columns: usize,
}

impl Teacher {
    /// Given scores for the first `columns` classes.
    pub(super) fn of(scores: Vec<f32>, columns: usize) -> Self {
        Self { scores, columns }
    }

    /// The adapter before, for the classes known before; it knows nothing where there is none.
    pub(super) fn before(episode: &Episode<'_>, examples: &[Example]) -> Result<Self> {
        let (Some(teacher), true) = (episode.teacher, episode.before > 0) else { return Ok(Self::default()) };
        let known = &episode.classes[..episode.before];
        let scores = episode.session.scores((episode.recipe, known, teacher), examples)?;
        Ok(Self { scores, columns: episode.before })
    }

    /// Whether it has anything to say.
    pub(super) fn knows(&self) -> bool {
        self.columns > 0
    }

    /// Changes each score, given its class.
    pub(super) fn correct(&mut self, of: impl Fn(usize, f32) -> f32) {
        for row in self.scores.chunks_exact_mut(self.columns.max(1)) {
            row.iter_mut().enumerate().for_each(|(class, score)| *score = of(class, *score));
        }
    }

    /// `T^2 KL(teacher || own)` of softmax at temperature `T` over the teacher's classes, mean over the first rows of
    /// `logits`, which are these examples; `[1]`.
    pub(super) fn distance(&self, logits: &Tensor<2>, examples: &[usize], temperature: f64) -> Tensor<1> {
        let (rows, columns) = (examples.len(), self.columns);
        let of = |example: &usize| &self.scores[example * columns..(example + 1) * columns];
        let teacher: Vec<f32> = examples.iter().flat_map(of).copied().collect();
        let device = logits.device().without_autodiff();
        let teacher = Tensor::<2>::from_data(TensorData::new(teacher, [rows, columns]), &device) / temperature;
        let own = logits.clone().narrow(0, 0, rows).narrow(1, 0, columns) / temperature;
        let wanted = softmax(teacher.clone(), 1);
        let apart = wanted * (log_softmax(teacher, 1) - log_softmax(own, 1));
        apart.sum() * (temperature * temperature / rows.max(1) as f64)
    }
}
