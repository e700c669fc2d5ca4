//! Where an update works: a folder for itself, and one in which a stopped training is found again.

use std::cell::Cell;
use std::fs::File;
use std::path::{Path, PathBuf};

use inarch_core::backbone::Backbone;
use inarch_core::data::Dataset;
use inarch_core::{Digest, DigestBuilder, file};
use inarch_peft::Artifact;
use tempfile::TempDir;

use super::run::UpdateRequest;
use crate::error::{Error, Result};

const INPUTS: &str = "inputs";
const LOCK: &str = "lock";
const TRAINING: &str = "training";

/// The working files of one update. What is left of them goes with it, but for a training that was stopped.
pub(super) struct Work {
    own: TempDir,
    kept: Option<Kept>,
}

/// A place that outlives the process.
struct Kept {
    folder: PathBuf,
    /// Two updates of one target must not train in one folder.
    _lock: File,
    is_stopped: Cell<bool>,
}

impl Work {
    /// Opens the folders of an update: a place of what is kept, and what tells the update from others at the same place. Without
    /// one, or where another process is at work in it, nothing is kept.
    pub(super) fn open(place: Option<(&Path, &Digest)>) -> Result<Self> {
        let own = tempfile::tempdir().map_err(inarch_core::Error::io("make", std::env::temp_dir()))?;
        let kept = place.map(|(place, inputs)| Kept::open(place, inputs)).transpose()?.flatten();
        Ok(Self { own, kept })
    }

    /// The folder of this process.
    pub(super) fn own(&self) -> &Path {
        self.own.path()
    }

    /// The folder of the training.
    pub(super) fn training(&self) -> PathBuf {
        self.kept.as_ref().map_or_else(|| self.own.path().join(TRAINING), |kept| kept.folder.join(TRAINING))
    }

    /// What is to be said of a training that did not come to its end.
    pub(super) fn stopped(&self, error: Error) -> Error {
        use inarch_core::Error as Core;
        use inarch_recipes::Error as Recipe;
        match (error, &self.kept) {
            (
                error @ (Error::Recipe(Recipe::Interrupted { .. } | Recipe::Core(Core::Interrupted { .. }))
                | Error::Core(Core::Interrupted { .. })),
                Some(kept),
            ) => {
                kept.is_stopped.set(true);
                error
            }
            (Error::Recipe(Recipe::Interrupted { step, steps }), None) => Error::Stopped { step, steps },
            (error, _) => error,
        }
    }
}

/// What an update learns from, so that no other goes on with its training.
pub(super) fn inputs_of(backbone: &Backbone, old: Option<&Artifact>, request: &UpdateRequest<'_>) -> Digest {
    let Dataset { train, val, .. } = request.dataset;
    let mut builder = DigestBuilder::default();
    builder
        .piece(backbone.digest().to_string().as_bytes())
        .piece(old.map(|old| old.manifest.tensors.to_string()).unwrap_or_default().as_bytes())
        .piece(request.target.as_bytes())
        .piece(request.init.unwrap_or_default().as_bytes())
        .piece(request.dataset.digest().to_string().as_bytes())
        .piece(request.dataset.contents(train.iter().chain(val)).to_string().as_bytes())
        .piece(serde_json::to_string(request.recipe).unwrap_or_default().as_bytes());
    builder.finish()
}

impl Kept {
    fn open(place: &Path, inputs: &Digest) -> Result<Option<Self>> {
        file::create_folder(place)?;
        let path = place.join(LOCK);
        let lock = File::create(&path).map_err(inarch_core::Error::io("write", &path))?;
        if lock.try_lock().is_err() {
            return Ok(None);
        }
        let note = place.join(INPUTS);
        if !note.is_file() || file::read_text(&note)? != inputs.to_string() {
            // A training of other settings or data is not gone on with.
            let training = place.join(TRAINING);
            if training.is_dir() {
                file::remove_folder(&training)?;
            }
            file::write(&note, inputs.to_string().as_bytes())?;
        }
        Ok(Some(Self { folder: place.to_path_buf(), _lock: lock, is_stopped: Cell::new(false) }))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if !self.is_stopped.get() {
            // What cannot be removed is in nobody's way: the next update begins with it or removes it.
            let _ = std::fs::remove_dir_all(&self.folder);
            // And the folder around it, if this was all there is in it.
            let _ = self.folder.parent().map(std::fs::remove_dir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Error, Work};

    fn interrupted() -> Error {
        Error::Recipe(inarch_recipes::Error::Interrupted { step: 3, steps: 9 })
    }

    #[test]
    fn a_stopped_training_is_kept_for_the_same_inputs_and_for_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("target/.update");
        let (one, other) = (inarch_core::Digest::of(b"one"), inarch_core::Digest::of(b"other"));
        let write = |work: &Work| {
            std::fs::create_dir_all(work.training()).unwrap();
            std::fs::write(work.training().join("state"), "3").unwrap();
        };

        let work = Work::open(Some((place.as_path(), &one))).unwrap();
        write(&work);
        let beside = Work::open(Some((place.as_path(), &one))).unwrap();
        assert_ne!(beside.training(), work.training(), "another process is at work there");
        let said = work.stopped(interrupted()).to_string();
        assert!(said.contains("run the same command again to go on"), "{said}");
        drop((work, beside));

        let work = Work::open(Some((place.as_path(), &one))).unwrap();
        assert_eq!(std::fs::read_to_string(work.training().join("state")).unwrap(), "3");
        work.stopped(interrupted());
        drop(work);
        let work = Work::open(Some((place.as_path(), &other))).unwrap();
        assert!(!work.training().exists());
        write(&work);
        drop(work);
        assert!(!place.exists() && !folder.path().join("target").exists(), "nothing is left of one that ended");
    }

    #[test]
    fn without_a_place_it_is_said_that_nothing_was_kept() {
        let work = Work::open(None).unwrap();
        let said = work.stopped(interrupted()).to_string();
        assert!(said.contains("step 3 of 9") && said.contains("begins anew"), "{said}");
    }
}
