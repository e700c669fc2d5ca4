//! OnZeta: online labels that keep the classes balanced, and class vectors learned from them (Qian and Hu, 2024, arXiv
//! 2408.13320).
//!
//! For image `i`: `t = softmax(logits) e^rho`, normalised; `rho = max(0, rho - (c_r / sqrt i) (t - alpha / C))`;
//! `v = softmax(f W / tau)` with class vectors `W` `[classes, dim]` that start as the texts; the answer is `b v + (1 - b) t`
//! with `b = beta sqrt(i / length)`; then `W = W - (c_w / (tau sqrt i)) (v - t) f`, normalised. The length of the stream must
//! be known or guessed; beyond it `b` stays. Uses the centre view.

use inarch_core::backbone::{Backbone, HostTensor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::confidence::softmax;
use super::episode::{Answer, Episode};
use super::method::{Adapt, MethodSettings, MethodState, Needs, within};
use super::rows::{add_scaled, dot, to_unit};
use super::world::World;
use crate::error::Result;

/// The length of a stream of which nothing is known.
const UNKNOWN_LENGTH: usize = 1000;

/// Settings of OnZeta.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OnZetaConfig {
    /// Least share of a class, as a part of an equal share; 0 lets classes stay empty.
    pub alpha: f64,
    /// Weight of the learned class vectors at the end of the stream.
    pub beta: f64,
    /// Rate of the class vectors.
    pub vector_rate: f64,
    /// Rate of the balance.
    pub balance_rate: f64,
    /// Temperature of the class vectors.
    pub temperature: f64,
    /// Images in the stream; 0 takes the number of images at hand, or 1000 where that is not known.
    pub length: usize,
}

impl Default for OnZetaConfig {
    fn default() -> Self {
        Self { alpha: 1.0, beta: 0.4, vector_rate: 0.5, balance_rate: 20.0, temperature: 0.04, length: 0 }
    }
}

impl MethodSettings for OnZetaConfig {
    fn needs(&self, _backbone: Option<&Backbone>) -> Needs {
        Needs { online: true, fixed_text: true, ..Needs::CENTRE }
    }

    fn check(&self) -> std::result::Result<(), String> {
        within("alpha", self.alpha, 0.0..=1.0)?;
        within("beta", self.beta, 0.0..=1.0)?;
        within("vector_rate", self.vector_rate, 0.0..=1e3)?;
        within("balance_rate", self.balance_rate, 0.0..=1e6)?;
        within("temperature", self.temperature, 1e-4..=100.0)
    }

    fn most_bytes(&self, classes: usize, dim: usize) -> usize {
        4 * classes * (dim + 1)
    }

    fn begin(&self, world: &World<'_>, length: Option<usize>) -> Result<Box<dyn Adapt>> {
        let length = if self.length > 0 { self.length } else { length.unwrap_or(UNKNOWN_LENGTH).max(1) };
        let (classes, dim) = (world.classes, world.dim);
        Ok(Box::new(OnZeta {
            config: self.clone(),
            length,
            classes,
            dim,
            seen: 0,
            vectors: Vec::new(),
            balance: vec![0.0; classes],
        }))
    }
}

struct OnZeta {
    config: OnZetaConfig,
    length: usize,
    classes: usize,
    dim: usize,
    seen: usize,
    /// `[classes, dim]`; empty before the first image.
    vectors: Vec<f32>,
    balance: Vec<f32>,
}

impl OnZeta {
    fn answer(&mut self, episode: &Episode) -> Answer {
        if self.vectors.is_empty() {
            self.vectors = episode.text.values().to_vec();
        }
        let Self { config, classes, dim, .. } = self;
        let feature = episode.features.row(0);
        let root = ((self.seen + 1) as f32).sqrt();
        let progress = ((self.seen + 1) as f64 / self.length as f64).min(1.0);
        let share = (config.beta * progress.sqrt()) as f32;

        // The balance as an exponent: as a factor it outgrows its number for a class that never comes.
        let balanced: Vec<f32> =
            episode.logits.row(0).iter().zip(&self.balance).map(|(logit, balance)| logit + balance).collect();
        let labels = softmax(&balanced);
        let (rate, least) = (config.balance_rate as f32 / root, config.alpha as f32 / *classes as f32);
        for (balance, label) in self.balance.iter_mut().zip(&labels) {
            *balance = (*balance - rate * (label - least)).max(0.0);
        }

        let temperature = config.temperature as f32;
        let scores: Vec<f32> = self.vectors.chunks_exact(*dim).map(|row| dot(feature, row) / temperature).collect();
        let seen = softmax(&scores);
        let rate = config.vector_rate as f32 / root / temperature;
        let mut answer = Vec::with_capacity(*classes);
        for ((row, seen), label) in self.vectors.chunks_exact_mut(*dim).zip(&seen).zip(&labels) {
            answer.push(share * seen + (1.0 - share) * label);
            add_scaled(row, -rate * (seen - label), feature);
            to_unit(row);
        }
        self.seen += 1;
        Answer::probabilities(&answer)
    }
}

impl Adapt for OnZeta {
    fn adapt(&mut self, _world: &World<'_>, episodes: &[Episode]) -> Result<Vec<Answer>> {
        Ok(episodes.iter().map(|episode| self.answer(episode)).collect())
    }

    fn reset(&mut self) {
        self.seen = 0;
        self.vectors.clear();
        self.balance.fill(0.0);
    }

    fn state(&self) -> MethodState {
        let mut state = MethodState::default();
        let rows = self.vectors.len() / self.dim;
        for (name, shape, data) in
            [("vectors", vec![rows, self.dim], &self.vectors), ("balance", vec![self.classes], &self.balance)]
        {
            state.tensors.insert(name.into(), HostTensor { shape, data: data.clone(), origin: name.into() });
        }
        state.values.insert("seen".into(), Value::from(self.seen));
        state.values.insert("length".into(), Value::from(self.length));
        state
    }

    fn restore(&mut self, mut state: MethodState) -> std::result::Result<(), String> {
        let mut tensor = |name: &str| state.tensors.remove(name).ok_or_else(|| format!("`{name}` is missing"));
        let (vectors, balance) = (tensor("vectors")?, tensor("balance")?);
        let rows = vectors.data.len() / self.dim;
        let fits = [0, self.classes].contains(&rows) && vectors.shape == [rows, self.dim];
        if !fits || balance.data.len() != self.classes {
            return Err(format!("class vectors {:?} do not fit {} classes", vectors.shape, self.classes));
        }
        let number = |name: &str| {
            let value = state.values.get(name).and_then(Value::as_u64);
            value.map(|value| value as usize).ok_or_else(|| format!("`{name}` is missing"))
        };
        (self.seen, self.length) = (number("seen")?, number("length")?.max(1));
        (self.vectors, self.balance) = (vectors.data, balance.data);
        Ok(())
    }

    fn bytes(&self) -> usize {
        4 * (self.vectors.len() + self.balance.len())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::rows::Rows;
    use super::{Episode, OnZeta, OnZetaConfig};

    #[test]
    fn a_class_that_never_comes_outweighs_all_and_stays_a_number() {
        let rows = |values: &[f32]| Rows::new(2, values.to_vec());
        let episode = Episode {
            id: "1".into(),
            features: rows(&[1.0, 0.0]),
            // So sure that the other class has no probability in single precision.
            logits: rows(&[200.0, 0.0]),
            text: Arc::new(rows(&[1.0, 0.0, 0.0, 1.0])),
            from_files: 0,
            stream: None,
            judged: None,
        };
        let config = OnZetaConfig { balance_rate: 1000.0, ..OnZetaConfig::default() };
        let (vectors, balance) = (Vec::new(), vec![0.0; 2]);
        let mut method = OnZeta { config, length: 4, classes: 2, dim: 2, seen: 0, vectors, balance };
        let answers: Vec<Vec<f32>> = (0..4).map(|_| method.answer(&episode).scores).collect();
        assert!(answers.iter().flatten().chain(&method.vectors).all(|value| value.is_finite()), "{answers:?}");
        assert!(answers[0][0] > answers[0][1] && answers[1][1] > answers[1][0], "{answers:?}");
    }
}
