//! A registry on disk: names, versions and aliases over an OCI image layout.

mod adopt;
mod alias;
mod bundle;
mod check;
mod checkout;
mod gc;
mod history;
mod index;
mod publish;
mod resolve;
mod search;
mod shelf;
mod verify;
mod version;
mod view;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use adopt::Adopted;
pub use alias::{AliasMove, Expect, MoveKind};
pub use bundle::{ExportReport, ImportReport};
pub use check::{Candidate, Check};
pub use checkout::Checkout;
pub use gc::{GcPolicy, GcReport, Removal};
pub use history::{Difference, Event, FileChange};
pub use index::ReindexReport;
pub use publish::{PublishRequest, Published, Source};
pub use search::{Found, MetricBound, Query};
pub use verify::{Problem, VerifyReport};
pub use version::Version;

pub(crate) use adopt::identity;
pub(crate) use publish::MAX_FILE_BYTES;

use crate::error::{Error, Result};
use crate::oci::{LAYOUT_FILE, LAYOUT_TEXT};
use crate::store::{Blobs, Disk, Lock, Observer, read_if_present};

/// How long a change waits for that of another process.
const PATIENCE: Duration = Duration::from_secs(60);

/// Names, versions and aliases of adapters in one folder, shared by any number of processes.
///
/// What is read is never locked: a reader sees the state before or after a change. Changes exclude each other by a lock
/// file. Clones refer to the same folder.
#[derive(Debug, Clone)]
pub struct Registry {
    root: PathBuf,
    disk: Disk,
    blobs: Blobs,
    patience: Duration,
}

/// How a registry is opened.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Watches every change of the file system.
    pub observer: Option<Arc<dyn Observer>>,
    /// How long a change waits for that of another process; a minute when absent.
    pub patience: Option<Duration>,
}

impl Registry {
    /// Opens a registry; an empty one is made where there is none.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Malformed`] for a folder with something else in it.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        Self::open_with(root, Options::default())
    }

    /// [`Self::open`] with options.
    ///
    /// # Errors
    /// Those of [`Self::open`].
    pub fn open_with(root: impl Into<PathBuf>, options: Options) -> Result<Self> {
        let root = root.into();
        let disk = Disk::new(root.join("staging"), options.observer);
        let blobs = Blobs::new(&root, disk.clone());
        let registry = Self { disk, blobs, patience: options.patience.unwrap_or(PATIENCE), root };
        match read_if_present(&registry.root.join(LAYOUT_FILE), 4096)? {
            Some(text) if text.windows(7).any(|window| window == b"\"1.0.0\"") => {}
            Some(_) => {
                return Err(Error::malformed("OCI image layout", registry.root.display(), "its version is not 1.0.0"));
            }
            None => registry.create()?,
        }
        Ok(registry)
    }

    fn create(&self) -> Result<()> {
        let strangers = crate::store::list(&self.root)?;
        let ours =
            ["blobs", "names", "staging", "pending", "checkouts", "index.json", "write.lock", "gc.lock", "index.sled"];
        if let Some(stranger) = strangers.iter().find(|name| !ours.contains(&name.as_str())) {
            let reason = format!("the folder holds `{stranger}` and no `{LAYOUT_FILE}`: give an empty or a new folder");
            return Err(Error::malformed("registry", self.root.display(), reason));
        }
        std::fs::create_dir_all(&self.root).map_err(Error::io("create folder", &self.root))?;
        for folder in [
            self.blobs.folder(),
            &self.names_folder(),
            self.disk.staging(),
            &self.pending_folder(),
            &self.checkouts_folder(),
        ] {
            self.disk.create_folder(folder)?;
        }
        let lock = self.write_lock()?;
        if !self.root.join("index.json").exists() {
            self.rebuild_view(&lock)?;
        }
        // The mark comes last: with it, the folder is complete.
        self.disk.replace(&self.root.join(LAYOUT_FILE), LAYOUT_TEXT)
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The blobs.
    pub fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    pub(crate) fn disk(&self) -> &Disk {
        &self.disk
    }

    fn names_folder(&self) -> PathBuf {
        self.root.join("names")
    }

    fn pending_folder(&self) -> PathBuf {
        self.root.join("pending")
    }

    fn checkouts_folder(&self) -> PathBuf {
        self.root.join("checkouts")
    }

    /// Excludes all other changes.
    pub(crate) fn write_lock(&self) -> Result<Lock> {
        Lock::exclusive(&self.root.join("write.lock"), self.patience)
    }

    /// Keeps `gc` away while blobs are here that nothing refers to yet.
    pub(crate) fn ingest_lock(&self) -> Result<Lock> {
        Lock::shared(&self.root.join("gc.lock"), self.patience)
    }
}
