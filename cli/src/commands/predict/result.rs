//! What `inarch predict` answers, as data and as text.

use inarch_recipes::test_time::FallBack;
use serde::Serialize;

use crate::output::{percent, unread};

/// What is printed with `--json`.
#[derive(Serialize)]
pub(super) struct PredictResult {
    pub(super) model: String,
    pub(super) images: Vec<ImagePrediction>,
    pub(super) skipped: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) test_time: Option<Adapted>,
}

#[derive(Serialize)]
pub(super) struct ImagePrediction {
    pub(super) image: String,
    pub(super) predictions: Vec<Prediction>,
    /// Whether the answer is too unsure to be given, by `--abstain` or by adaptation, and why it is the unadapted one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) abstained: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fell_back: Option<FallBack>,
}

/// What belongs to adaptation at test time.
#[derive(Serialize)]
pub(super) struct Adapted {
    pub(super) method: &'static str,
    pub(super) seconds_per_image: f64,
    pub(super) views_share: f64,
    pub(super) admitted: usize,
    pub(super) fell_back: usize,
    pub(super) abstained: usize,
}

/// A class and its probability; best first.
#[derive(Serialize)]
pub(super) struct Prediction {
    pub(super) label: String,
    pub(super) score: f32,
}

pub(super) fn text(result: &PredictResult) -> String {
    let mut text = String::new();
    for image in &result.images {
        let shown: Vec<String> = image
            .predictions
            .iter()
            .map(|prediction| format!("{} {}", prediction.label, percent(f64::from(prediction.score))))
            .collect();
        let unsure = if image.abstained == Some(true) { "unsure: " } else { "" };
        text.push_str(&format!("{}: {unsure}{}\n", image.image, shown.join(", ")));
    }
    text.push_str(&unread(&result.skipped));
    if let Some(adapted) = &result.test_time {
        let Adapted { method, seconds_per_image, views_share, admitted, fell_back, abstained } = adapted;
        text.push_str(&format!(
            "{method}: {:.1} ms an image, {} of it for views; admitted {admitted}, fell back {fell_back}, \
             abstained {abstained}\n",
            1000.0 * seconds_per_image,
            percent(*views_share),
        ));
    }
    text
}
