//! Locks between processes. They belong to the open file, so the operating system releases them when a process dies.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// How often a taken lock is tried again.
const RETRY: Duration = Duration::from_millis(2);

/// A lock that is held until dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

impl Lock {
    /// Whether the file at `path` is still the one that is locked, and has not been replaced meanwhile.
    pub(crate) fn guards(&self, path: &Path) -> bool {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt as _;
            let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
            let locked = self.file.metadata().map(identity);
            let named = std::fs::symlink_metadata(path).map(identity);
            matches!((locked, named), (Ok(locked), Ok(named)) if locked == named)
        }
        // Elsewhere an open file cannot be moved away.
        #[cfg(not(unix))]
        path.is_file()
    }

    /// Waits until nobody else holds the lock, and writes into the file who does.
    pub(crate) fn exclusive(path: &Path, patience: Duration) -> Result<Self> {
        let mut lock = Self::hold(path, patience)?;
        // Only for the message that another process shows.
        let _ = lock.file.set_len(0).and_then(|()| write!(lock.file, "process {}", std::process::id()));
        Ok(lock)
    }

    /// Waits until nobody else holds the lock on a file that has other content.
    pub(crate) fn hold(path: &Path, patience: Duration) -> Result<Self> {
        let file = open(path)?;
        wait(path, patience, || file.try_lock())?;
        Ok(Self { file })
    }

    /// Waits until nobody holds the lock exclusively.
    pub(crate) fn shared(path: &Path, patience: Duration) -> Result<Self> {
        let file = open(path)?;
        wait(path, patience, || file.try_lock_shared())?;
        Ok(Self { file })
    }

    /// Takes the lock if it is free now.
    pub(crate) fn try_exclusive(path: &Path) -> Result<Option<Self>> {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(Error::io("lock", path)(error)),
        }
    }
}

fn open(path: &Path) -> Result<File> {
    let options = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path);
    options.map_err(Error::io("open", path))
}

fn wait(path: &Path, patience: Duration, mut attempt: impl FnMut() -> Result<(), TryLockError>) -> Result<()> {
    let started = Instant::now();
    loop {
        match attempt() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", path)(error)),
            Err(TryLockError::WouldBlock) if started.elapsed() >= patience => {
                let mut holder = String::new();
                let _ = File::open(path).and_then(|file| file.take(64).read_to_string(&mut holder));
                let holder = if holder.is_empty() { "unknown process".into() } else { holder };
                let path = path.parent().unwrap_or(path).to_path_buf();
                return Err(Error::Busy { path, holder, seconds: patience.as_secs() });
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(RETRY),
        }
    }
}
