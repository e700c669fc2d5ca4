//! Detached signatures: a small artifact about a manifest, so that every registry stores and ships it.

use serde::{Deserialize, Serialize};

use super::key::{KeyId, PublicKey, SecretKey};
use crate::digest::Digest;
use crate::error::Result;
use crate::oci::{Descriptor, EMPTY, Manifest, annotation, media_type, parse};
use crate::registry::{Registry, Version};

/// The largest signature file, in bytes.
const MAX_SIGNATURE_BYTES: u64 = 1 << 14;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignatureFile {
    subject: Digest,
    keyid: KeyId,
    signature: String,
}

/// What is signed. The manifest says name, number and everything else, and its digest stands for it; the first line
/// keeps the signature from meaning anything else.
fn message(subject: &Digest) -> Vec<u8> {
    format!("inarch adapter signature 1\n{subject}\n").into_bytes()
}

impl Registry {
    /// Signs a version; the signature travels with it.
    ///
    /// # Errors
    /// [`crate::Error::Damaged`] when the version is not whole: only what was verified is signed.
    pub fn sign(&self, version: &Version, key: &SecretKey) -> Result<()> {
        for content in self.manifest(&version.digest)?.content() {
            self.blobs().verify(&content.digest, Some(content.size))?;
        }
        let file = SignatureFile {
            subject: version.digest,
            keyid: key.public().id(),
            signature: key.sign(&message(&version.digest)),
        };
        let bytes = serde_json::to_vec(&file).expect("strings make JSON");
        let _ingest = self.ingest_lock()?;
        self.blobs().put(EMPTY)?;
        let layer = Descriptor::new(media_type::SIGNATURE, self.blobs().put(&bytes)?, bytes.len() as u64)
            .with(annotation::TITLE, "signature.json");
        let manifest = Manifest::about(media_type::SIGNATURE, version.descriptor(), vec![layer]).encode();
        let mut descriptor = Descriptor::new(media_type::MANIFEST, self.blobs().put(&manifest)?, manifest.len() as u64);
        descriptor.artifact_type = Some(media_type::SIGNATURE.into());
        self.attach(version, &descriptor)
    }

    /// Which of the keys have signed a manifest, given the manifests that are about it. What cannot be read is no
    /// signature.
    pub(super) fn signers(&self, subject: &Digest, attachments: &[Descriptor], keys: &[PublicKey]) -> Vec<PublicKey> {
        let mut signers: Vec<PublicKey> = Vec::new();
        for attachment in attachments {
            let Ok(manifest) = self.manifest(&attachment.digest) else { continue };
            if manifest.artifact_type.as_deref() != Some(media_type::SIGNATURE) {
                continue;
            }
            for layer in &manifest.layers {
                let Ok(bytes) = self.blobs().read(&layer.digest, MAX_SIGNATURE_BYTES) else { continue };
                let Ok(file) = parse::<SignatureFile>(&bytes, "signature", &layer.digest) else { continue };
                let signer = keys.iter().find(|key| key.id() == file.keyid);
                // A key counts once, however often it signed.
                if let Some(key) = signer.filter(|key| !signers.contains(key))
                    && file.subject == *subject
                    && key.verifies(&message(subject), &file.signature)
                {
                    signers.push(*key);
                }
            }
        }
        signers
    }
}
