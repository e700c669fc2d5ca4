//! From here to a remote: blobs first, then the manifest, then what is about it, tags last.

use serde::Serialize;

use super::remote::Remote;
use super::retry::Transfer;
use crate::digest::Digest;
use crate::error::Result;
use crate::oci::{Descriptor, ImageIndex, MAX_MANIFEST_BYTES, Manifest, media_type, parse};
use crate::registry::{Registry, Version};

/// What is pushed besides the version.
#[derive(Debug, Clone, Default)]
pub struct PushOptions {
    /// Tags besides the number and the semantic version, such as an alias.
    pub tags: Vec<String>,
}

/// What a push did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PushReport {
    /// The version.
    #[serde(flatten)]
    pub version: Version,
    /// Where it went.
    pub address: String,
    /// Its tags there.
    pub tags: Vec<String>,
    /// Size of version, signatures and differences, in bytes.
    pub bytes: u64,
}

/// The tag under which a registry without the referrers interface lists what is about a manifest, as OCI has it.
pub(super) fn referrers_tag(subject: &Digest) -> String {
    format!("sha256-{}", subject.hex())
}

impl Registry {
    /// Pushes a version with its signatures and differences.
    ///
    /// # Errors
    /// [`crate::Error::Remote`] after all attempts; what was pushed until then is found again by the next push.
    pub fn push(
        &self,
        version: &Version,
        remote: &dyn Remote,
        options: &PushOptions,
        transfer: &Transfer,
    ) -> Result<PushReport> {
        let repository = version.name.as_str();
        let manifest = self.manifest(&version.digest)?;
        let mut bytes = self.push_manifest(repository, &manifest, &version.digest, remote, transfer)?;
        let mut referrers = Vec::new();
        for (descriptor, attachment) in self.attachments(version)? {
            bytes += self.push_manifest(repository, &attachment, &descriptor.digest, remote, transfer)?;
            let mut referrer = descriptor;
            referrer.artifact_type.clone_from(&attachment.artifact_type);
            referrers.push(referrer);
        }
        if !referrers.is_empty() {
            let tag = referrers_tag(&version.digest);
            let known = transfer.retry(&tag, || remote.manifest(repository, &tag, MAX_MANIFEST_BYTES))?;
            let known: Option<ImageIndex> = known.and_then(|bytes| parse(&bytes, "OCI index", &tag).ok());
            let mut all: Vec<Descriptor> = known.map(|index| index.manifests).unwrap_or_default();
            all.retain(|known| !referrers.iter().any(|new| new.digest == known.digest));
            all.extend(referrers);
            let index = serde_json::to_vec(&ImageIndex::new(all)).expect("descriptors make JSON");
            transfer.retry(&tag, || remote.put_manifest(repository, &tag, media_type::INDEX, &index))?;
        }
        let mut tags = vec![version.number.to_string()];
        tags.extend(version.release.iter().map(ToString::to_string));
        tags.extend(options.tags.iter().cloned());
        let encoded = self.blobs().read(&version.digest, MAX_MANIFEST_BYTES)?;
        for tag in &tags {
            transfer.retry(tag, || remote.put_manifest(repository, tag, media_type::MANIFEST, &encoded))?;
        }
        Ok(PushReport { version: version.clone(), address: remote.address().into(), tags, bytes })
    }

    /// Pushes a manifest and its content, and returns its size in bytes.
    fn push_manifest(
        &self,
        repository: &str,
        manifest: &Manifest,
        digest: &Digest,
        remote: &dyn Remote,
        transfer: &Transfer,
    ) -> Result<u64> {
        let content: Vec<&Descriptor> = manifest.content().collect();
        transfer.each(&content, |blob| {
            // What is damaged here must not become what others trust.
            self.blobs().verify(&blob.digest, Some(blob.size))?;
            transfer.retry(&blob.digest.hex(), || remote.put_blob(repository, blob, &self.blobs().path(&blob.digest)))
        })?;
        let bytes = self.blobs().read(digest, MAX_MANIFEST_BYTES)?;
        transfer.retry(&digest.hex(), || {
            remote.put_manifest(repository, &digest.to_string(), media_type::MANIFEST, &bytes)
        })?;
        Ok(manifest.bytes() + bytes.len() as u64)
    }
}
