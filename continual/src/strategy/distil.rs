//! Strategies that hold on to answers: LwF to those of the adapter before, ZSCL to those of the frozen backbone.
//!
//! `CE + weight T^2 KL(p_T || q_T)` over what arrives, with the teacher's and the own softmax at temperature `T`. LwF: over the
//! classes known before, the teacher's scores recorded when the experience begins. ZSCL: over all classes known, the teacher
//! being zero-shot; `hold * |theta - theta_before|^2` is added, and the mean of the values along the way answers and is carried on. Before
//! is before the experience, and the way is all of it, also where it comes in chunks.
//!
//! Departures from ZSCL: the reference images are those that arrive instead of ImageNet, only the classes of an image are
//! compared and not the images of a caption too, labels are not smoothed, the mean is taken over every step instead of every
//! hundredth, and only the adapter moves.

use std::collections::BTreeMap;

use inarch_core::backbone::Frozen;
use inarch_peft::{Adapter, Classifier, Loss, Parameters};
use inarch_recipes::{Change, Moment, score};

use super::importance::quadratic;
use super::teacher::Teacher;
use super::weights::replaced;
use super::{Episode, Outcome, Strategy};
use crate::error::Result;

/// Distillation.
pub(super) struct Distil {
    weight: f64,
    temperature: f64,
    /// Weight of the distance to the values before, and a mean along the way; for ZSCL.
    hold: Option<f64>,
    /// Of each training example.
    teacher: Teacher,
    /// Ones and the values before, where they hold.
    held: Option<(Parameters, Parameters)>,
    mean: Parameters,
    steps: Parameters,
}

impl Distil {
    pub(super) fn from_before(weight: f64, temperature: f64) -> Self {
        let (mean, steps) = (Parameters::new(), Parameters::new());
        Self { weight, temperature, hold: None, teacher: Teacher::default(), held: None, mean, steps }
    }

    pub(super) fn from_frozen(weight: f64, temperature: f64, hold: f64) -> Self {
        Self { hold: Some(hold), ..Self::from_before(weight, temperature) }
    }

    fn count(&self) -> f32 {
        self.steps.get("steps").and_then(|steps| steps.data.first()).copied().unwrap_or(0.0)
    }
}

impl Strategy for Distil {
    fn begin(&mut self, episode: &Episode<'_>) -> Result<()> {
        self.teacher = Teacher::default();
        if episode.is_first() {
            (self.mean, self.steps) = (Parameters::new(), Parameters::new());
        }
        if self.hold.is_some() {
            let backbone = episode.session.backbone();
            let classifier = Classifier::zero_shot(backbone, episode.classes, &episode.recipe.templates.resolve()?)?;
            let features = episode.session.features(episode.train)?;
            let scores = score(backbone, &classifier, &Frozen, &features);
            self.teacher = Teacher::of(scores, episode.classes.len());
            if episode.is_first() {
                let before = episode.start.parameters();
                let mut ones = before.clone();
                ones.values_mut().for_each(|tensor| tensor.data.fill(1.0));
                self.held = Some((ones, before));
            }
        } else {
            self.teacher = Teacher::before(episode, episode.train)?;
        }
        Ok(())
    }

    fn loss(&self, moment: &Moment<'_>, _episode: &Episode<'_>) -> Loss {
        let mut loss = moment.adapter.learner().loss(moment.step);
        if self.teacher.knows() {
            let examples = &moment.examples[..moment.fresh];
            let distance = self.teacher.distance(&moment.step.logits, examples, self.temperature);
            loss.task = loss.task + distance * self.weight;
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

    fn end(&mut self, episode: &Episode<'_>, adapter: Adapter) -> Result<Outcome> {
        if self.mean.is_empty() {
            return Ok(Outcome::of(adapter));
        }
        let answer = replaced(adapter.clone(), self.mean.clone())?;
        if !episode.is_last() {
            return Ok(Outcome { trained: adapter, answer, method: None });
        }
        (self.mean, self.steps) = (Parameters::new(), Parameters::new());
        Ok(Outcome::of(answer))
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
