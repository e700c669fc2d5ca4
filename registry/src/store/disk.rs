//! The only place of this crate that changes files. Every change is written beside, synchronised, then moved in one
//! step, and each step can be watched, so that tests kill a process or fill the disk at every one of them.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempPath;

use crate::error::{Error, Result};

/// One change of the file system, about to be made.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Step<'a> {
    /// Bytes are written to a new file beside.
    Write(&'a Path, usize),
    /// A file is synchronised.
    Sync(&'a Path),
    /// A complete file gets its final name, which must be free.
    Link(&'a Path, &'a Path),
    /// A complete file takes the place of another.
    Rename(&'a Path, &'a Path),
    /// A folder is synchronised.
    SyncFolder(&'a Path),
    /// Bytes are appended to a log.
    Append(&'a Path, usize),
    /// A torn end of a log is cut off.
    Truncate(&'a Path),
    /// A file is removed.
    Remove(&'a Path),
}

/// What an [`Observer`] decides about a step.
#[derive(Debug)]
pub enum Verdict {
    /// It is made.
    Go,
    /// It fails with this error.
    Fail(io::Error),
    /// Only this many bytes are written, then it fails as on a full disk.
    Tear(usize),
}

/// Watches all changes of the file system: for tests of crashes and full disks, and for tracing.
pub trait Observer: Send + Sync + fmt::Debug {
    /// Called before each step.
    fn before(&self, step: Step<'_>) -> Verdict;
}

/// Makes changes durable.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    staging: PathBuf,
    observer: Option<Arc<dyn Observer>>,
}

impl Disk {
    /// Unfinished files are written below `staging`, which must be on the same file system.
    pub(crate) fn new(staging: PathBuf, observer: Option<Arc<dyn Observer>>) -> Self {
        Self { staging, observer }
    }

    pub(crate) fn staging(&self) -> &Path {
        &self.staging
    }

    fn ask(&self, step: Step<'_>) -> io::Result<Option<usize>> {
        match self.observer.as_ref().map_or(Verdict::Go, |observer| observer.before(step)) {
            Verdict::Go => Ok(None),
            Verdict::Fail(error) => Err(error),
            Verdict::Tear(bytes) => Ok(Some(bytes)),
        }
    }

    /// A new file beside, to be filled.
    pub(crate) fn stage(&self) -> Result<Staged<'_>> {
        let file = beside("new-").tempfile_in(&self.staging);
        let (file, path) = file.map_err(Error::io("create a file in", &self.staging))?.into_parts();
        Ok(Staged { disk: self, file, path })
    }

    fn staged(&self, bytes: &[u8]) -> Result<Staged<'_>> {
        let mut staged = self.stage()?;
        staged.write(bytes)?;
        Ok(staged)
    }

    /// Creates a file that must not exist yet; false when it does.
    pub(crate) fn create(&self, path: &Path, bytes: &[u8]) -> Result<bool> {
        self.staged(bytes)?.link(path)
    }

    /// Puts a file in the place of another, or of none.
    pub(crate) fn replace(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        self.staged(bytes)?.rename(path)?;
        self.sync_folder(parent(path))
    }

    /// Appends to a log and synchronises it.
    pub(crate) fn append(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let is_new = !path.exists();
        let attempt = || {
            let mut file = OpenOptions::new().create(true).append(true).open(path)?;
            match self.ask(Step::Append(path, bytes.len()))? {
                None => file.write_all(bytes)?,
                Some(part) => {
                    file.write_all(&bytes[..part.min(bytes.len())])?;
                    return Err(io::Error::from(io::ErrorKind::StorageFull));
                }
            }
            self.ask(Step::Sync(path))?;
            file.sync_data()
        };
        attempt().map_err(Error::io("append to", path))?;
        if is_new { self.sync_folder(parent(path)) } else { Ok(()) }
    }

    /// Cuts a log off after its whole entries.
    pub(crate) fn truncate(&self, path: &Path, bytes: u64) -> Result<()> {
        let attempt = || {
            self.ask(Step::Truncate(path))?;
            let file = OpenOptions::new().write(true).open(path)?;
            file.set_len(bytes)?;
            file.sync_data()
        };
        attempt().map_err(Error::io("truncate", path))
    }

    /// Removes a file; one that is gone already is no fault.
    pub(crate) fn remove(&self, path: &Path) -> Result<()> {
        match self.ask(Step::Remove(path)).and_then(|_| fs::remove_file(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(Error::io("remove", path)),
        }
    }

    /// Gives a complete file beside its final, read-only place.
    pub(crate) fn settle(&self, from: &Path, to: &Path) -> Result<()> {
        let attempt = || {
            let file = OpenOptions::new().write(true).open(from)?;
            make_read_only(&file)?;
            self.ask(Step::Sync(from))?;
            file.sync_all()?;
            self.ask(Step::Rename(from, to))?;
            fs::rename(from, to)
        };
        attempt().map_err(Error::io("rename to", to))
    }

    /// Makes the names in a folder durable.
    pub(crate) fn sync_folder(&self, path: &Path) -> Result<()> {
        let attempt = || {
            self.ask(Step::SyncFolder(path))?;
            // Windows cannot open folders and needs no such call.
            if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
        };
        attempt().map_err(Error::io("synchronise", path))
    }

    /// Makes a folder and its parents.
    pub(crate) fn create_folder(&self, path: &Path) -> Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        fs::create_dir_all(path).map_err(Error::io("create folder", path))?;
        self.sync_folder(parent(path))
    }
}

/// A file beside, not yet visible; it is removed when dropped.
pub(crate) struct Staged<'a> {
    disk: &'a Disk,
    file: File,
    path: TempPath,
}

impl Staged<'_> {
    /// Writes more bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let mut attempt = || match self.disk.ask(Step::Write(&self.path, bytes.len()))? {
            None => self.file.write_all(bytes),
            Some(part) => {
                self.file.write_all(&bytes[..part.min(bytes.len())])?;
                Err(io::Error::from(io::ErrorKind::StorageFull))
            }
        };
        attempt().map_err(Error::io("write", &self.path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn sync(&self, read_only: bool) -> Result<()> {
        let attempt = || {
            if read_only {
                make_read_only(&self.file)?;
            }
            self.disk.ask(Step::Sync(&self.path))?;
            self.file.sync_all()
        };
        attempt().map_err(Error::io("synchronise", &self.path))
    }

    /// Gives the file its final name unless that is taken; false when it is.
    pub(crate) fn link(self, path: &Path) -> Result<bool> {
        self.sync(false)?;
        let attempt = || {
            self.disk.ask(Step::Link(&self.path, path))?;
            match fs::hard_link(&self.path, path) {
                Ok(()) => Ok(true),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
                // File systems without hard links; the caller holds the lock, so nobody else creates it now.
                Err(_) if fs::symlink_metadata(path).is_ok() => Ok(false),
                Err(_) => fs::rename(&self.path, path).map(|()| true),
            }
        };
        let created = attempt().map_err(Error::io("create", path))?;
        if created {
            self.disk.sync_folder(parent(path))?;
        }
        Ok(created)
    }

    /// Puts the file in the place of another; the folder is not synchronised yet.
    pub(crate) fn rename(self, path: &Path) -> Result<()> {
        self.sync(false)?;
        self.moved(path)
    }

    /// Like [`Self::rename`], for content that never changes again.
    pub(crate) fn rename_read_only(self, path: &Path) -> Result<()> {
        self.sync(true)?;
        self.moved(path)
    }

    fn moved(self, path: &Path) -> Result<()> {
        let Self { disk, file, path: staged } = self;
        disk.ask(Step::Rename(&staged, path)).map_err(Error::io("rename to", path))?;
        drop(file);
        staged.persist(path).map_err(|error| error.error).map_err(Error::io("rename to", path))
    }
}

/// What makes a file beside. Whoever may read other files of this user may read it: the system takes off what its mask forbids.
pub(crate) fn beside(prefix: &'static str) -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder
}

/// Nobody writes to it any more; who may read it stays.
fn make_read_only(file: &File) -> io::Result<()> {
    // Windows would not remove it later.
    if cfg!(unix) {
        let mut permissions = file.metadata()?.permissions();
        permissions.set_readonly(true);
        file.set_permissions(permissions)?;
    }
    Ok(())
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

/// Reads a regular file of at most `limit` bytes; links are not followed.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let metadata = fs::symlink_metadata(path).map_err(Error::io("read", path))?;
    if !metadata.is_file() {
        return Err(Error::malformed("file", path.display(), "it is a link, a folder or a device"));
    }
    let too_large = |found| Error::TooLarge { what: path.display().to_string(), unit: "bytes", limit, found };
    if metadata.len() > limit {
        return Err(too_large(metadata.len()));
    }
    let file = File::open(path).map_err(Error::io("read", path))?;
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    // It may have grown since it was measured.
    file.take(limit + 1).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    if bytes.len() as u64 > limit { Err(too_large(bytes.len() as u64)) } else { Ok(bytes) }
}

/// [`read_bounded`], with none for a file that does not exist.
pub(crate) fn read_if_present(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    match read_bounded(path, limit) {
        Err(error) if error.is_missing() => Ok(None),
        result => result.map(Some),
    }
}

/// The names in a folder, sorted; none when there is no such folder.
pub(crate) fn list(path: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::io("list", path))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        // Names that are not UTF-8 are none of ours.
        if let Ok(name) = entry.map_err(Error::io("list", path))?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}
