//! The runs of a comparison that are done, on disk.

use std::path::{Path, PathBuf};

use inarch_core::{Digest, file};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::fit_report::FitReport;

/// The file in a comparison's folder.
const FILE: &str = "runs.json";

/// One fit of a comparison and what it measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Identity of recipe, backbone and data.
    pub key: Digest,
    /// The method.
    pub method: String,
    /// Training images of each class.
    pub shots: usize,
    /// The seed.
    pub seed: u64,
    /// Accuracy on the test images, of the base classes where new ones are kept apart.
    pub accuracy: Option<f64>,
    /// Expected calibration error on the same images.
    pub ece: Option<f64>,
    /// Accuracy on the new classes, where they are kept apart and the method can name them.
    pub new_accuracy: Option<f64>,
    /// Number of trained values.
    pub trainable: usize,
    /// Steps taken.
    pub steps: usize,
    /// Seconds of encoding and training, without evaluation. Features that an earlier run left are not encoded again.
    pub seconds: f64,
    /// Seconds of training alone; `null` for a run that failed, or that an earlier version listed and left no report of.
    #[serde(default)]
    pub train_seconds: Option<f64>,
    /// Largest resident size during the run, where the system tells.
    pub peak_memory_bytes: Option<u64>,
    /// What was chosen on validation images.
    pub chosen: Option<String>,
    /// Why there is no result.
    pub failure: Option<String>,
}

impl Run {
    pub(super) fn new(key: Digest, method: &str, shots: usize, seed: u64) -> Self {
        Self {
            key,
            method: method.into(),
            shots,
            seed,
            accuracy: None,
            ece: None,
            new_accuracy: None,
            trainable: 0,
            steps: 0,
            seconds: 0.0,
            train_seconds: None,
            peak_memory_bytes: None,
            chosen: None,
            failure: None,
        }
    }

    pub(super) fn done(self, choice: &str, report: &FitReport, new_accuracy: Option<f64>) -> Self {
        Self {
            accuracy: report.test.as_ref().map(|test| test.metrics.accuracy),
            ece: report.test.as_ref().map(|test| test.metrics.ece),
            new_accuracy,
            trainable: report.trainable,
            steps: report.steps,
            seconds: report.seconds.encode + report.seconds.train,
            train_seconds: Some(report.seconds.train),
            peak_memory_bytes: report.head.peak_memory_bytes,
            chosen: (!choice.is_empty()).then(|| choice.to_string()),
            ..self
        }
    }

    /// The same with the seconds of its training, where it has none and the report in `folder` is of this run.
    pub(super) fn with_train_seconds(mut self, folder: &Path) -> Self {
        if self.train_seconds.is_none() && self.failure.is_none() {
            let report = file::read_json::<Report>(&folder.join("report.json"), "report of a run").ok();
            let own = report.map(|report| report.seconds).filter(|found| {
                // Another comparison may have left its own there.
                (found.encode + found.train - self.seconds).abs() < 1e-6
            });
            self.train_seconds = own.map(|found| found.train);
        }
        self
    }

    /// The run in a line.
    pub(super) fn line(&self) -> String {
        let Self { method, shots, seed, seconds, .. } = self;
        match (&self.failure, self.accuracy) {
            (Some(failure), _) => format!("{method}, {shots} shots, seed {seed}: failed, {failure}"),
            (None, accuracy) => {
                let accuracy = 100.0 * accuracy.unwrap_or(f64::NAN);
                format!("{method}, {shots} shots, seed {seed}: {accuracy:.2} % in {seconds:.1} s")
            }
        }
    }
}

/// What is read of the report of a run.
#[derive(Deserialize)]
struct Report {
    seconds: Seconds,
}

#[derive(Deserialize)]
struct Seconds {
    encode: f64,
    train: f64,
}

/// The file of finished runs; it is written anew, whole, after each.
pub(super) struct Ledger {
    path: PathBuf,
    runs: Vec<Run>,
}

impl Ledger {
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let runs = if path.exists() { file::read_json(&path, "list of runs")? } else { Vec::new() };
        Ok(Self { path, runs })
    }

    pub(super) fn get(&self, key: &Digest) -> Option<&Run> {
        self.runs.iter().find(|run| run.key == *key)
    }

    pub(super) fn add(&mut self, run: Run) -> Result<()> {
        self.runs.push(run);
        Ok(file::write_json(&self.path, &self.runs)?)
    }
}
