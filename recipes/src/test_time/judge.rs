//! A second backbone that looks at the same views and texts.

use inarch_core::backbone::{Backbone, Frozen, Pass, normalise};
use inarch_core::image::Preprocess;
use inarch_peft::Classifier;

use super::confidence::confident;
use super::episode::Episode;
use super::rows::Rows;
use super::world::Model;
use crate::error::Result;

/// A frozen backbone with the features of the classes.
pub(super) struct Judge<'a> {
    backbone: &'a Backbone,
    /// Normalised, `[classes, dim]`.
    pub(super) texts: Rows,
}

impl<'a> Judge<'a> {
    /// A judge over the classes of a model, with its templates.
    pub(super) fn new(backbone: &'a Backbone, model: &Model<'_>) -> Result<Self> {
        let classifier = Classifier::zero_shot(backbone, model.classifier.classes(), model.classifier.templates())?;
        Ok(Self { backbone, texts: Rows::from_tensor(normalise(classifier.features(&Frozen))) })
    }

    /// Looks at the surest share of an image's views: `pixels` are those of all, normalised by `preprocess`.
    pub(super) fn look(
        &self,
        episode: &mut Episode,
        pixels: &[f32],
        preprocess: &Preprocess,
        share: f64,
    ) -> Result<()> {
        let size = preprocess.values_per_image();
        let own = self.backbone.preprocess();
        let chosen = confident(&episode.logits, share);
        let mut values = Vec::with_capacity(chosen.len() * own.values_per_image());
        for view in &chosen {
            values.extend(own.pixels(&preprocess.denormalise(&pixels[view * size..(view + 1) * size])?)?);
        }
        let side = self.backbone.spec().image.size;
        let pixels = self.backbone.pixels(values, [chosen.len(), 3, side, side])?;
        let features = self.backbone.encode_image(pixels, &Frozen, &Pass::evaluate());
        episode.judged = Some(Rows::from_tensor(normalise(features)));
        Ok(())
    }
}
