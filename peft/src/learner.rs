//! How an adapter takes part in its training, beside its sites.

use burn::tensor::Tensor;
use inarch_core::backbone::{Sites, indices, normalise};

use crate::judgement::Judgement;

/// An adapter in training. The defaults are those of plain cross entropy under one learning rate.
pub trait Learner: Sites {
    /// The loss of a step.
    fn loss(&self, step: &Step<'_>) -> Loss {
        Loss::plain(step.cross_entropy())
    }

    /// Whether [`Step::frozen_image`] is needed although the adapter changes the image side.
    fn needs_frozen_image(&self) -> bool {
        false
    }

    /// Factor on the learning rate of one parameter, by its path; with 0 it stands still.
    fn rate(&self, parameter: &str) -> f64 {
        let _ = parameter;
        1.0
    }

    /// How the parameters of the epochs are averaged; `None` keeps the last ones.
    fn averaging(&self) -> Option<Averaging> {
        None
    }

    /// The fractions of the run at which stages 1, 2, .. begin.
    fn stages(&self) -> Vec<f64> {
        Vec::new()
    }

    /// Begins a stage, in a run or in one that goes on in it. It must not change a value.
    fn enter_stage(&mut self, stage: usize) {
        let _ = stage;
    }
}

/// Weights of the epochs' parameters in the final average.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Averaging {
    /// Normal density of the epoch's number, counted from 1 (Gaussian prompt aggregation of PromptSRC: Khattak et al.,
    /// 2023, arXiv 2307.06948), made to sum to 1.
    Gaussian {
        /// The epoch with the greatest weight.
        mean: f64,
        /// Standard deviation in epochs.
        deviation: f64,
    },
}

impl Averaging {
    /// One weight for each of `epochs` epochs; they sum to 1.
    pub fn weights(self, epochs: usize) -> Vec<f64> {
        let Self::Gaussian { mean, deviation } = self;
        // The greatest exponent is taken out, so that a mean far outside of the run leaves no row of zeros.
        let exponents: Vec<f64> =
            (1..=epochs).map(|epoch| -0.5 * ((epoch as f64 - mean) / deviation.max(1e-9)).powi(2)).collect();
        let greatest = exponents.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = exponents.iter().map(|exponent| (exponent - greatest).exp()).collect();
        let sum: f64 = weights.iter().sum();
        weights.iter().map(|weight| weight / sum).collect()
    }
}

/// What is known in one training step.
pub struct Step<'a> {
    /// Image features through the adapter, `[images, dim]`, not normalised.
    pub image: Tensor<2>,
    /// Class features through the adapter, `[classes, dim]`, not normalised; image-major `[images * classes, dim]` when
    /// prompts depend on the image.
    pub text: Tensor<2>,
    /// With several prompts a class: their features before they are averaged, `[classes, prompts, dim]`, normalised.
    pub prompts: Option<Tensor<3>>,
    /// Scores, `[images, classes]`.
    pub logits: Tensor<2>,
    /// The class of each image; of several the first.
    pub labels: &'a [usize],
    /// What the scores are judged by, beside the labels.
    pub judgement: Judgement<'a>,
    /// The logit scale.
    pub scale: f32,
    /// Image features of the frozen backbone, `[images, dim]`, where they are known: always for an adapter that leaves
    /// the image tower alone, and when [`Learner::needs_frozen_image`].
    pub frozen_image: Option<Tensor<2>>,
    /// Frozen text features, `[classes, dim]`, when [`Method::prior`](crate::Method::prior) asks for them.
    pub prior: Option<&'a Tensor<2>>,
    /// Frozen text features of each of the run's templates, `[classes, templates, dim]`, normalised, when it asks for those.
    pub described: Option<&'a Tensor<3>>,
}

impl Step<'_> {
    /// Cross entropy of the scores, or what takes its place ([`Judgement`]).
    pub fn cross_entropy(&self) -> Tensor<1> {
        self.cross_entropy_of(self.logits.clone())
    }

    /// The same of other scores of the images, `[images, classes]`.
    pub fn cross_entropy_of(&self, logits: Tensor<2>) -> Tensor<1> {
        self.judgement.loss(logits, self.labels)
    }

    /// `1 - mean_c cos(t_c, t0_c)` of the class features and the frozen ones, `[1]`; 0 when those are not there.
    pub fn text_drift(&self) -> Tensor<1> {
        let own = normalise(self.text.clone());
        let Some(prior) = self.prior else { return Tensor::zeros([1], &own.device()) };
        (own * normalise(prior.clone())).sum_dim(1).mean() * -1.0 + 1.0
    }

    /// The step of some of its images only, in the order given.
    pub fn with_rows<T>(&self, rows: &[usize], of: impl FnOnce(&Step<'_>) -> T) -> T {
        let labels: Vec<usize> = rows.iter().map(|row| self.labels[*row]).collect();
        let at = indices(rows.iter().copied(), &self.logits.device());
        let ([images, classes], [texts, dim]) = (self.logits.dims(), self.text.dims());
        let text = match texts == images * classes && texts != classes {
            true => {
                let own = self.text.clone().reshape([images, classes * dim]).select(0, at.clone());
                own.reshape([rows.len() * classes, dim])
            }
            false => self.text.clone(),
        };
        let truth = self.judgement.truth_of(rows);
        of(&Step {
            image: self.image.clone().select(0, at.clone()),
            text,
            prompts: self.prompts.clone(),
            logits: self.logits.clone().select(0, at.clone()),
            labels: &labels,
            judgement: self.judgement.with_truth(&truth),
            scale: self.scale,
            frozen_image: self.frozen_image.clone().map(|frozen| frozen.select(0, at)),
            prior: self.prior,
            described: self.described,
        })
    }

    /// Zero-shot scores `[images, classes]` of the frozen features, when both sides are there.
    pub fn frozen_logits(&self) -> Option<Tensor<2>> {
        let image = normalise(self.frozen_image.clone()?);
        let text = normalise(self.prior?.clone());
        Some(image.matmul(text.transpose()) * self.scale)
    }
}

/// What a step minimises.
pub struct Loss {
    /// The loss, `[1]`.
    pub task: Tensor<1>,
    /// Further losses that the first must not work against.
    pub guide: Option<Guide>,
}

impl Loss {
    /// One loss and nothing else.
    pub fn plain(task: Tensor<1>) -> Self {
        Self { task, guide: None }
    }
}

/// Losses whose gradients correct the task's gradient.
pub struct Guide {
    /// The guiding losses, `[1]` each.
    pub losses: Vec<Tensor<1>>,
    /// How their gradients do so.
    pub correction: Correction,
}

/// What guiding gradients `g` do to the task's gradient `t`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Correction {
    /// Of each parameter tensor, one guide after the other: where `t . g < 0`, the part `strength (t . g / |g|^2) g` is taken
    /// out of `t`.
    Each {
        /// How much of the conflicting part is taken out.
        strength: f64,
    },
    /// The same with all parameters as one tensor.
    Whole {
        /// How much of the conflicting part is taken out.
        strength: f64,
    },
    /// With all parameters as one tensor: where any `t . g_k < 0`, `t + sum_k v_k g_k` with the `v >= margin` that make it
    /// shortest. With margin 0 that is the gradient closest to `t` that works against no guide.
    Cone {
        /// Least weight of every guide.
        margin: f64,
    },
}

#[cfg(test)]
mod tests {
    use super::Averaging;

    #[test]
    fn the_weights_of_the_epochs_sum_to_one_and_peak_at_the_mean() {
        for (mean, deviation, epochs) in [(15.0, 1.0, 20), (30.0, 30.0, 50), (45.0, 5.0, 50), (1e6, 1.0, 3)] {
            let weights = Averaging::Gaussian { mean, deviation }.weights(epochs);
            assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            let peak = (0..epochs).max_by(|a, b| weights[*a].total_cmp(&weights[*b])).expect("an epoch") + 1;
            assert_eq!(peak, (mean as usize).min(epochs));
        }
    }
}
