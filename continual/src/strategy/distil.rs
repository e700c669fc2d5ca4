//! Strategies that hold on to answers: LwF to those of the adapter before, ZSCL to those of the frozen backbone.
//!
//! `CE + weight T^2 KL(p_T || q_T)` over what arrives, with the teacher's and the own softmax at temperature `T`. LwF: over the
//! classes known before, the teacher's scores recorded when the experience begins. ZSCL: over all classes known, the teacher
//! being zero-shot; `hold * |theta - theta_before|^2` is added, and the mean of the values along the way answers.
//!
//! Departures from ZSCL: the reference images are those that arrive instead of ImageNet, the mean is taken over every step
//! instead of every hundredth, and only the adapter moves.

use std::collections::BTreeMap;

use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::{Tensor, TensorData};
use inarch_core::backbone::Frozen;
use inarch_peft::{Adapter, Classifier, Loss, Parameters};
use inarch_recipes::{Change, Moment, score};

use super::importance::quadratic;
use super::weights::replaced;
use super::{Episode, Outcome, Strategy};
use crate::error::Result;

/// Distillation.
pub(super) struct Distil {
    weight: f64,
    temperature: f64,
    /// Weight of the distance to the values before, and a mean along the way; for ZSCL.
    hold: Option<f64>,
    /// The teacher's scores of each training example.
    scores: Vec<f32>,
    columns: usize,
    /// Ones and the values before, where they hold.
    held: Option<(Parameters, Parameters)>,
    mean: Parameters,
    steps: Parameters,
}

impl Distil {
    pub(super) fn from_before(weight: f64, temperature: f64) -> Self {
        let (mean, steps) = (Parameters::new(), Parameters::new());
        Self { weight, temperature, hold: None, scores: Vec::new(), columns: 0, held: None, mean, steps }
    }

    pub(super) fn from_frozen(weight: f64, temperature: f64, hold: f64) -> Self {
        Self { hold: Some(hold), ..Self::from_before(weight, temperature) }
    }

    /// `T^2 KL` between the teacher's and the own scores of rows, `[1]`.
    fn distance(&self, logits: &Tensor<2>, examples: &[usize]) -> Tensor<1> {
        let (rows, columns) = (examples.len(), self.columns);
        let of = |example: &usize| &self.scores[example * columns..(example + 1) * columns];
        let teacher: Vec<f32> = examples.iter().flat_map(of).copied().collect();
        let device = logits.device().without_autodiff();
        let teacher = Tensor::<2>::from_data(TensorData::new(teacher, [rows, columns]), &device) / self.temperature;
        let own = logits.clone().narrow(0, 0, rows).narrow(1, 0, columns) / self.temperature;
        let wanted = softmax(teacher.clone(), 1);
        let apart = wanted * (log_softmax(teacher, 1) - log_softmax(own, 1));
        apart.sum() * (self.temperature * self.temperature / rows.max(1) as f64)
    }

    fn count(&self) -> f32 {
        self.steps.get("steps").and_then(|steps| steps.data.first()).copied().unwrap_or(0.0)
    }
}

impl Strategy for Distil {
    fn begin(&mut self, episode: &Episode<'_>) -> Result<()> {
        (self.scores, self.columns) = (Vec::new(), 0);
        (self.mean, self.steps) = (Parameters::new(), Parameters::new());
        if self.hold.is_some() {
            let backbone = episode.session.backbone();
            let classifier = Classifier::zero_shot(backbone, episode.classes, &episode.recipe.templates.resolve()?)?;
            let features = episode.session.features(episode.train)?;
            self.columns = episode.classes.len();
            self.scores = score(backbone, &classifier, &Frozen, &features);
            let before = episode.start.parameters();
            let mut ones = before.clone();
            ones.values_mut().for_each(|tensor| tensor.data.fill(1.0));
            self.held = Some((ones, before));
        } else if let (Some(teacher), true) = (episode.teacher, episode.before > 0) {
            let known = &episode.classes[..episode.before];
            self.columns = episode.before;
            self.scores = episode.session.scores((episode.recipe, known, teacher), episode.train)?;
        }
        Ok(())
    }

    fn loss(&self, moment: &Moment<'_>, _episode: &Episode<'_>) -> Loss {
        let mut loss = moment.adapter.learner().loss(moment.step);
        if self.columns > 0 {
            let examples = &moment.examples[..moment.fresh];
            loss.task = loss.task + self.distance(&moment.step.logits, examples) * self.weight;
        }
        if let (Some(hold), Some((ones, before))) = (self.hold, &self.held)
            && let Some(distance) = quadratic(moment.adapter, ones, before)
        {
            loss.task = loss.task + distance * hold;
        }
        loss
    }

    fn watches(&self) -> bool {
        self.hold.is_some()
    }

    fn stepped(&mut self, change: &Change<'_>) {
        // The running mean begins with the values before the first step.
        if self.mean.is_empty() {
            self.mean = change.before.clone();
        }
        let steps = self.count() + 1.0;
        for (name, mean) in &mut self.mean {
            let Some(after) = change.after.get(name) else { continue };
            mean.data.iter_mut().zip(&after.data).for_each(|(mean, value)| *mean += (value - *mean) / (steps + 1.0));
        }
        let tensor = inarch_core::backbone::HostTensor { shape: vec![1], data: vec![steps], origin: "steps".into() };
        self.steps.insert("steps".into(), tensor);
    }

    fn end(&mut self, _episode: &Episode<'_>, adapter: Adapter) -> Result<Outcome> {
        let adapter = if self.mean.is_empty() { adapter } else { replaced(adapter, self.mean.clone())? };
        (self.mean, self.steps) = (Parameters::new(), Parameters::new());
        Ok(Outcome { trained: adapter.clone(), answer: adapter })
    }

    fn state(&self) -> BTreeMap<String, Parameters> {
        // Scores and held values are found again when an experience begins.
        let parts = [("mean", &self.mean), ("steps", &self.steps)].into_iter().filter(|(_, part)| !part.is_empty());
        parts.map(|(name, part)| (name.to_string(), part.clone())).collect()
    }

    fn restore(&mut self, mut state: BTreeMap<String, Parameters>) {
        let mut take = |name: &str| state.remove(name).unwrap_or_default();
        (self.mean, self.steps) = (take("mean"), take("steps"));
    }
}
