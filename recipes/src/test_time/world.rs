//! What a method may use beside the image at hand: how features are scored, and the model they came from.

use burn::tensor::{Device, Tensor};
use inarch_core::backbone::{Backbone, Pass, Sites, normalise};
use inarch_peft::Classifier;

use super::rows::Rows;

/// How image features are scored against class features.
pub trait Score: Sync {
    /// Scores `[images, classes]` of features `[images, dim]` and `[classes, dim]`; gradients pass through.
    fn logits(&self, image: &Tensor<2>, text: &Tensor<2>) -> Tensor<2>;

    /// The logit scale.
    fn scale(&self) -> f32;
}

/// Scaled cosine similarity: the score of models without an adapter, and of features from elsewhere.
#[derive(Debug, Clone, Copy)]
pub struct Cosine {
    /// The logit scale.
    pub scale: f32,
}

impl Score for Cosine {
    fn logits(&self, image: &Tensor<2>, text: &Tensor<2>) -> Tensor<2> {
        normalise(image.clone()).matmul(normalise(text.clone()).transpose()) * self.scale
    }

    fn scale(&self) -> f32 {
        self.scale
    }
}

/// A backbone, an adapter beside it and the classes it answers for.
#[derive(Clone, Copy)]
pub struct Model<'a> {
    /// The backbone.
    pub backbone: &'a Backbone,
    /// The classes.
    pub classifier: &'a Classifier<'a>,
    /// The adapter.
    pub sites: &'a dyn Sites,
}

impl Score for Model<'_> {
    fn logits(&self, image: &Tensor<2>, text: &Tensor<2>) -> Tensor<2> {
        let pass = Pass::evaluate();
        if !self.sites.conditions_text() {
            return self.classifier.logits(image, text, self.sites, &pass);
        }
        // The classifier compares each image with texts of its own; here all views share those of their image.
        let ([images, _], [classes, dim]) = (image.dims(), text.dims());
        let repeated = text.clone().unsqueeze::<3>().expand([images, classes, dim]).reshape([images * classes, dim]);
        self.classifier.logits(image, &repeated, self.sites, &pass)
    }

    fn scale(&self) -> f32 {
        self.backbone.logit_scale()
    }
}

/// What a method may use beside the image at hand.
#[derive(Clone, Copy)]
pub struct World<'a> {
    /// How features are scored.
    pub score: &'a dyn Score,
    /// Where tensors live; plain, never an autodiff device.
    pub device: &'a Device,
    /// Number of classes.
    pub classes: usize,
    /// Width of a feature.
    pub dim: usize,
    /// The model; absent where there are only features.
    pub model: Option<Model<'a>>,
    /// Class features of a second backbone that judges, `[classes, dim]`, normalised.
    pub judge: Option<&'a Rows>,
}

impl World<'_> {
    /// Scores on the host.
    pub(super) fn logits(&self, image: &Rows, text: &Rows) -> Rows {
        Rows::from_tensor(self.score.logits(&image.tensor(self.device), &text.tensor(self.device)))
    }
}
