//! What a fresh adapter takes its classes from.

use burn::tensor::{Tensor, TensorData};
use inarch_core::backbone::{Entry, Frozen, values};
use inarch_core::data::Example;
use inarch_core::text::Template;
use inarch_peft::Classifier;

use crate::encode::Views;
use crate::error::Result;
use crate::session::Session;

impl Session<'_> {
    /// A feature for each class, `[classes, dim]`: that of its name; where words have none the mean of its images' normalised
    /// frozen features, the prototype of Snell et al. (2017, arXiv 1703.05175).
    ///
    /// # Errors
    /// A class name that the tokenizer refuses, an image that cannot be read, or a class without images.
    pub(crate) fn class_features(
        &self,
        classes: &[String],
        train: &[Example],
        templates: &[Template],
    ) -> Result<Tensor<2>> {
        let backbone = self.backbone;
        if backbone.has_words() {
            return Ok(Classifier::zero_shot(backbone, classes, templates)?.features(&Frozen));
        }
        let dim = backbone.spec().dim;
        let stored = self.frozen(Entry::Feature, train, &Views::Centre)?;
        let rows = values(stored.all(backbone));
        let (mut sums, mut counts) = (vec![0.0f64; classes.len() * dim], vec![0usize; classes.len()]);
        for (row, position) in rows.chunks(dim).zip(&stored.kept) {
            let length = row.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt().max(1e-12);
            for &class in self.dataset.labels_of(&train[*position]) {
                counts[class] += 1;
                let sum = &mut sums[class * dim..][..dim];
                sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value) / length);
            }
        }
        if let Some(empty) = counts.iter().position(|count| *count == 0) {
            let reason = "it has no training image, and this backbone cannot tell a class by its name";
            return Err(inarch_core::Error::invalid(format!("class `{}`", classes[empty]), reason).into());
        }
        let means = sums.iter().enumerate().map(|(at, sum)| (sum / counts[at / dim] as f64) as f32).collect::<Vec<_>>();
        Ok(Tensor::from_data(TensorData::new(means, [classes.len(), dim]), backbone.device()))
    }
}
