//! From a remote to here: what is missing only, by difference where one is offered, resumed where it broke off, verified
//! before anything refers to it.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use super::delta::{Delta, decode};
use super::push::referrers_tag;
use super::remote::Remote;
use super::retry::Transfer;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::name::{Name, Selector};
use crate::oci::{Descriptor, ImageIndex, MAX_MANIFEST_BYTES, Manifest, media_type, parse};
use crate::registry::{MAX_FILE_BYTES, Registry, Version, identity};
use crate::store::Lock;

/// The most signatures and differences of one version that are looked at.
const MAX_REFERRERS: usize = 64;

/// What a pull brought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PullReport {
    /// The version.
    #[serde(flatten)]
    pub version: Version,
    /// False when it was here already.
    pub is_new: bool,
    /// Bytes of content that were moved.
    pub moved_bytes: u64,
    /// Size of the version, in bytes: what would be moved without anything here.
    pub full_bytes: u64,
    /// How many files were made from differences.
    pub deltas: u64,
}

/// Counts what is moved.
#[derive(Default)]
struct Meter {
    moved: AtomicU64,
    deltas: AtomicU64,
}

impl Registry {
    /// Pulls a version.
    ///
    /// # Errors
    /// [`Error::Unknown`] when the remote does not have it, [`Error::Untrusted`] when the policy asks for signatures
    /// that it does not have, [`Error::Remote`] after all attempts: the next pull goes on where this one ended.
    pub fn pull(
        &self,
        name: &Name,
        selector: &Selector,
        remote: &dyn Remote,
        transfer: &Transfer,
    ) -> Result<PullReport> {
        let tag = selector.to_string();
        let missing = || Error::unknown("version", format!("{name}@{tag}"), format!(" at `{}`", remote.address()));
        let read = || remote.manifest(name.as_str(), &tag, MAX_MANIFEST_BYTES);
        let bytes = transfer.retry(&tag, read)?.ok_or_else(missing)?;
        self.pull_bytes(
            name,
            &bytes,
            match selector {
                Selector::Digest(digest) => Some(digest),
                _ => None,
            },
            remote,
            transfer,
        )
    }

    /// Pulls the version with this manifest; with `expected`, no other.
    pub(crate) fn pull_bytes(
        &self,
        name: &Name,
        bytes: &[u8],
        expected: Option<&Digest>,
        remote: &dyn Remote,
        transfer: &Transfer,
    ) -> Result<PullReport> {
        let (digest, what) = (Digest::of(bytes), format!("`{name}` of `{}`", remote.address()));
        if let Some(expected) = expected.filter(|expected| **expected != digest) {
            return Err(Error::damaged(what, expected, &digest));
        }
        let manifest = Manifest::parse(bytes, &what)?;
        let (found, _) = identity(&manifest, &what)?;
        if found != *name {
            return Err(Error::refused(what, format!("what it gives is `{found}`")));
        }
        let _ingest = self.ingest_lock()?;
        let meter = Meter::default();
        let referrers = self.referrers(name, &digest, remote, transfer)?;
        let deltas: Vec<Delta> = referrers.iter().flat_map(|(_, manifest)| Delta::all(manifest)).collect();
        let content: Vec<&Descriptor> = manifest.content().collect();
        transfer.each(&content, |blob| self.take(name, blob, &deltas, remote, transfer, &meter))?;
        let mut signatures = Vec::new();
        for (descriptor, manifest) in &referrers {
            if manifest.artifact_type.as_deref() == Some(media_type::SIGNATURE) {
                for blob in manifest.content() {
                    self.take(name, blob, &[], remote, transfer, &meter)?;
                }
                signatures.push(descriptor.clone());
            }
        }
        self.blobs().put(bytes)?;
        let adopted = self.adopt(&digest, &signatures)?;
        Ok(PullReport {
            version: adopted.version,
            is_new: adopted.is_new,
            moved_bytes: meter.moved.load(Ordering::Relaxed),
            full_bytes: manifest.bytes(),
            deltas: meter.deltas.load(Ordering::Relaxed),
        })
    }

    /// The signatures and differences that a remote lists for a manifest. What it lists wrongly is left out.
    fn referrers(
        &self,
        name: &Name,
        subject: &Digest,
        remote: &dyn Remote,
        transfer: &Transfer,
    ) -> Result<Vec<(Descriptor, Manifest)>> {
        let tag = referrers_tag(subject);
        let index = transfer.retry(&tag, || remote.manifest(name.as_str(), &tag, MAX_MANIFEST_BYTES))?;
        let Some(index) = index.and_then(|bytes| parse::<ImageIndex>(&bytes, "OCI index", &tag).ok()) else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        for entry in index.manifests.iter().filter(|entry| entry.media_type == media_type::MANIFEST).take(MAX_REFERRERS)
        {
            let digest = entry.digest.to_string();
            let read = transfer.retry(&digest, || remote.manifest(name.as_str(), &digest, MAX_MANIFEST_BYTES));
            let Ok(Some(bytes)) = read else { continue };
            let Ok(manifest) = Manifest::parse(&bytes, &digest) else { continue };
            let is_about = manifest.subject.as_ref().is_some_and(|about| about.digest == *subject);
            if Digest::of(&bytes) == entry.digest && is_about {
                self.blobs().put(&bytes)?;
                found.push((Descriptor::new(media_type::MANIFEST, entry.digest, bytes.len() as u64), manifest));
            }
        }
        Ok(found)
    }

    /// Gets a blob unless it is here: by difference, or whole.
    fn take(
        &self,
        name: &Name,
        blob: &Descriptor,
        deltas: &[Delta],
        remote: &dyn Remote,
        transfer: &Transfer,
        meter: &Meter,
    ) -> Result<()> {
        if self.blobs().verify(&blob.digest, Some(blob.size)).is_ok() {
            return Ok(());
        }
        if blob.size > MAX_FILE_BYTES {
            let what = blob.digest.to_string();
            return Err(Error::TooLarge { what, unit: "bytes", limit: MAX_FILE_BYTES, found: blob.size });
        }
        let is_usable = |delta: &&Delta| {
            delta.to == blob.digest && delta.blob.size < blob.size && self.blobs().size(&delta.from).is_some()
        };
        if transfer.deltas
            && let Some(delta) = deltas.iter().filter(is_usable).min_by_key(|delta| delta.blob.size)
        {
            // Whatever is wrong with a difference, the whole file is still there.
            if self.take_delta(name, blob, delta, remote, transfer, meter).is_ok() {
                meter.deltas.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
        }
        self.download(name, blob, remote, transfer, meter)
    }

    fn take_delta(
        &self,
        name: &Name,
        blob: &Descriptor,
        delta: &Delta,
        remote: &dyn Remote,
        transfer: &Transfer,
        meter: &Meter,
    ) -> Result<()> {
        self.download(name, &delta.blob, remote, transfer, meter)?;
        let packed = self.blobs().read(&delta.blob.digest, delta.blob.size)?;
        let old = self.blobs().read(&delta.from, MAX_FILE_BYTES)?;
        let path = self.blobs().path(&delta.blob.digest);
        let new = decode(&old, &packed, blob.size).map_err(Error::io("unpack", &path))?;
        let found = Digest::of(&new);
        if found != blob.digest {
            return Err(Error::damaged("what a difference makes", &blob.digest, &found));
        }
        self.blobs().put(&new).map(drop)
    }

    /// Downloads a blob into a file that outlives a broken connection and this process, and takes it in when it is whole.
    fn download(
        &self,
        name: &Name,
        blob: &Descriptor,
        remote: &dyn Remote,
        transfer: &Transfer,
        meter: &Meter,
    ) -> Result<()> {
        let part = self.disk().staging().join(format!("part-{}", blob.digest.hex()));
        let io = |action| Error::io(action, &part);
        transfer.retry(&blob.digest.hex(), || {
            let lock = Lock::hold(&part, self.patience())?;
            if !lock.guards(&part) || self.blobs().verify(&blob.digest, Some(blob.size)).is_ok() {
                // Another process was faster.
                return self.blobs().verify(&blob.digest, Some(blob.size)).map(drop).map_err(|_| Error::Remote {
                    action: "pull",
                    address: remote.address().into(),
                    reason: "another process gave up on it".into(),
                    transient: true,
                });
            }
            let mut file = OpenOptions::new().append(true).open(&part).map_err(io("open"))?;
            let mut offset = file.metadata().map_err(io("open"))?.len();
            if offset > blob.size {
                file.set_len(0).map_err(io("truncate"))?;
                offset = 0;
            }
            if offset < blob.size {
                let mut received = offset;
                remote.blob(name.as_str(), blob, offset, &mut |bytes| {
                    received += bytes.len() as u64;
                    meter.moved.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    if received > blob.size {
                        let what = blob.digest.to_string();
                        return Err(Error::TooLarge { what, unit: "bytes", limit: blob.size, found: received });
                    }
                    file.write_all(bytes).map_err(Error::io("write", &part))
                })?;
                if received < blob.size {
                    let reason = format!("it ended after {received} of {} bytes", blob.size);
                    return Err(Error::Remote {
                        action: "pull",
                        address: remote.address().into(),
                        reason,
                        transient: true,
                    });
                }
            }
            drop(file);
            self.blobs().adopt(&part, &blob.digest)
        })
    }
}
