//! What a learner by steps remembers, and what it takes out of its memory.

use std::path::PathBuf;

use inarch_core::backbone::{Entry, Sites as _, Tower};
use inarch_core::data::{Example, Source};
use inarch_recipes::Recipe;

use super::{Arrival, GradientLearner, Setting};
use crate::error::Result;
use crate::memory::{Content, Fingerprint, Memory, MemoryConfig, Sample};

impl GradientLearner {
    /// What a training rehearses from: the memory as it was, or as it is with what arrives, where the strategy rehearses that too.
    pub(super) fn rehearsed(
        &self,
        arrival: &Arrival<'_>,
        train: &[Example],
        setting: &Setting<'_>,
    ) -> Result<Option<Memory>> {
        let mut rehearsed = self.memory.clone();
        if let Some(memory) = rehearsed.as_mut().filter(|_| self.strategy.rehearses_arrival()) {
            // Losses are not known yet; to a sampler that asks all are alike. The session keeps the features for the offer
            // after the training.
            let (samples, _) = arrived(arrival, train, setting, memory.config().content, &[])?;
            memory.offer(samples)?;
        }
        Ok(rehearsed)
    }

    /// The samples of a memory as examples; images as their bytes, which lie nowhere in clear where the memory is
    /// encrypted.
    pub(super) fn rehearsal(memory: Option<&Memory>, classes: &[String], setting: &Setting<'_>) -> Vec<Example> {
        let example = |sample: &Sample| -> Option<Example> {
            let label = classes.iter().position(|class| *class == sample.class)?;
            let id = format!("memory/{}", sample.id);
            let source = match &sample.image {
                Some(bytes) => Source::Bytes(PathBuf::from(&id), bytes.as_slice().into()),
                None => {
                    setting.session.give(&id, sample.latent.clone());
                    Source::Row(0)
                }
            };
            Some(Example::new(id, source, label))
        };
        memory.into_iter().flat_map(Memory::samples).filter_map(example).collect()
    }

    /// The examples that may be trained on; all of them where nothing else would be left.
    pub(super) fn open(&self, train: &[Example]) -> Vec<Example> {
        let config = self.memory.as_ref().map_or(&self.memory_config, Memory::config);
        let open: Vec<Example> =
            train.iter().filter(|example| !self.strategy.withholds(&example.id, config)).cloned().collect();
        if open.is_empty() { train.to_vec() } else { open }
    }

    /// The memory before what was learned is in it, and what is to be offered to it, as samples and as examples.
    pub(super) fn offered(
        &self,
        arrival: &Arrival<'_>,
        train: &[Example],
        setting: &Setting<'_>,
        recipe: &Recipe,
    ) -> Result<(Memory, Vec<Sample>, Vec<Example>)> {
        let memory = match &self.memory {
            Some(memory) => memory.clone(),
            None => {
                let (_, adapter) = self.answer()?;
                let whole = adapter.entry(Tower::Image) < Entry::Feature;
                let content = if whole { Content::Images } else { self.memory_config.content };
                let sampler = self.strategy.sampler().unwrap_or(self.memory_config.sampler);
                let config = MemoryConfig { content, sampler, ..self.memory_config };
                Memory::new(config, Fingerprint::of(setting.session.backbone()))?
            }
        };
        let losses = self.losses(train, arrival, setting, recipe, &memory)?;
        let (samples, examples) = arrived(arrival, train, setting, memory.config().content, &losses)?;
        Ok((memory, samples, examples))
    }

    /// The loss of each example, for a sampler that asks.
    fn losses(
        &self,
        train: &[Example],
        arrival: &Arrival<'_>,
        setting: &Setting<'_>,
        recipe: &Recipe,
        memory: &Memory,
    ) -> Result<Vec<f32>> {
        if memory.config().sampler != crate::memory::Sampler::LossAware {
            return Ok(Vec::new());
        }
        let scores = self.scores(recipe, arrival, setting, train)?;
        let columns = arrival.classes.len();
        let loss = |(row, example): (&[f32], &Example)| {
            let greatest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f32 = row.iter().map(|score| (score - greatest).exp()).sum();
            (greatest + sum.ln() - row[example.label]).max(1e-3)
        };
        Ok(scores.chunks_exact(columns).zip(train).map(loss).collect())
    }

    /// Writes the scores of the samples that came now into the memory, where the strategy holds on to scores.
    pub(super) fn record_scores(
        &mut self,
        arrival: &Arrival<'_>,
        setting: &Setting<'_>,
        recipe: &Recipe,
    ) -> Result<()> {
        if !self.strategy.holds_scores() || self.memory.is_none() {
            return Ok(());
        }
        let examples = Self::rehearsal(self.memory.as_ref(), arrival.classes, setting);
        let unscored = self.memory.iter().flat_map(|memory| memory.samples()).map(|sample| sample.scores.is_empty());
        let examples: Vec<Example> =
            examples.into_iter().zip(unscored).filter_map(|(example, unscored)| unscored.then_some(example)).collect();
        if examples.is_empty() {
            return Ok(());
        }
        let scores = self.scores(recipe, arrival, setting, &examples)?;
        let rows = scores.chunks_exact(arrival.classes.len()).map(<[f32]>::to_vec);
        let named = examples.iter().map(|example| example.id.trim_start_matches("memory/").to_string()).zip(rows);
        if let Some(memory) = &mut self.memory {
            memory.set_scores(named);
        }
        Ok(())
    }

    /// Scores of examples by what answers.
    fn scores(
        &self,
        recipe: &Recipe,
        arrival: &Arrival<'_>,
        setting: &Setting<'_>,
        examples: &[Example],
    ) -> Result<Vec<f32>> {
        let (method, adapter) = self.answer()?;
        let recipe = Recipe { method: method.clone(), ..recipe.clone() };
        Ok(setting.session.scores((&recipe, arrival.classes, adapter), examples)?)
    }
}

/// What arrives as samples and as examples, without what cannot be read.
fn arrived(
    arrival: &Arrival<'_>,
    train: &[Example],
    setting: &Setting<'_>,
    content: Content,
    losses: &[f32],
) -> Result<(Vec<Sample>, Vec<Example>)> {
    let features = setting.session.features(train)?;
    let (mut samples, mut examples) = (Vec::new(), Vec::new());
    for (row, position) in features.kept.iter().enumerate() {
        let example = &train[*position];
        let image = match content {
            Content::Images => example.source.file_bytes()?,
            Content::Latents => None,
        };
        samples.push(Sample {
            id: example.id.clone(),
            class: arrival.classes[example.label].clone(),
            source: arrival.source.into(),
            time: arrival.time,
            weight: losses.get(*position).copied().unwrap_or(1.0),
            latent: features.values[row * features.dim..(row + 1) * features.dim].to_vec(),
            image,
            scores: Vec::new(),
        });
        examples.push(example.clone());
    }
    Ok((samples, examples))
}
