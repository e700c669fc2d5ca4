//! DPE: prototypes of texts and images that evolve with the stream, both tuned a little for each image (Zhang et al., 2024,
//! arXiv 2410.12790).
//!
//! Text prototypes `T` `[classes, dim]` and image prototypes `P` `[filled classes, dim]` (means of up to three images of
//! least entropy, each the mean feature `x` of an image's surest tenth of views). For each image, residuals of both, from
//! zero, take one AdamW step (epsilon 1e-3) down
//! `H(logits(x) + alpha sum exp(-beta (1 - x P)) ) + align * InfoNCE(P, T)` with `H` the entropy and temperature 0.01. The
//! centre view is scored with the tuned prototypes; where that is sure (entropy over `log2 C` below 0.1), the tuned texts
//! enter the running mean `T`. Alpha, beta, rates and align are searched for each data set by the authors; the defaults are
//! those of ImageNet.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor, TensorData};
use inarch_core::backbone::{Backbone, HostTensor, normalise, values};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::adamw::{AdamW, Moments};
use super::confidence::{confident, entropy, floored_entropy, greatest, softmax};
use super::episode::{Answer, Episode};
use super::method::{Adapt, MethodSettings, MethodState, Needs, within};
use super::objective::{marginal_entropy, views_of};
use super::queue::{Entry, Leaves, Queues, most_bytes};
use super::rows::Rows;
use super::world::World;
use crate::error::Result;

/// Scaled entropy below which tuned texts enter the running mean.
const SURE: f32 = 0.1;
/// Temperature of the alignment.
const TEMPERATURE: f64 = 0.01;

/// Settings of DPE.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DpeConfig {
    /// Weight of the image prototypes.
    pub alpha: f64,
    /// Sharpness of the image prototypes.
    pub beta: f64,
    /// Learning rate of the residuals of texts.
    pub text_lr: f64,
    /// Learning rate of the residuals of images.
    pub image_lr: f64,
    /// Weight of the alignment of both.
    pub align: f64,
    /// Images that make a prototype.
    pub capacity: usize,
    /// Share of the views that are sure enough.
    pub keep: f64,
}

impl Default for DpeConfig {
    fn default() -> Self {
        Self { alpha: 6.0, beta: 5.0, text_lr: 6e-4, image_lr: 6e-4, align: 0.5, capacity: 3, keep: 0.1 }
    }
}

impl MethodSettings for DpeConfig {
    fn needs(&self, _backbone: Option<&Backbone>) -> Needs {
        Needs { online: true, fixed_text: true, ..Needs::VIEWS }
    }

    fn check(&self) -> std::result::Result<(), String> {
        within("alpha", self.alpha, 0.0..=1e4)?;
        within("beta", self.beta, 0.0..=1e4)?;
        within("text_lr", self.text_lr, 0.0..=10.0)?;
        within("image_lr", self.image_lr, 0.0..=10.0)?;
        within("align", self.align, 0.0..=1e4)?;
        within("capacity", self.capacity as f64, 1.0..=1e4)?;
        within("keep", self.keep, 0.0..=1.0)
    }

    fn most_bytes(&self, classes: usize, dim: usize) -> usize {
        most_bytes(classes, self.capacity, dim) + 4 * classes * dim
    }

    fn begin(&self, world: &World<'_>, _length: Option<usize>) -> Result<Box<dyn Adapt>> {
        let (classes, dim) = (world.classes, world.dim);
        Ok(Box::new(Dpe { config: self.clone(), cache: Queues::default(), text: None, averaged: 0, classes, dim }))
    }
}

struct Dpe {
    config: DpeConfig,
    cache: Queues,
    /// The running mean of the texts; `None` before the first image.
    text: Option<Rows>,
    averaged: usize,
    classes: usize,
    dim: usize,
}

/// The image prototypes at hand.
struct Prototypes {
    classes: Vec<usize>,
    /// `[filled classes, dim]`.
    features: Tensor<2>,
    /// One-hot, `[filled classes, classes]`.
    votes: Tensor<2>,
}

impl Dpe {
    fn answer(&mut self, world: &World<'_>, episode: &Episode) -> Answer {
        let device = world.device;
        let text = self.text.get_or_insert_with(|| (*episode.text).clone()).tensor(device);
        let views = episode.features.tensor(device);
        let logits = Rows::from_tensor(world.score.logits(&views, &normalise(text.clone())));
        let sure = confident(&logits, self.config.keep);
        let mean = logits.select(&sure).mean();
        let feature = episode.features.select(&sure).mean();
        let scaled = floored_entropy(&softmax(&mean)) / (self.classes as f32).log2();
        let entry = Entry::new(&episode.id, scaled, &feature);
        let admission = self.cache.admit("prototypes", greatest(&mean), entry, self.config.capacity, Leaves::Unsurest);

        let prototypes = self.prototypes(world);
        let feature = Rows::new(self.dim, feature).tensor(device);
        let mean = Rows::new(self.classes, mean).tensor(device);
        let tuned = self.tune(&text, &prototypes, &feature, mean);
        let centre = views_of(episode, &[0], device);
        let scores = world.score.logits(&centre, &tuned.0) + self.votes(&centre, &tuned.1, &prototypes);
        let scores = values(scores);
        if entropy(&scores) / (self.classes as f32).log2() < SURE {
            self.averaged += 1;
            let count = self.averaged as f64;
            self.text = Some(Rows::from_tensor(text * (count / (count + 1.0)) + tuned.0 / (count + 1.0)));
        }
        Answer::scores(scores).with_admitted(admission)
    }

    fn prototypes(&self, world: &World<'_>) -> Prototypes {
        let (classes, features) = self.cache.prototypes(self.dim);
        let mut votes = vec![0.0; classes.len() * self.classes];
        for (row, class) in classes.iter().enumerate() {
            votes[row * self.classes + class] = 1.0;
        }
        Prototypes {
            features: Rows::new(self.dim, features).tensor(world.device),
            votes: Rows::new(self.classes, votes).tensor(world.device),
            classes,
        }
    }

    /// `alpha exp(-beta (1 - x P))` for the class of each prototype, `[rows, classes]`.
    fn votes(&self, feature: &Tensor<2>, prototypes: &Tensor<2>, given: &Prototypes) -> Tensor<2> {
        let affinity = feature.clone().matmul(prototypes.clone().transpose());
        ((affinity - 1.0) * self.config.beta).exp().matmul(given.votes.clone()) * self.config.alpha
    }

    /// Text and image prototypes after the step, both normalised.
    fn tune(
        &self,
        text: &Tensor<2>,
        given: &Prototypes,
        feature: &Tensor<2>,
        logits: Tensor<2>,
    ) -> (Tensor<2>, Tensor<2>) {
        let leaf = |of: &Tensor<2>| of.zeros_like().autodiff().require_grad();
        let (text_residual, image_residual) = (leaf(text), leaf(&given.features));
        let tuned_text = normalise(text.clone() + text_residual.clone());
        let tuned_images = normalise(given.features.clone() + image_residual.clone());
        let mut loss = marginal_entropy(logits + self.votes(feature, &tuned_images, given));
        if self.config.align > 0.0 {
            let own: Vec<i32> = given.classes.iter().map(|class| *class as i32).collect();
            let own = TensorData::new(own, [given.classes.len()]);
            let texts = tuned_text.select(0, Tensor::<1, Int>::from_data(own, &text.device()));
            let pairs = log_softmax(tuned_images.matmul(texts.transpose()) / TEMPERATURE, 1);
            let diagonal = Tensor::<2>::eye(given.classes.len(), &text.device());
            loss = loss - (pairs * diagonal).sum() * (self.config.align / given.classes.len() as f64);
        }
        let gradients = loss.backward();
        let step = |residual: &Tensor<2>, of: &Tensor<2>, lr: f64| {
            let optimizer = AdamW { lr, weight_decay: 0.1, epsilon: 1e-3 };
            match residual.grad(&gradients) {
                Some(gradient) => normalise(of.clone() + Moments::new().step(&optimizer, of.zeros_like(), gradient)),
                None => normalise(of.clone()),
            }
        };
        let tuned = step(&text_residual, text, self.config.text_lr);
        (tuned, step(&image_residual, &given.features, self.config.image_lr))
    }
}

impl Adapt for Dpe {
    fn adapt(&mut self, world: &World<'_>, episodes: &[Episode]) -> Result<Vec<Answer>> {
        Ok(episodes.iter().map(|episode| self.answer(world, episode)).collect())
    }

    fn reset(&mut self) {
        self.cache = Queues::default();
        (self.text, self.averaged) = (None, 0);
    }

    fn state(&self) -> MethodState {
        let mut state = MethodState::default();
        self.cache.save("prototypes", self.dim, &mut state);
        if let Some(text) = &self.text {
            let (shape, data) = (vec![text.count(), text.width()], text.values().to_vec());
            state.tensors.insert("text".into(), HostTensor { shape, data, origin: "text".into() });
        }
        state.values.insert("averaged".into(), Value::from(self.averaged));
        state
    }

    fn restore(&mut self, mut state: MethodState) -> std::result::Result<(), String> {
        let text = state.tensors.remove("text");
        if let Some(text) = text.as_ref().filter(|text| text.shape != [self.classes, self.dim]) {
            return Err(format!("texts of shape {:?} do not fit {} classes", text.shape, self.classes));
        }
        let averaged = state.values.get("averaged").and_then(Value::as_u64).ok_or("`averaged` is missing")?;
        self.cache = Queues::load("prototypes", self.classes, self.dim, &mut state)?;
        self.text = text.map(|text| Rows::new(self.dim, text.data));
        self.averaged = averaged as usize;
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.cache.bytes() + self.text.as_ref().map_or(0, |text| 4 * text.values().len())
    }
}
