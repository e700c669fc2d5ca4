//! How far a run has come, on disk: results of the experiences that are done, and the folder of the state behind them.

use std::path::{Path, PathBuf};

use inarch_core::{Digest, file};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::measure::AccuracyMatrix;

const FILE: &str = "progress.json";
const STATE: &str = "after-";

/// What has been measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Progress {
    /// Identity of settings and data.
    pub(super) run: Digest,
    pub(super) matrix: AccuracyMatrix,
    /// Accuracy over all test images seen so far, after each experience.
    pub(super) seen: Vec<f64>,
    /// Negative flips of each experience but the first, over the test images of those before.
    pub(super) flips: Vec<f64>,
    /// Positive flips likewise.
    pub(super) positive_flips: Vec<f64>,
    /// Bytes carried on after each experience.
    pub(super) bytes: Vec<u64>,
    /// Seconds of learning of each experience.
    pub(super) seconds: Vec<f64>,
    /// Which of the last experience's answers were right, by experience.
    pub(super) right: Vec<Vec<bool>>,
}

impl Progress {
    fn new(run: Digest) -> Self {
        Self {
            run,
            matrix: AccuracyMatrix::default(),
            seen: Vec::new(),
            flips: Vec::new(),
            positive_flips: Vec::new(),
            bytes: Vec::new(),
            seconds: Vec::new(),
            right: Vec::new(),
        }
    }

    /// Experiences that are done.
    pub(super) fn done(&self) -> usize {
        self.matrix.rows.len()
    }
}

/// The folder of one run.
pub(super) struct RunFolder {
    pub(super) root: PathBuf,
}

impl RunFolder {
    /// What is there of a run.
    ///
    /// # Errors
    /// Files of another run.
    pub(super) fn load(&self, run: &Digest) -> Result<Progress> {
        let path = self.root.join(FILE);
        if !path.is_file() {
            return Ok(Progress::new(run.clone()));
        }
        let progress: Progress = file::read_json(&path, "stream progress")?;
        if progress.run != *run {
            let what = "settings or data";
            return Err(Error::Recipe(inarch_recipes::Error::OtherRun { path: self.root.clone(), what }));
        }
        Ok(progress)
    }

    /// Where the state after so many experiences lies.
    pub(super) fn state(&self, done: usize) -> PathBuf {
        self.root.join(format!("{STATE}{done}"))
    }

    /// Where a long training keeps its own state.
    pub(super) fn training(&self) -> PathBuf {
        self.root.join("training")
    }

    /// Records an experience, whose state `write` puts into a folder. A process that is killed at any point leaves the
    /// state before or this one.
    pub(super) fn save(&self, progress: &Progress, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let state = self.state(progress.done());
        if state.is_dir() {
            file::remove_folder(&state)?;
        }
        write(&state)?;
        file::write_json(&self.root.join(FILE), progress)?;
        let training = self.training();
        if training.is_dir() {
            file::remove_folder(&training)?;
        }
        for path in file::list(&self.root)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with(STATE) && path != state {
                file::remove_folder(&path)?;
            }
        }
        Ok(())
    }
}
