//! BoostAdapter: TDA's caches, joined for each image by its own surest views (Zhang et al., 2024, arXiv 2410.15430).
//!
//! As [TDA](super::tda), but a copy of the cache of sure images takes in the surest tenth of the image's views
//! `[views, dim]` as well, with room for `delta` more of each class, and scores the centre view. The oldest unsure image
//! leaves its queue, as in the authors' code. Nothing is trained.

use inarch_core::backbone::Backbone;
use serde::{Deserialize, Serialize};

use super::confidence::{confident, floored_entropy, greatest, softmax};
use super::episode::{Answer, Episode};
use super::method::{Adapt, MethodSettings, MethodState, Needs, within};
use super::queue::{Entry, Leaves};
use super::tda::{Caches, TdaConfig};
use super::world::World;
use crate::error::Result;

/// Settings of BoostAdapter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BoostAdapterConfig {
    /// Weight of the sure images.
    pub alpha: f64,
    /// Sharpness of the sure images.
    pub beta: f64,
    /// Sure images kept of each class.
    pub capacity: usize,
    /// Room for the image's own views, beside `capacity`.
    pub delta: usize,
    /// Share of the views that join.
    pub keep: f64,
    /// Weight of the unsure images; 0 for none.
    pub negative_alpha: f64,
    /// Sharpness of the unsure images.
    pub negative_beta: f64,
    /// Unsure images kept of each class.
    pub negative_capacity: usize,
}

impl Default for BoostAdapterConfig {
    fn default() -> Self {
        let TdaConfig { alpha, beta, capacity, negative_alpha, negative_beta, negative_capacity } =
            TdaConfig::default();
        Self { alpha, beta, capacity, delta: 1, keep: 0.1, negative_alpha, negative_beta, negative_capacity }
    }
}

impl BoostAdapterConfig {
    fn caches(&self) -> TdaConfig {
        let Self { alpha, beta, capacity, negative_alpha, negative_beta, negative_capacity, .. } = *self;
        TdaConfig { alpha, beta, capacity, negative_alpha, negative_beta, negative_capacity }
    }
}

impl MethodSettings for BoostAdapterConfig {
    fn needs(&self, _backbone: Option<&Backbone>) -> Needs {
        Needs { online: true, ..Needs::VIEWS }
    }

    fn check(&self) -> std::result::Result<(), String> {
        within("keep", self.keep, 0.0..=1.0)?;
        within("delta", self.delta as f64, 0.0..=1e4)?;
        self.caches().check_caches()
    }

    fn most_bytes(&self, classes: usize, dim: usize) -> usize {
        self.caches().bytes_of_caches(classes, dim)
    }

    fn begin(&self, world: &World<'_>, _length: Option<usize>) -> Result<Box<dyn Adapt>> {
        Ok(Box::new(BoostAdapter { config: self.clone(), caches: Caches::new(world) }))
    }
}

struct BoostAdapter {
    config: BoostAdapterConfig,
    caches: Caches,
}

impl BoostAdapter {
    fn answer(&mut self, episode: &Episode) -> Answer {
        let Self { config, caches } = self;
        let (feature, logits) = (episode.features.row(0), episode.logits.row(0));
        let probabilities = softmax(logits);
        let class = greatest(logits);
        let entry = Entry::new(&episode.id, floored_entropy(&probabilities), feature);
        let sure = caches.positive.admit("positive", class, entry, config.capacity, Leaves::Unsurest);
        let mut joined = caches.positive.clone();
        for view in confident(&episode.logits, config.keep) {
            let scores = episode.logits.row(view);
            let entry = Entry::new(&episode.id, floored_entropy(&softmax(scores)), episode.features.row(view));
            joined.admit("views", greatest(scores), entry, config.capacity + config.delta, Leaves::Unsurest);
        }
        let unsure = caches.admit_unsure(&config.caches(), episode, &probabilities, class, Leaves::Oldest);
        let mut scores = logits.to_vec();
        joined.vote_for(feature, config.alpha as f32, config.beta as f32, &mut scores);
        let (alpha, beta) = (config.negative_alpha as f32, config.negative_beta as f32);
        caches.negative.vote_against(feature, alpha, beta, &mut scores);
        Answer::scores(scores).with_admitted(sure.into_iter().chain(unsure))
    }
}

impl Adapt for BoostAdapter {
    fn adapt(&mut self, _world: &World<'_>, episodes: &[Episode]) -> Result<Vec<Answer>> {
        Ok(episodes.iter().map(|episode| self.answer(episode)).collect())
    }

    fn reset(&mut self) {
        self.caches.clear();
    }

    fn state(&self) -> MethodState {
        self.caches.save()
    }

    fn restore(&mut self, state: MethodState) -> std::result::Result<(), String> {
        self.caches.load(state)
    }

    fn bytes(&self) -> usize {
        self.caches.bytes()
    }
}
