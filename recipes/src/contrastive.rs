//! The losses of image-text pairs: the softmax loss of CLIP (Radford et al., 2021, arXiv 2103.00020) and the sigmoid loss of
//! SigLIP (Zhai et al., 2023, arXiv 2303.15343), for batches in which a text may stand beside several images (UniCL: Yang et
//! al., 2022, arXiv 2204.03610).
//!
//! With distinct captions the first is CLIP's symmetric cross entropy, `-1/2n sum_i (log softmax_j(t x_i.y_j)_i + log
//! softmax_j(t x_j.y_i)_i)`, and the second `-1/n sum_ij log sigmoid(z_ij (t x_i.y_j + b))`, where `z_ij` is 1 for a pair and
//! -1 else. When captions or groups repeat, all pairs of a group are positives, and equal texts are encoded once and counted
//! as often as they occur, which gives the gradients of the full `[batch, batch]` matrix.

use std::collections::HashMap;

use burn::tensor::activation::{log_sigmoid, log_softmax};
use burn::tensor::{Device, Tensor, TensorData};
use inarch_core::backbone::values;
use serde::{Deserialize, Serialize};

/// The offset of scores with which a training begins that has to find it (Zhai et al., 2023, section 3.2): most pairs of a batch
/// are no match.
pub(crate) const FIRST_BIAS: f32 = -10.0;

/// How far beyond all scores the search for an offset goes: a sigmoid is 0 or 1 there.
const FAR: f64 = 40.0;
/// Steps of that search, more than halving alone needs.
const STEPS: usize = 64;

/// How pairs are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PairLoss {
    /// Each image chooses among the texts of its batch, and each text among the images (CLIP).
    #[default]
    Softmax,
    /// Each image and text are a match or not, whatever else is in the batch (SigLIP).
    Sigmoid,
}

impl PairLoss {
    /// Whether it is the default, which a recipe does not mention.
    pub(crate) fn is_softmax(&self) -> bool {
        *self == Self::Softmax
    }
}

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

    /// The softmax loss, `[1]`, of normalised image features `[images, dim]` and normalised text features `[texts, dim]`.
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

    /// The sigmoid loss, `[1]`, of normalised image features `[images, dim]` and normalised text features `[texts, dim]`, with
    /// the offset `bias` `[1]` of all scores.
    pub fn sigmoid_loss(&self, image: Tensor<2>, text: Tensor<2>, scale: Tensor<1>, bias: Tensor<1>) -> Tensor<1> {
        let device = image.device().without_autodiff();
        let (images, texts) = (self.image_groups.len(), self.texts.len());
        let logits = image.matmul(text.transpose()) * scale.unsqueeze::<2>() + bias.unsqueeze::<2>();
        let signs = self.hits().map(|hit| if hit { 1.0f32 } else { -1.0 }).collect::<Vec<_>>();
        let signs = Tensor::<2>::from_data(TensorData::new(signs, [images, texts]), &device);
        let counts = Tensor::<2>::from_data(TensorData::new(self.counts.clone(), [1, texts]), &device);
        (log_sigmoid(logits * signs) * counts).sum() / -(images as f32)
    }

    /// The offset of scores under which the sigmoid loss of these features is least: as many matches are expected as there are.
    /// The features are as in [`sigmoid_loss`](Self::sigmoid_loss).
    pub fn likeliest_bias(&self, image: Tensor<2>, text: Tensor<2>, scale: f32) -> f32 {
        let scores = values(image.without_autodiff().matmul(text.without_autodiff().transpose()));
        let scores: Vec<f64> = scores.iter().map(|score| f64::from(score * scale)).collect();
        let counts = || self.counts.iter().map(|count| f64::from(*count)).cycle();
        let matches: f64 = self.hits().zip(counts()).map(|(hit, count)| if hit { count } else { 0.0 }).sum();
        let excess = |bias: f64| {
            let mut sums = (-matches, 0.0);
            for (score, count) in scores.iter().zip(counts()) {
                let share = 1.0 / (1.0 + (-score - bias).exp());
                sums = (sums.0 + count * share, sums.1 + count * share * (1.0 - share));
            }
            sums
        };
        // Where all are matches, or hardly any, the least loss is at an end that is far enough to be as good.
        let ends = scores.iter().fold((0.0f64, 0.0f64), |(low, high), score| (low.min(-score), high.max(-score)));
        let (mut low, mut high) = (ends.0 - FAR, ends.1 + FAR);
        let mut bias = f64::from(FIRST_BIAS).clamp(low, high);
        for _ in 0..STEPS {
            let (value, slope) = excess(bias);
            if value > 0.0 {
                high = bias
            } else {
                low = bias
            }
            let newton = bias - value / slope;
            let next = if newton > low && newton < high { newton } else { (low + high) / 2.0 };
            if (next - bias).abs() < 1e-6 {
                break;
            }
            bias = next;
        }
        bias as f32
    }

    /// Whether each image and text, row-major `[images, texts]`, are of one group.
    fn hits(&self) -> impl Iterator<Item = bool> + '_ {
        self.image_groups.iter().flat_map(|group| self.text_groups.iter().map(move |other| other == group))
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
