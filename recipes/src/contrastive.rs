//! The contrastive loss of CLIP (Radford et al., 2021, arXiv 2103.00020), for batches in which a text may stand beside
//! several images (UniCL: Yang et al., 2022, arXiv 2204.03610).
//!
//! With distinct captions this is CLIP's symmetric cross entropy. When captions or groups repeat, all pairs of a group
//! are positives, and equal texts are encoded once and counted as often as they occur, which gives the same value as the
//! full `[batch, batch]` matrix.

use std::collections::HashMap;

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Tensor, TensorData};

/// A batch of pairs: which distinct text belongs to which image, and what counts as a match.
pub struct Pairs {
    /// The distinct texts, in order of first use.
    pub texts: Vec<String>,
    /// How often each distinct text occurs.
    counts: Vec<f32>,
    /// The group of each distinct text.
    text_groups: Vec<String>,
    /// The group of each image.
    image_groups: Vec<String>,
    /// The distinct text of each image.
    pub own: Vec<usize>,
}

impl Pairs {
    /// Collects `(caption, group)` of each image; pairs of one group are positives.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut seen: HashMap<(String, String), usize> = HashMap::new();
        let mut batch = Self {
            texts: Vec::new(),
            counts: Vec::new(),
            text_groups: Vec::new(),
            image_groups: Vec::new(),
            own: Vec::new(),
        };
        for (caption, group) in pairs {
            batch.image_groups.push(group.clone());
            let next = batch.texts.len();
            let text = *seen.entry((caption.clone(), group.clone())).or_insert(next);
            if text == next {
                batch.texts.push(caption);
                batch.text_groups.push(group);
                batch.counts.push(0.0);
            }
            batch.counts[text] += 1.0;
            batch.own.push(text);
        }
        batch
    }

    /// The loss, `[1]`, of normalised image features `[images, dim]` and normalised text features `[texts, dim]`.
    ///
    /// `smoothing` spreads that share of each target evenly over all candidates.
    pub fn loss(&self, image: Tensor<2>, text: Tensor<2>, scale: Tensor<1>, smoothing: f32) -> Tensor<1> {
        self.loss_of(image.matmul(text.transpose()) * scale.unsqueeze::<2>(), smoothing)
    }

    /// The loss, `[1]`, of scores `[images, texts]`.
    pub fn loss_of(&self, logits: Tensor<2>, smoothing: f32) -> Tensor<1> {
        let device = logits.device().without_autodiff();
        let (images, texts) = (self.image_groups.len(), self.texts.len());
        let counts = Tensor::<1>::from_data(TensorData::new(self.counts.clone(), [texts]), &device);
        let by_text = log_softmax(logits.clone() + counts.log().unsqueeze::<2>(), 1);
        // Within log-softmax a text that occurs c times carries c equal shares.
        let to_text = (by_text * self.text_targets(smoothing, &device)).sum() / -(images as f32);
        let by_image = log_softmax(logits.transpose(), 1);
        let to_image = (by_image * self.image_targets(smoothing, &device)).sum() / -(images as f32);
        (to_text + to_image) / 2.0
    }

    /// `[images, texts]`, rows sum to 1.
    fn text_targets(&self, smoothing: f32, device: &Device) -> Tensor<2> {
        let total: f32 = self.counts.iter().sum();
        let mut targets = Vec::with_capacity(self.image_groups.len() * self.texts.len());
        for group in &self.image_groups {
            let positives: f32 = self.positives(group).map(|text| self.counts[text]).sum();
            targets.extend((0..self.texts.len()).map(|text| {
                let hit = if self.text_groups[text] == *group { self.counts[text] / positives } else { 0.0 };
                (1.0 - smoothing) * hit + smoothing * self.counts[text] / total
            }));
        }
        let shape = [self.image_groups.len(), self.texts.len()];
        Tensor::from_data(TensorData::new(targets, shape), device)
    }

    /// `[texts, images]`, rows sum to the number of times the text occurs.
    fn image_targets(&self, smoothing: f32, device: &Device) -> Tensor<2> {
        let images = self.image_groups.len();
        let mut targets = Vec::with_capacity(self.texts.len() * images);
        for (text, group) in self.text_groups.iter().enumerate() {
            let positives = self.image_groups.iter().filter(|other| *other == group).count() as f32;
            targets.extend(self.image_groups.iter().map(|other| {
                let hit = if other == group { 1.0 / positives } else { 0.0 };
                self.counts[text] * ((1.0 - smoothing) * hit + smoothing / images as f32)
            }));
        }
        Tensor::from_data(TensorData::new(targets, [self.texts.len(), images]), device)
    }

    fn positives<'a>(&'a self, group: &'a str) -> impl Iterator<Item = usize> + 'a {
        self.text_groups.iter().enumerate().filter(move |(_, other)| *other == group).map(|(text, _)| text)
    }
}
