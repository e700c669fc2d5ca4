//! The state of an unfinished run on disk, replaced as a whole: a folder for each saved step and a pointer that is
//! written last, so that a killed process leaves the older state in force.

use std::path::{Path, PathBuf};

use inarch_core::{Digest, file};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

const POINTER: &str = "state.json";
const PREFIX: &str = "state-";

/// Seconds between two saved states.
pub(crate) const SAVE_SECONDS: u64 = 60;

#[derive(Debug, Serialize, Deserialize)]
struct Pointer {
    run: Digest,
    step: usize,
    folder: String,
}

/// The saved state of one run in one folder.
pub(crate) struct SavedRun {
    root: PathBuf,
    run: Digest,
}

impl SavedRun {
    /// The place of a run; `run` identifies its settings and data.
    pub(crate) fn new(root: &Path, run: Digest) -> Self {
        Self { root: root.to_path_buf(), run }
    }

    /// The step and the folder of the saved state, if there is one.
    ///
    /// # Errors
    /// [`Error::OtherRun`] when it belongs to other settings or data.
    pub(crate) fn load(&self) -> Result<Option<(usize, PathBuf)>> {
        let path = self.root.join(POINTER);
        if !path.is_file() {
            return Ok(None);
        }
        let pointer: Pointer = file::read_json(&path, "run state")?;
        if pointer.run != self.run {
            return Err(Error::OtherRun { path: self.root.clone(), what: "settings or data" });
        }
        Ok(Some((pointer.step, self.root.join(pointer.folder))))
    }

    /// Saves the state of `step`; `write` fills the folder.
    pub(crate) fn save(&self, step: usize, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let folder = format!("{PREFIX}{step}");
        write(&self.root.join(&folder))?;
        let pointer = Pointer { run: self.run.clone(), step, folder: folder.clone() };
        file::write_json(&self.root.join(POINTER), &pointer)?;
        self.remove(|name| name.starts_with(PREFIX) && name != folder)
    }

    /// Removes all state, once the run has its result.
    pub(crate) fn clear(&self) -> Result<()> {
        // The pointer first: without it the folders mean nothing.
        self.remove(|name| name == POINTER)?;
        self.remove(|name| name.starts_with(PREFIX))
    }

    fn remove(&self, chosen: impl Fn(&str) -> bool) -> Result<()> {
        for path in file::list(&self.root)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if chosen(&name) {
                if path.is_dir() { file::remove_folder(&path)? } else { file::remove(&path)? }
            }
        }
        Ok(())
    }
}

/// Optimizer state as a file.
///
/// # Errors
/// An I/O error, or a state that cannot be written.
pub(crate) fn save_optimizer(optimizer: &burn::optim::ModuleOptimizer, path: &Path) -> Result<()> {
    let bytes = optimizer.into_bytes().map_err(|error| fault(path, &error))?;
    Ok(file::write(path, &bytes)?)
}

/// The same optimizer with its state from a file.
///
/// # Errors
/// A file that is missing or damaged.
pub(crate) fn load_optimizer(
    optimizer: burn::optim::ModuleOptimizer,
    path: &Path,
) -> Result<burn::optim::ModuleOptimizer> {
    let bytes = burn::tensor::Bytes::from_bytes_vec(file::read(path)?);
    optimizer.from_bytes(bytes).map_err(|error| fault(path, &error))
}

fn fault(path: &Path, error: &dyn std::fmt::Display) -> Error {
    inarch_core::Error::malformed("optimizer state", path, error).into()
}
