//! `report.json`: what a fit was asked to do, what it used, and what came out.

use inarch_core::Digest;
use serde::Serialize;

use crate::evaluate::Evaluation;
use crate::recipe::Recipe;
use crate::report_head::ReportHead;

/// The report of one fit.
#[derive(Debug, Clone, Serialize)]
pub struct FitReport {
    /// Versions, device, backbone, memory.
    #[serde(flatten)]
    pub head: ReportHead,
    /// The resolved recipe.
    pub recipe: Recipe,
    /// The data.
    pub data: DataReport,
    /// Number of trained values.
    pub trainable: usize,
    /// Steps taken; those of which no image could be read were not.
    pub steps: usize,
    /// Training loss over the run, in means of equal stretches.
    pub losses: Vec<f32>,
    /// The backbone alone over the test images, by class names or by its own head; `null` without test images.
    pub zero_shot: Option<Evaluation>,
    /// What that is called: `zero-shot` or `own head`.
    pub baseline: &'static str,
    /// The adapter over the test images; `null` without test images.
    pub test: Option<Evaluation>,
    /// Wall-clock seconds.
    pub seconds: Timing,
}

/// The data of a run.
#[derive(Debug, Clone, Serialize)]
pub struct DataReport {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub digest: Digest,
    /// Number of classes.
    pub classes: usize,
    /// Images trained on.
    pub train: usize,
    /// Images held for choices.
    pub val: usize,
    /// Images reported on.
    pub test: usize,
    /// Training images left out because they could not be read.
    pub skipped: Vec<String>,
}

/// Seconds of the stages of a run.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Timing {
    /// Frozen features of the training images.
    pub encode: f64,
    /// Training, also before an interruption.
    pub train: f64,
    /// Both evaluations.
    pub evaluate: f64,
    /// Everything.
    pub total: f64,
}
