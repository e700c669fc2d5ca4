//! Retention and the removal of what nothing refers to. First the references go, durably, then the content: a crash in
//! between leaves garbage, never a reference to nothing.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::Serialize;

use super::Registry;
use super::shelf::Shelf;
use super::version::{Record, Version};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::name::Name;
use crate::oci::{Descriptor, ImageIndex, MAX_MANIFEST_BYTES, Manifest, media_type, parse};
use crate::store::Lock;

/// How old an unfinished checkout must be to be garbage.
const STALE: Duration = Duration::from_secs(3600);
/// How deep indexes of other tools may be nested.
const MAX_DEPTH: usize = 4;

/// What is kept.
#[derive(Debug, Clone, Copy, Default)]
pub struct GcPolicy {
    /// How many versions of each name, from the newest; all when absent. What an alias points at or could roll back to,
    /// and what is pinned, checked out or newest, is kept besides.
    pub keep: Option<usize>,
    /// Only say what would be removed.
    pub dry_run: bool,
}

/// A version that was or would be removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Removal {
    /// The version.
    #[serde(flatten)]
    pub version: Version,
}

/// What was, or would be, removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct GcReport {
    /// Versions.
    pub versions: Vec<Removal>,
    /// Blobs.
    pub blobs: usize,
    /// Size of these blobs, in bytes.
    pub bytes: u64,
    /// Folders that were checked out and that nobody uses.
    pub checkouts: usize,
    /// Unfinished files of processes that died.
    pub unfinished: usize,
    /// Whether nothing was removed in fact.
    pub dry_run: bool,
}

impl Registry {
    /// Keeps a version whatever retention says, or no longer.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn pin(&self, version: &Version, keep: bool) -> Result<()> {
        let lock = self.write_lock()?;
        let shelf = self.shelf(&version.name);
        if keep { shelf.pin(&lock, version.number) } else { shelf.unpin(&lock, version.number) }
    }

    /// The pinned numbers of an adapter.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn pins(&self, name: &Name) -> Result<Vec<u64>> {
        self.shelf(name).pins()
    }

    /// Removes versions that the policy does not keep, and content that nothing refers to.
    ///
    /// # Errors
    /// [`Error::Damaged`] or [`Error::Unknown`] when a manifest cannot be read; then no content is removed, since it
    /// could be the content of that one.
    pub fn gc(&self, policy: &GcPolicy) -> Result<GcReport> {
        let _ingest = Lock::exclusive(&self.root.join("gc.lock"), self.patience)?;
        let lock = self.write_lock()?;
        let mut report = GcReport { dry_run: policy.dry_run, ..GcReport::default() };
        let mut live: HashSet<Digest> = HashSet::new();
        for name in self.names()? {
            let shelf = self.shelf(&name);
            let (kept, removed) = self.sort_out(&shelf, policy)?;
            if !removed.is_empty() && !policy.dry_run {
                let at = Timestamp::now().to_string();
                self.mark_pending(&name)?;
                for record in &removed {
                    shelf.bury(&lock, record, &at)?;
                }
                self.refresh_view(&lock, &name)?;
            }
            report.versions.extend(removed.iter().map(|record| Removal { version: record.version(&name) }));
            for record in kept {
                self.mark(&record.manifest, &mut live)?;
                for attachment in shelf.attachments(&record.manifest)? {
                    self.mark(&attachment.digest, &mut live)?;
                }
            }
        }
        for entry in self.foreign_entries()? {
            self.mark_foreign(&entry, &mut live, 0)?;
        }
        for digest in self.blobs.list()?.into_iter().filter(|digest| !live.contains(digest)) {
            report.blobs += 1;
            report.bytes += self.blobs.size(&digest).unwrap_or(0);
            if !policy.dry_run {
                self.blobs.remove(&digest)?;
            }
        }
        report.unfinished = self.sweep_staging(policy.dry_run)?;
        report.checkouts = self.sweep_checkouts(policy.dry_run)?;
        if !policy.dry_run {
            self.rebuild_view(&lock)?;
        }
        Ok(report)
    }

    /// The records of a name that stay and those that go.
    fn sort_out(&self, shelf: &Shelf<'_>, policy: &GcPolicy) -> Result<(Vec<Record>, Vec<Record>)> {
        let mut records = Vec::new();
        for number in shelf.numbers()? {
            records.extend(shelf.record(number)?.filter(|record| record.removed.is_none()));
        }
        let Some(keep) = policy.keep else { return Ok((records, Vec::new())) };
        let mut protected: HashSet<u64> = shelf.pins()?.into_iter().collect();
        protected.extend(shelf.latest()?);
        for alias in shelf.alias_names()? {
            let mut past = shelf.past(&alias)?;
            protected.extend(past.pop().flatten());
            // Where it would roll back to.
            let is_here = |number: &u64| records.iter().any(|record| record.number == *number);
            protected.extend(past.into_iter().rev().flatten().find(is_here));
        }
        let newest = records.len().saturating_sub(keep.max(1));
        let mut removed = Vec::new();
        let mut kept = Vec::new();
        for (at, record) in records.into_iter().enumerate() {
            let is_kept =
                at >= newest || protected.contains(&record.number) || self.is_checked_out(&record.manifest)?;
            if is_kept { kept.push(record) } else { removed.push(record) }
        }
        Ok((kept, removed))
    }

    /// Whether a process works with the files of this manifest.
    fn is_checked_out(&self, manifest: &Digest) -> Result<bool> {
        let lease = self.checkouts_folder().join(manifest.hex()).join(".lease");
        Ok(lease.is_file() && Lock::try_exclusive(&lease)?.is_none())
    }

    /// Marks a manifest and all it refers to.
    fn mark(&self, digest: &Digest, live: &mut HashSet<Digest>) -> Result<()> {
        if live.insert(*digest) {
            let manifest = self.manifest(digest)?;
            live.extend(manifest.content().map(|content| content.digest));
        }
        Ok(())
    }

    /// Marks what another tool has put into the layout, as far as it can be understood.
    fn mark_foreign(&self, entry: &Descriptor, live: &mut HashSet<Digest>, depth: usize) -> Result<()> {
        if !live.insert(entry.digest) || depth == MAX_DEPTH {
            return Ok(());
        }
        let Ok(bytes) = self.blobs.read(&entry.digest, MAX_MANIFEST_BYTES) else { return Ok(()) };
        if entry.media_type == media_type::INDEX {
            let index: ImageIndex = parse(&bytes, "OCI index", entry.digest)?;
            for entry in &index.manifests {
                self.mark_foreign(entry, live, depth + 1)?;
            }
        } else {
            live.extend(Manifest::parse(&bytes, &entry.digest.to_string())?.content().map(|content| content.digest));
        }
        Ok(())
    }

    /// Removes what processes that died have left unfinished. All who write here hold a lock that `gc` has now, except
    /// for checkouts, which are only removed when they are old.
    fn sweep_staging(&self, dry_run: bool) -> Result<usize> {
        let mut swept = 0;
        for name in crate::store::list(self.disk.staging())? {
            let path = self.disk.staging().join(&name);
            let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
            let age =
                metadata.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok()).unwrap_or_default();
            if !name.starts_with("new-") && age < STALE {
                continue;
            }
            swept += 1;
            if dry_run {
                continue;
            }
            if metadata.is_dir() {
                std::fs::remove_dir_all(&path).map_err(Error::io("remove", &path))?;
            } else {
                self.disk.remove(&path)?;
            }
        }
        Ok(swept)
    }
}
