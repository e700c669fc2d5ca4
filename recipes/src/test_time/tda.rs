//! TDA: a cache of sure images votes for classes, a cache of unsure ones against (Karmanov et al., 2024, arXiv 2403.18293).
//!
//! `logits + alpha exp(-beta (1 - f K+)) V+ - 0.117 exp(-(1 - f K-)) V-` with the feature `f` `[dim]` of the centre view,
//! three images of least entropy for each predicted class in `K+` `[n, dim]`, two in `K-`, one-hot classes `V+` and, for
//! an unsure image, the classes between 0.03 and 1 of its probabilities in `V-`. An image enters `K-` when its entropy in
//! nats over `log2 C` lies between 0.2 and 0.5 (nats over bits, as the authors have it). The image itself is in the caches
//! when it is scored. Nothing is trained. Alpha and beta are searched for each data set by the authors; the defaults are
//! those of ImageNet.

use inarch_core::backbone::Backbone;
use serde::{Deserialize, Serialize};

use super::confidence::{floored_entropy, greatest, softmax};
use super::episode::{Admission, Answer, Episode};
use super::method::{Adapt, MethodSettings, MethodState, Needs, within};
use super::queue::{Entry, Leaves, Queues, most_bytes};
use super::world::World;
use crate::error::Result;

/// Bounds of the probabilities that count as an unsure guess.
const GUESSED: std::ops::Range<f32> = 0.03..1.0;
/// Bounds of the scaled entropy of an unsure image.
const UNSURE: (f32, f32) = (0.2, 0.5);

/// Settings of TDA.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TdaConfig {
    /// Weight of the sure images.
    pub alpha: f64,
    /// Sharpness of the sure images.
    pub beta: f64,
    /// Sure images kept of each class.
    pub capacity: usize,
    /// Weight of the unsure images; 0 for none.
    pub negative_alpha: f64,
    /// Sharpness of the unsure images.
    pub negative_beta: f64,
    /// Unsure images kept of each class.
    pub negative_capacity: usize,
}

impl Default for TdaConfig {
    fn default() -> Self {
        Self { alpha: 2.0, beta: 5.0, capacity: 3, negative_alpha: 0.117, negative_beta: 1.0, negative_capacity: 2 }
    }
}

impl TdaConfig {
    pub(super) fn check_caches(&self) -> std::result::Result<(), String> {
        within("alpha", self.alpha, 0.0..=1e4)?;
        within("beta", self.beta, 0.0..=1e4)?;
        within("negative_alpha", self.negative_alpha, 0.0..=1e4)?;
        within("negative_beta", self.negative_beta, 0.0..=1e4)?;
        within("capacity", self.capacity as f64, 1.0..=1e4)?;
        within("negative_capacity", self.negative_capacity as f64, 1.0..=1e4)
    }

    pub(super) fn bytes_of_caches(&self, classes: usize, dim: usize) -> usize {
        // Of probabilities above 0.03 there are 33 at most.
        most_bytes(classes, self.capacity, dim) + most_bytes(classes, self.negative_capacity, dim + 66)
    }
}

impl MethodSettings for TdaConfig {
    fn needs(&self, _backbone: Option<&Backbone>) -> Needs {
        Needs { online: true, ..Needs::CENTRE }
    }

    fn check(&self) -> std::result::Result<(), String> {
        self.check_caches()
    }

    fn most_bytes(&self, classes: usize, dim: usize) -> usize {
        self.bytes_of_caches(classes, dim)
    }

    fn begin(&self, world: &World<'_>, _length: Option<usize>) -> Result<Box<dyn Adapt>> {
        Ok(Box::new(Tda { config: self.clone(), caches: Caches::new(world) }))
    }
}

/// The two caches; BoostAdapter has the same.
pub(super) struct Caches {
    pub(super) positive: Queues,
    pub(super) negative: Queues,
    classes: usize,
    dim: usize,
}

impl Caches {
    pub(super) fn new(world: &World<'_>) -> Self {
        Self { positive: Queues::default(), negative: Queues::default(), classes: world.classes, dim: world.dim }
    }

    /// Takes the image into the cache of unsure ones, if it is unsure.
    pub(super) fn admit_unsure(
        &mut self,
        config: &TdaConfig,
        episode: &Episode,
        probabilities: &[f32],
        class: usize,
        leaves: Leaves,
    ) -> Option<Admission> {
        let entropy = floored_entropy(probabilities);
        let scaled = entropy / (self.classes as f32).log2();
        if config.negative_alpha == 0.0 || !(UNSURE.0 < scaled && scaled < UNSURE.1) {
            return None;
        }
        let guessed = |class: &usize| GUESSED.start < probabilities[*class] && probabilities[*class] < GUESSED.end;
        let against = (0..self.classes).filter(guessed).collect();
        let entry = Entry { against, ..Entry::new(&episode.id, entropy, episode.features.row(0)) };
        self.negative.admit("negative", class, entry, config.negative_capacity, leaves)
    }

    pub(super) fn save(&self) -> MethodState {
        let mut state = MethodState::default();
        self.positive.save("positive", self.dim, &mut state);
        self.negative.save("negative", self.dim, &mut state);
        state
    }

    pub(super) fn load(&mut self, mut state: MethodState) -> std::result::Result<(), String> {
        let mut load = |name| Queues::load(name, self.classes, self.dim, &mut state);
        let (positive, negative) = (load("positive")?, load("negative")?);
        (self.positive, self.negative) = (positive, negative);
        Ok(())
    }

    pub(super) fn clear(&mut self) {
        (self.positive, self.negative) = Default::default();
    }

    pub(super) fn bytes(&self) -> usize {
        self.positive.bytes() + self.negative.bytes()
    }
}

struct Tda {
    config: TdaConfig,
    caches: Caches,
}

impl Tda {
    fn answer(&mut self, episode: &Episode) -> Answer {
        let Self { config, caches } = self;
        let (feature, logits) = (episode.features.row(0), episode.logits.row(0));
        let probabilities = softmax(logits);
        let class = greatest(logits);
        let entry = Entry::new(&episode.id, floored_entropy(&probabilities), feature);
        let sure = caches.positive.admit("positive", class, entry, config.capacity, Leaves::Unsurest);
        let unsure = caches.admit_unsure(config, episode, &probabilities, class, Leaves::Unsurest);
        let mut scores = logits.to_vec();
        caches.positive.vote_for(feature, config.alpha as f32, config.beta as f32, &mut scores);
        let (alpha, beta) = (config.negative_alpha as f32, config.negative_beta as f32);
        caches.negative.vote_against(feature, alpha, beta, &mut scores);
        Answer::scores(scores).with_admitted(sure.into_iter().chain(unsure))
    }
}

impl Adapt for Tda {
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
