//! BiomedCoOp: a learned context that is held to many descriptions of each class, and taught by those that suit the images
//! (Koleilat et al., CVPR 2025, arXiv 2411.15232).
//!
//! CoOp's context, with the loss `cross entropy + sccm * SCCM + kdsp * KDSP`. With the frozen features `d_cp` of `P` descriptions
//! of `C` classes, normalised, and `m_c` their normalised mean over `p`:
//!
//! - semantic consistency by contextual mapping, `SCCM = 1/(C dim) sum_c |t_c - m_c|^2`, where `t_c` is the normalised class feature;
//! - knowledge distillation with selective prompting, `KDSP = 1/(n C) sum_i KL(softmax(s x_i.m'_c) || softmax(logits_i))`, where
//!   `x_i` are the frozen image features and `m'_c` is the normalised mean of the selected descriptions. Description `p` has the score
//!   `mean_i max_c x_i.d_cp`, and is left out where its score is further from the mean over `p` than `tau` standard deviations. (The
//!   authors divide by the median absolute deviation before they standardise, which changes nothing.)
//!
//! The descriptions are the run's templates (`--descriptions`), 50 a class in the paper. Where none would be left, all stay. The
//! authors choose the weights and `tau` for each data set, 0.25 to 20 and 1.25 or 1.5. Count: `n * width`. Site: the input tokens of
//! the text tower.

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::activation::log_softmax;
use inarch_core::backbone::{Backbone, BlockSite, Entry, Mode, Pass, Sites, Tower, indices, normalise, values};
use inarch_core::text::Template;
use serde::{Deserialize, Serialize};

use super::context::Context;
use super::coop::Coop;
use crate::error::{Error, Result};
use crate::learner::{Learner, Loss, Step};
use crate::linear::check_finite;
use crate::method::{Method, Prior, Start};

/// Settings of BiomedCoOp; the defaults are those of its code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BiomedCoopConfig {
    /// Number of context tokens, used when `words` is empty.
    pub context: usize,
    /// Words whose embeddings the context starts from; empty for random values.
    pub words: String,
    /// Weight of the distance to the mean description of each class.
    pub sccm: f64,
    /// Weight of what the selected descriptions teach.
    pub kdsp: f64,
    /// Standard deviations from the mean score within which a description is selected.
    pub tau: f64,
}

impl Default for BiomedCoopConfig {
    fn default() -> Self {
        Self { context: 4, words: "a photo of a".into(), sccm: 1.0, kdsp: 1.0, tau: 1.5 }
    }
}

/// A learned context that descriptions hold and teach.
#[derive(Module, Debug)]
pub struct BiomedCoop {
    prompt: Coop,
    sccm: f64,
    kdsp: f64,
    tau: f64,
}

impl Method for BiomedCoopConfig {
    type Adapter = BiomedCoop;

    /// [`Error::Setting`] for a context without room, a weight that is no number or a `tau` that is not above 0.
    fn init(&self, start: &Start<'_>) -> Result<BiomedCoop> {
        let Self { sccm, kdsp, tau, .. } = *self;
        check_finite("sccm", sccm)?;
        check_finite("kdsp", kdsp)?;
        if !(tau.is_finite() && tau > 0.0) {
            return Err(Error::Setting { setting: "tau", reason: format!("must be above 0, found {tau}") });
        }
        let prompt = Coop::shared(start, Context::new(&self.words, self.context))?;
        Ok(BiomedCoop { prompt, sccm, kdsp, tau })
    }

    fn trainable(&self, backbone: &Backbone, _classes: usize, _images: usize) -> usize {
        Context::new(&self.words, self.context).tokens(backbone) * backbone.width(Tower::Text)
    }

    fn starts_as_zero_shot(&self) -> bool {
        Context::new(&self.words, self.context).is_words()
    }

    fn templates(&self) -> Result<Vec<Template>> {
        Ok(vec![Context::new(&self.words, self.context).template()?])
    }

    fn prior(&self) -> Prior {
        Prior::Each
    }
}

impl Learner for BiomedCoop {
    fn needs_frozen_image(&self) -> bool {
        true
    }

    fn loss(&self, step: &Step<'_>) -> Loss {
        let mut loss = step.cross_entropy();
        let Some(described) = step.described else { return Loss::plain(loss) };
        let apart = normalise(step.text.clone()) - mean(described.clone());
        loss = loss + apart.powf_scalar(2.0).mean() * self.sccm;
        if let Some(image) = &step.frozen_image {
            let image = normalise(image.clone());
            let kept = selected(&scores(&image, described), self.tau);
            let chosen = mean(described.clone().select(1, indices(kept, &described.device())));
            let teacher = log_softmax(image.matmul(chosen.transpose()) * step.scale, 1);
            let [images, classes] = teacher.dims();
            let own = log_softmax(step.logits.clone(), 1);
            let apart = (teacher.clone().exp() * (teacher - own)).sum() / (images * classes) as f32;
            loss = loss + apart * self.kdsp;
        }
        Loss::plain(loss)
    }
}

/// The normalised mean over descriptions, `[classes, descriptions, dim]` to `[classes, dim]`.
fn mean(described: Tensor<3>) -> Tensor<2> {
    normalise(described.mean_dim(1).squeeze_dim::<2>(1))
}

/// The score of each description: how near the nearest class is, as a mean over the images `[images, dim]`.
fn scores(image: &Tensor<2>, described: &Tensor<3>) -> Vec<f32> {
    let ([images, dim], [classes, count, _]) = (image.dims(), described.dims());
    let rows = described.clone().reshape([classes * count, dim]);
    let cosines = image.clone().matmul(rows.transpose()).reshape([images, classes, count]);
    values(cosines.max_dim(1).mean_dim(0))
}

/// The descriptions whose score is within `tau` standard deviations of the mean; all where there would be none.
fn selected(scores: &[f32], tau: f64) -> Vec<usize> {
    let count = scores.len() as f64;
    let mean = scores.iter().map(|score| f64::from(*score)).sum::<f64>() / count;
    let apart = |score: f32| (f64::from(score) - mean).abs();
    let variance = scores.iter().map(|score| apart(*score).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
    let within = |at: &usize| apart(scores[*at]) <= tau * variance.sqrt();
    let kept: Vec<usize> = (0..scores.len()).filter(within).collect();
    if kept.is_empty() { (0..scores.len()).collect() } else { kept }
}

impl Sites for BiomedCoop {
    fn entry(&self, tower: Tower) -> Entry {
        self.prompt.entry(tower)
    }

    fn shares_beginnings(&self, mode: Mode) -> bool {
        self.prompt.shares_beginnings(mode)
    }

    fn tokens(&self, at: BlockSite, tokens: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        self.prompt.tokens(at, tokens, pass)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::{scores, selected};

    #[test]
    fn descriptions_far_from_the_others_are_left_out() {
        // Mean 0.5, standard deviation 0.2: the last is two of them away.
        let found = [0.4, 0.45, 0.4, 0.45, 0.4, 0.9];
        assert_eq!(selected(&found, 1.5), [0, 1, 2, 3, 4]);
        assert_eq!(selected(&found, 2.1), [0, 1, 2, 3, 4, 5]);
        // One alone has no deviation, and where none would be left all stay.
        assert_eq!(selected(&[0.3], 1.5), [0]);
        assert_eq!(selected(&[0.2, 0.4], 0.1), [0, 1]);
    }

    #[test]
    fn a_description_scores_by_its_nearest_class() {
        let device = Device::flex();
        let image = Tensor::<2>::from_data([[1.0, 0.0], [0.0, 1.0]], &device);
        // Two classes of two descriptions.
        let described = Tensor::<3>::from_data([[[1.0, 0.0], [0.6, 0.8]], [[0.0, 1.0], [0.8, 0.6]]], &device);
        let found = scores(&image, &described);
        assert!((found[0] - 1.0).abs() < 1e-6 && (found[1] - 0.8).abs() < 1e-6, "{found:?}");
    }
}
