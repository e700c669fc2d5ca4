//! What a learner by steps remembers, and what it takes out of its memory.

use std::path::PathBuf;

use inarch_core::Seed;
use inarch_core::backbone::{Entry, Sites as _, Tower};
use inarch_core::data::{ClipConfig, Example, Source};
use inarch_recipes::Recipe;

use super::{Arrival, GradientLearner, Setting};
use crate::error::{Error, Result};
use crate::memory::{Content, Fingerprint, Memory, MemoryConfig, Sample, Sampler};
use crate::strategy::{REMEMBERED, Scope, remembered_id};

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
            let (samples, _) = self.arrived(arrival, train, setting, memory.config(), &[])?;
            memory.offer(samples)?;
        }
        Ok(rehearsed)
    }

    /// Whether batches are joined by samples of the memory.
    pub(crate) fn rehearses(&self) -> bool {
        self.strategy.rehearsal().is_some()
    }

    /// Views of each sample in its memory: one where nothing is rehearsed that could be any of them.
    fn views(&self) -> usize {
        match &self.memory {
            Some(memory) => memory.config().views,
            None if self.rehearses() => self.memory_config.views,
            None => 1,
        }
    }

    /// Refuses what no views can be drawn for, before anything is trained.
    pub(super) fn check_views(&self, arrival: &Arrival<'_>, setting: &Setting<'_>) -> Result<()> {
        let remembers = self.rehearses() || self.config.scope() == Scope::Memory;
        if self.views() < 2 || !remembers {
            return Ok(());
        }
        let refused = |reason: String| Err(Error::setting("memory.views", reason));
        let dataset = setting.session.dataset();
        if dataset.features.is_some() {
            return refused(format!(
                "`{}` holds features, and views are drawn of images; give the images, or keep a memory of one view",
                dataset.name
            ));
        }
        let varies = dataset.clips.as_ref().is_some_and(ClipConfig::draws);
        if self.recipe.augment.draws_nothing() && !varies {
            let reason = "every view would be the centre view; say how they differ, e.g. `fit.augment = { crop = { resized = \
                          { scale = [0.5, 1.0], ratio = [0.75, 1.33] } }, flip = 0.5 }`, or keep a memory of one view";
            return refused(reason.into());
        }
        if setting.session.fresh_adapter(&self.recipe, arrival.classes)?.entry(Tower::Image) < Entry::Feature {
            return refused(format!(
                "`{}` changes the image tower, so its memory keeps images, which are augmented in each step; leave `views` out",
                self.recipe.method.name()
            ));
        }
        Ok(())
    }

    /// The samples of a memory as examples in each of its views: all in the centre view, then all in the next one. Images come as
    /// their bytes, which lie nowhere in clear where the memory is encrypted.
    pub(super) fn in_views(memory: Option<&Memory>, classes: &[String], setting: &Setting<'_>) -> Vec<Example> {
        let Some(memory) = memory else { return Vec::new() };
        let example = |sample: &Sample, view: usize| -> Option<Example> {
            let label = classes.iter().position(|class| *class == sample.class)?;
            let id = match view {
                0 => format!("{REMEMBERED}{}", sample.id),
                _ => format!("memory-view-{view}/{}", sample.id),
            };
            let source = match &sample.image {
                Some(bytes) => Source::Bytes(PathBuf::from(&id), bytes.as_slice().into()),
                None => {
                    setting.session.give(&id, sample.view(view).to_vec());
                    Source::Row(0)
                }
            };
            Some(Example::new(id, source, label))
        };
        let example = &example;
        let of_view = |view: usize| memory.samples().filter_map(move |sample| example(sample, view));
        (0..memory.config().views).flat_map(of_view).collect()
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
                let config = MemoryConfig { content, sampler, views: self.views(), ..self.memory_config };
                Memory::new(config, Fingerprint::of(setting.session.backbone(), setting.session.dataset().window))?
            }
        };
        let losses = self.losses(train, arrival, setting, recipe, &memory)?;
        let (samples, examples) = self.arrived(arrival, train, setting, memory.config(), &losses)?;
        Ok((memory, samples, examples))
    }

    /// The loss of each example that can be read, for a sampler that asks; none where what answers has not learned them, because the
    /// memory is all that is trained on.
    fn losses(
        &self,
        train: &[Example],
        arrival: &Arrival<'_>,
        setting: &Setting<'_>,
        recipe: &Recipe,
        memory: &Memory,
    ) -> Result<Vec<f32>> {
        if memory.config().sampler != Sampler::LossAware || !self.rehearses() {
            return Ok(Vec::new());
        }
        let kept = setting.session.features(train)?.kept;
        let readable: Vec<Example> = kept.into_iter().map(|position| train[position].clone()).collect();
        let scores = self.scores(recipe, arrival, setting, &readable)?;
        let columns = arrival.classes.len();
        let loss = |(row, example): (&[f32], &Example)| {
            let greatest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f32 = row.iter().map(|score| (score - greatest).exp()).sum();
            (greatest + sum.ln() - row[example.label]).max(1e-3)
        };
        Ok(scores.chunks_exact(columns).zip(&readable).map(loss).collect())
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
        let views = Self::in_views(self.memory.as_ref(), arrival.classes, setting);
        let examples = centre(&views, self.memory.as_ref()).iter().cloned();
        let unscored = self.memory.iter().flat_map(|memory| memory.samples()).map(|sample| sample.scores.is_empty());
        let examples: Vec<Example> =
            examples.zip(unscored).filter_map(|(example, unscored)| unscored.then_some(example)).collect();
        if examples.is_empty() {
            return Ok(());
        }
        let scores = self.scores(recipe, arrival, setting, &examples)?;
        let rows = scores.chunks_exact(arrival.classes.len()).map(<[f32]>::to_vec);
        let named = examples.iter().map(|example| remembered_id(example).to_string()).zip(rows);
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

    /// What arrives as samples for a memory of these settings and as examples, without what cannot be read.
    fn arrived(
        &self,
        arrival: &Arrival<'_>,
        train: &[Example],
        setting: &Setting<'_>,
        config: &MemoryConfig,
        losses: &[f32],
    ) -> Result<(Vec<Sample>, Vec<Example>)> {
        let features = setting.session.features(train)?;
        let drawn = self.drawn(train, setting, config, &features.kept)?;
        let further = (config.views - 1) * features.dim;
        let kept: Vec<&Example> = features.kept.iter().map(|position| &train[*position]).collect();
        let images = config.content.images(&kept)?;
        let (mut samples, mut examples) = (Vec::new(), Vec::new());
        for ((row, position), image) in features.kept.iter().enumerate().zip(images) {
            let example = &train[*position];
            samples.push(Sample {
                id: example.id.clone(),
                class: arrival.classes[example.label].clone(),
                source: arrival.source.into(),
                time: arrival.time,
                weight: losses.get(row).copied().unwrap_or(1.0),
                latent: features.values[row * features.dim..(row + 1) * features.dim].to_vec(),
                views: drawn[row * further..(row + 1) * further].to_vec(),
                image,
                scores: Vec::new(),
            });
            examples.push(example.clone());
        }
        Ok((samples, examples))
    }

    /// The latents of the augmented views that a memory keeps of examples, `[kept * (views - 1), dim]`: by its seed and the id of
    /// each, changed as the recipe of the training says.
    fn drawn(
        &self,
        train: &[Example],
        setting: &Setting<'_>,
        config: &MemoryConfig,
        kept: &[usize],
    ) -> Result<Vec<f32>> {
        if config.views < 2 {
            return Ok(Vec::new());
        }
        let seed = Seed::new(config.seed).split("views of the memory");
        let drawn = setting.session.drawn_features(train, config.views - 1, &self.recipe.augment, seed)?;
        match drawn.kept == kept {
            true => Ok(drawn.values),
            false => Err(Error::setting("images", "one could be read in some views only")),
        }
    }
}

/// Those of the views of a memory's samples that are the centre view.
pub(super) fn centre<'v>(views: &'v [Example], memory: Option<&Memory>) -> &'v [Example] {
    &views[..views.len() / memory.map_or(1, |memory| memory.config().views)]
}
