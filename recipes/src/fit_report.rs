//! `report.json`: what a fit was asked to do, what it used, and what came out.

use inarch_core::Digest;
use inarch_peft::BackboneRef;
use serde::Serialize;

use crate::evaluate::Evaluation;
use crate::recipe::Recipe;

/// Version of burn, the framework that computes.
pub const BURN: &str = "0.22.1";

/// The report of one fit.
#[derive(Debug, Clone, Serialize)]
pub struct FitReport {
    /// Version of this program.
    pub inarch: &'static str,
    /// Version of burn.
    pub burn: &'static str,
    /// The resolved recipe.
    pub recipe: Recipe,
    /// The backbone.
    pub backbone: BackboneRef,
    /// The data.
    pub data: DataReport,
    /// Number of trained values.
    pub trainable: usize,
    /// Steps taken.
    pub steps: usize,
    /// Training loss over the run, in means of equal stretches.
    pub losses: Vec<f32>,
    /// The backbone alone over the test images, by class names or by its own head; absent without test images.
    pub zero_shot: Option<Evaluation>,
    /// What that is called: `zero-shot` or `own head`.
    pub baseline: &'static str,
    /// The adapter over the test images; absent without test images.
    pub test: Option<Evaluation>,
    /// Wall-clock seconds.
    pub seconds: Timing,
    /// Largest resident size of the process so far; absent where the system does not tell.
    pub peak_memory_bytes: Option<u64>,
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
    /// Training.
    pub train: f64,
    /// Both evaluations.
    pub evaluate: f64,
    /// Everything.
    pub total: f64,
}

/// Largest resident size of this process, where the system tells (Linux).
pub fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Lets [`peak_memory_bytes`] count from now on, where the system allows it (Linux).
pub(crate) fn reset_peak_memory() {
    // Where it is not allowed, the peak is that of the whole process, which is an upper bound.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}
