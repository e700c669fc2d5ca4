//! What belongs to one name: its versions, releases, aliases, pins, attachments, one small file each.
//!
//! `versions/<number>` is the commit point of a publication. `head` says which number is the newest and is written just
//! before, so it may name one that does not exist yet; then the one before it is the newest.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Registry;
use super::version::{Record, Version};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::name::{Name, Release};
use crate::oci::{Descriptor, parse};
use crate::store::{Lock, list, read_if_present};

/// The largest of these files, in bytes.
const MAX_RECORD_BYTES: u64 = 1 << 16;

/// The newest numbers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) latest: u64,
    pub(super) previous: u64,
    /// Changes whenever a version comes or goes other than at the end.
    #[serde(default)]
    pub(super) epoch: u64,
}

/// The files of one name.
pub(super) struct Shelf<'a> {
    pub(super) registry: &'a Registry,
    pub(super) name: &'a Name,
    pub(super) folder: PathBuf,
}

impl Registry {
    pub(super) fn shelf<'a>(&'a self, name: &'a Name) -> Shelf<'a> {
        Shelf { registry: self, name, folder: self.names_folder().join(name.folder()) }
    }

    /// All names, in order.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn names(&self) -> Result<Vec<Name>> {
        Ok(list(&self.names_folder())?.iter().filter_map(|folder| Name::from_folder(folder).ok()).collect())
    }

    /// All versions of an adapter, oldest first.
    ///
    /// # Errors
    /// [`Error::Unknown`] for a name without versions.
    pub fn versions(&self, name: &Name) -> Result<Vec<Version>> {
        let shelf = self.shelf(name);
        let mut versions = Vec::new();
        for number in shelf.numbers()? {
            if let Some(record) = shelf.record(number)?.filter(|record| record.removed.is_none()) {
                versions.push(record.version(name));
            }
        }
        if versions.is_empty() { Err(self.no_such_name(name)) } else { Ok(versions) }
    }

    /// The newest versions of an adapter, newest first, at most `limit`.
    ///
    /// # Errors
    /// [`Error::Unknown`] for a name without versions.
    pub fn newest(&self, name: &Name, limit: usize) -> Result<Vec<Version>> {
        let shelf = self.shelf(name);
        let latest = shelf.latest()?.ok_or_else(|| self.no_such_name(name))?;
        let mut versions = Vec::new();
        // Numbers are dense where they were published here; a gap of this size is searched by the folder instead.
        let mut gap = 0;
        for number in (1..=latest).rev() {
            match shelf.record(number)? {
                _ if versions.len() == limit => break,
                Some(record) if record.removed.is_none() => versions.push(record.version(name)),
                Some(_) => gap = 0,
                None if gap == 1000 => {
                    let older = shelf.numbers()?;
                    for number in older.into_iter().rev().skip_while(|older| *older >= number) {
                        match shelf.record(number)? {
                            _ if versions.len() == limit => break,
                            Some(record) if record.removed.is_none() => versions.push(record.version(name)),
                            _ => {}
                        }
                    }
                    break;
                }
                None => gap += 1,
            }
        }
        Ok(versions)
    }

    /// The version before one, by number.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn previous(&self, version: &Version) -> Result<Option<Version>> {
        let shelf = self.shelf(&version.name);
        for number in (1..version.number).rev().take(1000) {
            if let Some(record) = shelf.record(number)?.filter(|record| record.removed.is_none()) {
                return Ok(Some(record.version(&version.name)));
            }
        }
        Ok(None)
    }

    pub(super) fn no_such_name(&self, name: &Name) -> Error {
        let candidates = self.names().unwrap_or_default().iter().map(ToString::to_string).collect();
        Error::Unknown { kind: "adapter", name: name.to_string(), place: " in the registry".into(), candidates }
    }
}

impl Shelf<'_> {
    pub(super) fn version_path(&self, number: u64) -> PathBuf {
        self.folder.join("versions").join(number.to_string())
    }

    fn release_path(&self, release: &Release) -> PathBuf {
        self.folder.join("releases").join(release.to_string())
    }

    /// Makes the folders of a new name.
    pub(super) fn create(&self) -> Result<()> {
        for folder in ["versions", "releases", "aliases"] {
            self.registry.disk.create_folder(&self.folder.join(folder))?;
        }
        self.registry.disk.sync_folder(&self.registry.names_folder())
    }

    /// The record of a version, also of a removed one.
    pub(super) fn record(&self, number: u64) -> Result<Option<Record>> {
        let path = self.version_path(number);
        let Some(bytes) = read_if_present(&path, MAX_RECORD_BYTES)? else { return Ok(None) };
        let record: Record = parse(&bytes, "version record", path.display())?;
        if record.number != number {
            return Err(Error::malformed(
                "version record",
                path.display(),
                format!("it is of number {}", record.number),
            ));
        }
        Ok(Some(record))
    }

    /// Numbers of all versions that were ever here, in order.
    pub(super) fn numbers(&self) -> Result<Vec<u64>> {
        let mut numbers: Vec<u64> =
            list(&self.folder.join("versions"))?.iter().filter_map(|name| name.parse().ok()).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    pub(super) fn head(&self) -> Result<Head> {
        let read = read_if_present(&self.folder.join("head"), 4096)?;
        // A lost or damaged head is found again in the folder.
        let head: Option<Head> = read.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let is_here = |number: u64| number > 0 && self.version_path(number).exists();
        match head {
            Some(head) if is_here(head.latest) => Ok(head),
            Some(head) if is_here(head.previous) => Ok(Head { latest: head.previous, ..head }),
            head => {
                let latest = self.numbers()?.last().copied().unwrap_or(0);
                Ok(Head { latest, previous: 0, epoch: head.map_or(0, |head| head.epoch) })
            }
        }
    }

    /// The newest number.
    pub(super) fn latest(&self) -> Result<Option<u64>> {
        Ok(Some(self.head()?.latest).filter(|latest| *latest > 0))
    }

    /// The number of a semantic version.
    pub(super) fn released(&self, release: &Release) -> Result<Option<u64>> {
        if let Some(bytes) = read_if_present(&self.release_path(release), 64)? {
            let number = String::from_utf8_lossy(&bytes).trim().parse().ok();
            // A release is noted after its version; a note without a version is none.
            if let Some(number) = number
                && self.record(number)?.is_some_and(|record| record.release.as_ref() == Some(release))
            {
                return Ok(Some(number));
            }
        }
        // Only the newest version may lack its note.
        let Some(latest) = self.latest()? else { return Ok(None) };
        Ok(self.record(latest)?.filter(|record| record.release.as_ref() == Some(release)).map(|record| record.number))
    }

    /// Makes a version visible. Its blobs must be durable.
    pub(super) fn commit(&self, _lock: &Lock, record: &Record) -> Result<()> {
        let disk = &self.registry.disk;
        let head = self.head()?;
        if let Some(latest) = self.record(head.latest)? {
            self.note_release(&latest)?;
        }
        let next = if record.number > head.latest {
            Head { latest: record.number, previous: head.latest, epoch: head.epoch }
        } else {
            Head { epoch: head.epoch.wrapping_add(1), ..head }
        };
        disk.replace(&self.folder.join("head"), &encode(&next))?;
        self.registry.mark_pending(self.name)?;
        let path = self.version_path(record.number);
        let is_removed = self.record(record.number)?.is_some_and(|record| record.removed.is_some());
        if is_removed {
            disk.replace(&path, &encode(record))?;
        } else if !disk.create(&path, &encode(record))? {
            let what = format!("version {} of `{}`", record.number, self.name);
            return Err(Error::Conflict { what, expected: "a free number".into(), found: "a version".into() });
        }
        self.note_release(record)
    }

    fn note_release(&self, record: &Record) -> Result<()> {
        if let Some(release) = &record.release {
            let path = self.release_path(release);
            if !path.exists() {
                self.registry.disk.replace(&path, record.number.to_string().as_bytes())?;
            }
        }
        Ok(())
    }

    /// Removes a version; its number stays taken.
    pub(super) fn bury(&self, _lock: &Lock, record: &Record, at: &str) -> Result<()> {
        let disk = &self.registry.disk;
        let head = self.head()?;
        let head = Head { epoch: head.epoch.wrapping_add(1), ..head };
        disk.replace(&self.folder.join("head"), &encode(&head))?;
        disk.replace(&self.version_path(record.number), &encode(&Record { removed: Some(at.into()), ..record.clone() }))
    }

    fn attachments_folder(&self, subject: &Digest) -> PathBuf {
        self.folder.join("attachments").join(subject.hex())
    }

    /// Signatures and deltas of a version, by the digests of their manifests.
    pub(super) fn attachments(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        let folder = self.attachments_folder(subject);
        let mut found = Vec::new();
        for name in list(&folder)?.iter().filter(|name| Digest::from_hex(name).is_some()) {
            let path = folder.join(name);
            if let Some(bytes) = read_if_present(&path, MAX_RECORD_BYTES)? {
                found.push(parse(&bytes, "attachment record", path.display())?);
            }
        }
        Ok(found)
    }

    /// Attaches a manifest whose blobs are durable to a version.
    pub(super) fn attach(&self, _lock: &Lock, subject: &Digest, attachment: &Descriptor) -> Result<()> {
        let folder = self.attachments_folder(subject);
        self.registry.disk.create_folder(&self.folder.join("attachments"))?;
        self.registry.disk.create_folder(&folder)?;
        self.registry.disk.replace(&folder.join(attachment.digest.hex()), &encode(attachment))
    }

    /// Whether a version is pinned.
    pub(super) fn pins(&self) -> Result<Vec<u64>> {
        Ok(list(&self.folder.join("pins"))?.iter().filter_map(|name| name.parse().ok()).collect())
    }

    pub(super) fn pin(&self, _lock: &Lock, number: u64) -> Result<()> {
        let folder = self.folder.join("pins");
        self.registry.disk.create_folder(&folder)?;
        self.registry.disk.replace(&folder.join(number.to_string()), b"")
    }

    pub(super) fn unpin(&self, _lock: &Lock, number: u64) -> Result<()> {
        self.registry.disk.remove(&self.folder.join("pins").join(number.to_string()))?;
        self.registry.disk.sync_folder(&self.folder)
    }
}

/// A record as it stands on disk.
pub(super) fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(record).expect("records hold strings and numbers");
    bytes.push(b'\n');
    bytes
}
