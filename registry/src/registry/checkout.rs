//! A version as a folder of files, for programs that want paths.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Registry, Version};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::oci::{Card, Manifest};
use crate::store::Lock;

/// Held open by whoever uses a checked-out folder.
const LEASE_FILE: &str = ".lease";
/// How often a folder that `gc` is just removing is made again.
const ATTEMPTS: usize = 16;

/// A folder with the verified files of a version. While the value lives, and no longer than its process, `gc` leaves the
/// folder alone; the files are hard links, so they are whole even when the version is removed meanwhile. They are
/// read-only: a change would change the registry.
#[derive(Debug)]
pub struct Checkout {
    folder: PathBuf,
    version: Version,
    _lease: Lock,
}

impl Checkout {
    /// The folder: `adapter.safetensors`, `adapter.json` and what was published with them.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The version.
    pub fn version(&self) -> &Version {
        &self.version
    }
}

impl Registry {
    /// Gives the files of a version as a folder. Every byte is verified each time. Takes no lock that `gc` or a publisher
    /// holds.
    ///
    /// # Errors
    /// [`Error::Damaged`] or [`Error::Unknown`] for a blob that is not whole, [`Error::Untrusted`] when the policy asks for
    /// signatures that it does not have.
    pub fn checkout(&self, version: &Version) -> Result<Checkout> {
        let manifest = self.manifest(&version.digest)?;
        Card::of(&manifest, &version.to_string())?;
        let attachments = self.shelf(&version.name).attachments(&version.digest)?;
        self.check_signatures(&version.to_string(), &version.digest, &attachments)?;
        for layer in manifest.content() {
            self.blobs.verify(&layer.digest, Some(layer.size))?;
        }
        let folder = self.checkouts_folder().join(version.digest.hex());
        for _ in 0..ATTEMPTS {
            if !folder.join(LEASE_FILE).is_file() {
                self.lay_out(&manifest, &folder)?;
            }
            match Lock::shared(&folder.join(LEASE_FILE), self.patience) {
                // The folder may have been moved away by `gc` before the lease was taken; then it is made again.
                Ok(lease) if lease.guards(&folder.join(LEASE_FILE)) && self.is_laid_out(&manifest, &folder) => {
                    return Ok(Checkout { folder, version: version.clone(), _lease: lease });
                }
                Ok(lease) if !lease.guards(&folder.join(LEASE_FILE)) => {}
                Ok(_) => {
                    // Somebody changed the files.
                    let aside = self.disk.stage()?.path().with_extension("aside");
                    let _ = fs::rename(&folder, &aside).and_then(|()| fs::remove_dir_all(&aside));
                }
                Err(error) if error.is_missing() => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Busy { path: folder, holder: "gc".into(), seconds: 0 })
    }

    /// Whether the files are there and are those of the blobs.
    fn is_laid_out(&self, manifest: &Manifest, folder: &Path) -> bool {
        manifest.layers.iter().all(|layer| {
            let Some(title) = layer.title() else { return true };
            is_same_file(&folder.join(title), &self.blobs.path(&layer.digest))
                || fs::File::open(folder.join(title))
                    .and_then(Digest::of_reader)
                    .is_ok_and(|(digest, _)| digest == layer.digest)
        })
    }

    fn lay_out(&self, manifest: &Manifest, folder: &Path) -> Result<()> {
        let temporary = tempfile::Builder::new().prefix("checkout-").tempdir_in(self.disk.staging());
        let temporary = temporary.map_err(Error::io("create a folder in", self.disk.staging()))?;
        for layer in &manifest.layers {
            let Some(title) = layer.title() else { continue };
            let (blob, file) = (self.blobs.path(&layer.digest), temporary.path().join(title));
            // Where links are not possible, a copy is as good.
            fs::hard_link(&blob, &file)
                .or_else(|_| fs::copy(&blob, &file).map(drop))
                .map_err(Error::io("read", &blob))?;
        }
        let lease = temporary.path().join(LEASE_FILE);
        fs::write(&lease, b"").map_err(Error::io("write", &lease))?;
        match fs::rename(temporary.path(), folder) {
            // Another process was faster; both folders hold the same.
            Err(_) if folder.join(LEASE_FILE).is_file() => Ok(()),
            result => result.map_err(Error::io("create", folder)),
        }
    }

    /// Removes the checked-out folders that nobody uses and returns their number.
    pub(super) fn sweep_checkouts(&self, dry_run: bool) -> Result<usize> {
        let mut swept = 0;
        for name in crate::store::list(&self.checkouts_folder())? {
            let folder = self.checkouts_folder().join(&name);
            let lease = folder.join(LEASE_FILE);
            if !lease.is_file() {
                continue;
            }
            let Some(_lock) = Lock::try_exclusive(&lease)? else { continue };
            swept += 1;
            if !dry_run {
                let aside = self.disk.staging().join(format!("checkout-{name}"));
                fs::rename(&folder, &aside).map_err(Error::io("remove", &folder))?;
                fs::remove_dir_all(&aside).map_err(Error::io("remove", &aside))?;
            }
        }
        Ok(swept)
    }
}

#[cfg(unix)]
fn is_same_file(left: &Path, right: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let identity = |path: &Path| fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
    identity(left).is_some_and(|left| identity(right) == Some(left))
}

#[cfg(not(unix))]
fn is_same_file(_left: &Path, _right: &Path) -> bool {
    false
}
