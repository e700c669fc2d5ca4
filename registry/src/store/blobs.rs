//! Immutable content, each file under its SHA-256: `blobs/sha256/<hex>` of an OCI image layout.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result};
use crate::store::{Disk, list, read_bounded};

/// How much is copied at once.
const CHUNK_BYTES: usize = 1 << 18;

/// The blobs of a layout.
#[derive(Debug, Clone)]
pub struct Blobs {
    folder: PathBuf,
    disk: Disk,
}

impl Blobs {
    pub(crate) fn new(layout: &Path, disk: Disk) -> Self {
        Self { folder: layout.join("blobs").join("sha256"), disk }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where a blob is or would be. The file is read-only and never changes.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(digest.hex())
    }

    /// The size of a blob, if it is here.
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        let metadata = fs::symlink_metadata(self.path(digest)).ok()?;
        metadata.is_file().then_some(metadata.len())
    }

    /// Stores bytes; the folder is synchronised by [`Self::sync`].
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn put(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        if !self.is_whole(&digest) {
            let mut staged = self.disk.stage()?;
            staged.write(bytes)?;
            staged.rename_read_only(&self.path(&digest))?;
        }
        Ok(digest)
    }

    /// Stores what a reader gives, in bounded memory, and returns its digest and size. With `expected`, anything else is
    /// refused and nothing is stored.
    ///
    /// # Errors
    /// [`Error::TooLarge`] over `limit` bytes, [`Error::Damaged`] for other content than expected.
    pub fn put_reader(
        &self,
        mut reader: impl Read,
        limit: u64,
        expected: Option<&Digest>,
        what: &str,
    ) -> Result<(Digest, u64)> {
        let mut staged = self.disk.stage()?;
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let read = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::io("read", Path::new(what))(error)),
            };
            if hasher.bytes() + read as u64 > limit {
                return Err(Error::TooLarge {
                    what: what.into(),
                    unit: "bytes",
                    limit,
                    found: hasher.bytes() + read as u64,
                });
            }
            hasher.update(&buffer[..read]);
            staged.write(&buffer[..read])?;
        }
        let (digest, size) = hasher.finish();
        if let Some(expected) = expected.filter(|expected| **expected != digest) {
            return Err(Error::damaged(what, expected, &digest));
        }
        if !self.is_whole(&digest) {
            staged.rename_read_only(&self.path(&digest))?;
        }
        Ok((digest, size))
    }

    /// Takes in a file beside that was filled by other means, if it is whole; if not, the file is removed.
    pub(crate) fn adopt(&self, part: &Path, digest: &Digest) -> Result<()> {
        let attempt = || Digest::of_reader(File::open(part)?);
        let (found, _) = attempt().map_err(Error::io("read", part))?;
        if found != *digest {
            self.disk.remove(part)?;
            return Err(Error::damaged("what was received", digest, &found));
        }
        self.disk.settle(part, &self.path(digest))
    }

    /// Makes all blobs stored so far durable; call it before anything refers to them.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn sync(&self) -> Result<()> {
        self.disk.sync_folder(&self.folder)
    }

    /// Reads a blob of at most `limit` bytes and checks its content.
    ///
    /// # Errors
    /// [`Error::Unknown`] when it is not here, [`Error::Damaged`] when it has other content.
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let path = self.path(digest);
        let bytes = match read_bounded(&path, limit) {
            Err(error) if error.is_missing() => return Err(self.missing(digest)),
            bytes => bytes?,
        };
        let found = Digest::of(&bytes);
        if found == *digest {
            Ok(bytes)
        } else {
            Err(Error::damaged(format!("blob `{}`", path.display()), digest, &found))
        }
    }

    /// Reads a blob through once and checks its content and, where known, its size.
    ///
    /// # Errors
    /// [`Error::Unknown`] when it is not here, [`Error::Damaged`] when it has other content.
    pub fn verify(&self, digest: &Digest, size: Option<u64>) -> Result<u64> {
        let path = self.path(digest);
        match self.size(digest) {
            None => return Err(self.missing(digest)),
            Some(found) if size.is_some_and(|size| size != found) => {
                let (what, expected) =
                    (format!("blob `{}`", path.display()), format!("{} bytes", size.unwrap_or_default()));
                return Err(Error::Damaged { what, expected, found: format!("{found} bytes") });
            }
            Some(_) => {}
        }
        let attempt = || Digest::of_reader(File::open(&path)?);
        let (found, size) = attempt().map_err(Error::io("read", &path))?;
        if found == *digest {
            Ok(size)
        } else {
            Err(Error::damaged(format!("blob `{}`", path.display()), digest, &found))
        }
    }

    /// The digests of all blobs, in order.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn list(&self) -> Result<Vec<Digest>> {
        Ok(list(&self.folder)?.iter().filter_map(|name| Digest::from_hex(name)).collect())
    }

    pub(crate) fn remove(&self, digest: &Digest) -> Result<()> {
        self.disk.remove(&self.path(digest))
    }

    pub(crate) fn missing(&self, digest: &Digest) -> Error {
        Error::unknown("blob", digest, format!(" in `{}`", self.folder.display()))
    }

    /// Whether the blob is here with the right content. A damaged one is replaced when it is stored again.
    fn is_whole(&self, digest: &Digest) -> bool {
        self.size(digest).is_some() && self.verify(digest, None).is_ok()
    }
}
