//! One image as a method at test time meets it, and what the method answers.

use std::sync::Arc;

use burn::tensor::Tensor;
use inarch_core::backbone::Entry;
use serde::{Deserialize, Serialize};

use super::rows::Rows;

/// One image: its views' features and scores, before any adaptation at test time.
#[derive(Debug, Clone)]
pub struct Episode {
    /// Its name, for audits and random draws.
    pub id: String,
    /// Normalised features of the views, `[views, dim]`; view 0 is that of evaluation.
    pub features: Rows,
    /// Scores of the views, `[views, classes]`.
    pub logits: Rows,
    /// Normalised features of the classes, `[classes, dim]`: the same for all images, unless prompts depend on them.
    pub text: Arc<Rows>,
    /// Views that were read from files come right behind view 0; this is their number.
    pub from_files: usize,
    /// The image tower of the views, stopped where the method enters; only for methods that change it.
    pub stream: Option<Stream>,
    /// Normalised features of the surest views under a judge, the surest first; only for methods that have one.
    pub judged: Option<Rows>,
}

/// The image tower of some views, `[views, tokens, width]`, as far as nothing changes it.
#[derive(Debug, Clone)]
pub struct Stream {
    /// How far it has come.
    pub entry: Entry,
    /// The residual stream.
    pub tokens: Tensor<3>,
}

/// What a method answers for one image.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// Scores of the classes; their softmax are the probabilities.
    pub scores: Vec<f32>,
    /// What its memory took in.
    pub admitted: Vec<Admission>,
    /// What was adapted to this image alone, such as a context `[tokens * width]`.
    pub adapted: Option<Vec<f32>>,
}

impl Answer {
    /// An answer in scores.
    pub fn scores(scores: Vec<f32>) -> Self {
        Self { scores, ..Self::default() }
    }

    /// An answer in probabilities, or shares that do not sum to 1 yet.
    pub fn probabilities(shares: &[f32]) -> Self {
        let sum: f32 = shares.iter().sum();
        // What is no number is nothing small, and stays what it is.
        let score = |share: &f32| match share / sum {
            small if small < 1e-12 => 1e-12f32.ln(),
            share => share.ln(),
        };
        Self::scores(shares.iter().map(score).collect())
    }

    /// With what was admitted.
    #[must_use]
    pub fn with_admitted(self, admitted: impl IntoIterator<Item = Admission>) -> Self {
        Self { admitted: admitted.into_iter().collect(), ..self }
    }
}

/// One image that a memory took in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Admission {
    /// Which memory: `positive`, `negative`, `memory`, `prototypes`.
    pub memory: String,
    /// The class that it was filed under.
    pub class: usize,
    /// The entropy it was judged by, in nats unless the method scales it.
    pub entropy: f32,
    /// The image whose place it took.
    pub replaced: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::Answer;

    #[test]
    fn shares_become_scores_and_what_is_no_number_is_told() {
        let Answer { scores, .. } = Answer::probabilities(&[3.0, 1.0, 0.0]);
        assert!((scores[0] - 0.75f32.ln()).abs() < 1e-6 && (scores[1] - 0.25f32.ln()).abs() < 1e-6, "{scores:?}");
        assert_eq!(scores[2], 1e-12f32.ln());
        for shares in [[f32::NAN, 1.0], [f32::INFINITY, 1.0], [0.0, 0.0]] {
            assert!(Answer::probabilities(&shares).scores.iter().any(|score| !score.is_finite()), "{shares:?}");
        }
    }
}
