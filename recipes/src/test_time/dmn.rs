//! DMN: a dynamic memory of images for each class, read by attention (Zhang et al., CVPR 2024, arXiv 2403.17589); the part
//! that needs no labels.
//!
//! Each class has up to `capacity` features and its text `[dim]`. For the feature `f` of the centre view, class `c` answers
//! with `C_c = sum_j exp(-beta (1 - f M_cj)) M_cj`, normalised, over its memory; the probabilities are those of zero-shot
//! plus `alpha` times those of `scale f C^T`. The image enters the memory of its predicted class first; in a full one the
//! image of greatest entropy leaves, whatever the new one's is. `dmn` predicts that class from the mean scores of the
//! surest tenth of the views, `dmn-weak` from the centre view. Nothing is trained.

use inarch_core::backbone::Backbone;
use serde::{Deserialize, Serialize};

use super::confidence::{confident, floored_entropy, greatest, softmax};
use super::episode::{Admission, Answer, Episode};
use super::method::{Adapt, MethodSettings, MethodState, Needs, within};
use super::queue::{Entry, Queues, most_bytes};
use super::rows::{Rows, add_scaled, dot, to_unit};
use super::world::World;
use crate::error::Result;

/// Settings of DMN with views.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DmnConfig {
    /// Weight of the memory's probabilities.
    pub alpha: f64,
    /// Sharpness of the attention.
    pub beta: f64,
    /// Images kept of each class.
    pub capacity: usize,
    /// Share of the views whose mean predicts the class.
    pub keep: f64,
}

impl Default for DmnConfig {
    fn default() -> Self {
        Self { alpha: 1.0, beta: 5.5, capacity: 50, keep: 0.1 }
    }
}

/// Settings of DMN from centre views alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DmnWeakConfig {
    /// Weight of the memory's probabilities.
    pub alpha: f64,
    /// Sharpness of the attention.
    pub beta: f64,
    /// Images kept of each class.
    pub capacity: usize,
}

impl Default for DmnWeakConfig {
    fn default() -> Self {
        Self { alpha: 1.0, beta: 5.5, capacity: 50 }
    }
}

impl MethodSettings for DmnConfig {
    fn needs(&self, _backbone: Option<&Backbone>) -> Needs {
        Needs { online: true, ..Needs::VIEWS }
    }

    fn check(&self) -> std::result::Result<(), String> {
        within("alpha", self.alpha, 0.0..=1e4)?;
        within("beta", self.beta, 0.0..=1e4)?;
        within("capacity", self.capacity as f64, 1.0..=1e6)?;
        within("keep", self.keep, 0.0..=1.0)
    }

    fn most_bytes(&self, classes: usize, dim: usize) -> usize {
        most_bytes(classes, self.capacity, dim)
    }

    fn begin(&self, world: &World<'_>, _length: Option<usize>) -> Result<Box<dyn Adapt>> {
        let (classes, dim) = (world.classes, world.dim);
        Ok(Box::new(Dmn { config: self.clone(), centre: false, memory: Queues::default(), classes, dim }))
    }
}

impl DmnWeakConfig {
    fn whole(&self) -> DmnConfig {
        let Self { alpha, beta, capacity } = *self;
        DmnConfig { alpha, beta, capacity, ..DmnConfig::default() }
    }
}

impl MethodSettings for DmnWeakConfig {
    fn needs(&self, _backbone: Option<&Backbone>) -> Needs {
        Needs { online: true, ..Needs::CENTRE }
    }

    fn check(&self) -> std::result::Result<(), String> {
        self.whole().check()
    }

    fn most_bytes(&self, classes: usize, dim: usize) -> usize {
        self.whole().most_bytes(classes, dim)
    }

    fn begin(&self, world: &World<'_>, _length: Option<usize>) -> Result<Box<dyn Adapt>> {
        let (classes, dim) = (world.classes, world.dim);
        Ok(Box::new(Dmn { config: self.whole(), centre: true, memory: Queues::default(), classes, dim }))
    }
}

struct Dmn {
    config: DmnConfig,
    /// Whether the centre view alone predicts the class.
    centre: bool,
    memory: Queues,
    classes: usize,
    dim: usize,
}

impl Dmn {
    fn answer(&mut self, world: &World<'_>, episode: &Episode) -> Answer {
        let feature = episode.features.row(0);
        let views = if self.centre { vec![0] } else { confident(&episode.logits, self.config.keep) };
        let mean = episode.logits.select(&views).mean();
        let (class, entropy) = (greatest(&mean), floored_entropy(&softmax(&mean)));
        let admission = self.admit(class, Entry::new(&episode.id, entropy, feature));
        let read = Rows::new(self.dim, self.read(feature, &episode.text));
        let remembered = world.logits(&episode.features.select(&[0]), &read);
        let mut shares = softmax(episode.logits.row(0));
        add_scaled(&mut shares, self.config.alpha as f32, &softmax(remembered.row(0)));
        Answer::probabilities(&shares).with_admitted([admission])
    }

    /// Takes the image in; in a full memory it takes the place of the unsurest, so the order of the others stays.
    fn admit(&mut self, class: usize, entry: Entry) -> Admission {
        let entropy = entry.entropy;
        let slots = self.memory.of_class.entry(class).or_default();
        let replaced = if slots.len() < self.config.capacity {
            slots.push(entry);
            None
        } else {
            let entropies: Vec<f32> = slots.iter().map(|slot| slot.entropy).collect();
            Some(std::mem::replace(&mut slots[greatest(&entropies)], entry).id)
        };
        Admission { memory: "memory".into(), class, entropy, replaced }
    }

    /// What each class answers, `[classes, dim]`.
    fn read(&self, feature: &[f32], text: &Rows) -> Vec<f32> {
        let beta = self.config.beta as f32;
        let mut answers = Vec::with_capacity(self.classes * self.dim);
        for (class, text) in text.iter().enumerate() {
            let mut answer = vec![0.0; self.dim];
            let slots = self.memory.of_class.get(&class).map_or(&[][..], Vec::as_slice);
            for row in slots.iter().map(|slot| slot.feature.as_slice()).chain([text]) {
                add_scaled(&mut answer, (-beta * (1.0 - dot(feature, row))).exp(), row);
            }
            to_unit(&mut answer);
            answers.extend(answer);
        }
        answers
    }
}

impl Adapt for Dmn {
    fn adapt(&mut self, world: &World<'_>, episodes: &[Episode]) -> Result<Vec<Answer>> {
        Ok(episodes.iter().map(|episode| self.answer(world, episode)).collect())
    }

    fn reset(&mut self) {
        self.memory = Queues::default();
    }

    fn state(&self) -> MethodState {
        let mut state = MethodState::default();
        self.memory.save("memory", self.dim, &mut state);
        state
    }

    fn restore(&mut self, mut state: MethodState) -> std::result::Result<(), String> {
        self.memory = Queues::load("memory", self.classes, self.dim, &mut state)?;
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.memory.bytes()
    }
}
