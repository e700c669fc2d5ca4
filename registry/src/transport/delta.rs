//! Differences between versions: zstd with the older file as its prefix. A difference is only ever a shorter way to bytes
//! whose digest is known.

use std::io::{Read as _, Write as _};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::oci::{Descriptor, EMPTY, Manifest, annotation, media_type};
use crate::registry::{Registry, Version};

/// The largest file that differences are made of or applied to, in bytes: both sides are held in memory.
const MAX_DELTA_BYTES: u64 = 512 << 20;
/// Smaller files are not worth a difference, in bytes.
const LEAST_BYTES: u64 = 1 << 12;
const LEVEL: i32 = 15;

/// A difference that is offered.
#[derive(Debug, Clone)]
pub(super) struct Delta {
    pub(super) blob: Descriptor,
    pub(super) from: Digest,
    pub(super) to: Digest,
}

impl Delta {
    /// The differences in a manifest of some.
    pub(super) fn all(manifest: &Manifest) -> Vec<Self> {
        if manifest.artifact_type.as_deref() != Some(media_type::DELTA) {
            return Vec::new();
        }
        let one = |layer: &Descriptor| {
            let digest = |key: &str| layer.annotations().get(key)?.parse().ok();
            Some(Self { from: digest(annotation::DELTA_FROM)?, to: digest(annotation::DELTA_TO)?, blob: layer.clone() })
        };
        manifest.layers.iter().filter_map(one).collect()
    }
}

/// The difference that turns `old` into `new`.
pub(super) fn encode(old: &[u8], new: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = zstd::stream::write::Encoder::with_ref_prefix(Vec::new(), LEVEL, old)?;
    encoder.window_log(window(old.len() + new.len()))?;
    encoder.long_distance_matching(true)?;
    encoder.include_checksum(false)?;
    encoder.set_pledged_src_size(Some(new.len() as u64))?;
    encoder.write_all(new)?;
    encoder.finish()
}

/// What a difference makes of `old`, of at most `limit` bytes.
pub(super) fn decode(old: &[u8], delta: &[u8], limit: u64) -> std::io::Result<Vec<u8>> {
    let mut decoder = zstd::stream::read::Decoder::with_ref_prefix(delta, old)?;
    decoder.window_log_max(window(old.len() + limit as usize))?;
    let mut new = Vec::new();
    decoder.take(limit + 1).read_to_end(&mut new)?;
    match new.len() as u64 <= limit {
        true => Ok(new),
        false => Err(std::io::Error::other(format!("it unpacks to more than {limit} bytes"))),
    }
}

/// The logarithm of a window that holds both sides.
fn window(bytes: usize) -> u32 {
    (usize::BITS - bytes.leading_zeros()).clamp(10, 30)
}

impl Registry {
    /// Makes the differences from an older version and attaches them. Returns their size in bytes; none when shipping
    /// whole files is as cheap.
    ///
    /// # Errors
    /// What is wrong with a version.
    pub fn make_delta(&self, from: &Version, to: &Version) -> Result<Option<u64>> {
        let (old, new) = (self.manifest(&from.digest)?, self.manifest(&to.digest)?);
        let _ingest = self.ingest_lock()?;
        let mut layers = Vec::new();
        for layer in &new.layers {
            let Some(before) = layer.title().and_then(|title| old.file(title)) else { continue };
            let small = layer.size.max(before.size) <= MAX_DELTA_BYTES && layer.size >= LEAST_BYTES;
            if before.digest == layer.digest || !small {
                continue;
            }
            let read = |descriptor: &Descriptor| self.blobs().read(&descriptor.digest, MAX_DELTA_BYTES);
            let delta = encode(&read(before)?, &read(layer)?)
                .map_err(Error::io("compress", &self.blobs().path(&layer.digest)))?;
            // A difference of nearly the size of the whole is only more to do.
            if (delta.len() as u64) < layer.size / 10 * 9 {
                let digest = self.blobs().put(&delta)?;
                let descriptor = Descriptor::new(media_type::DELTA, digest, delta.len() as u64)
                    .with(annotation::TITLE, format!("{}.delta", layer.title().unwrap_or("file")))
                    .with(annotation::DELTA_FROM, before.digest)
                    .with(annotation::DELTA_TO, layer.digest)
                    .with(annotation::DELTA_BYTES, layer.size);
                layers.push(descriptor);
            }
        }
        if layers.is_empty() {
            return Ok(None);
        }
        let bytes = layers.iter().map(|layer| layer.size).sum();
        self.blobs().put(EMPTY)?;
        let manifest = Manifest::about(media_type::DELTA, to.descriptor(), layers).encode();
        let mut descriptor = Descriptor::new(media_type::MANIFEST, self.blobs().put(&manifest)?, manifest.len() as u64);
        descriptor.artifact_type = Some(media_type::DELTA.into());
        self.attach(to, &descriptor)?;
        Ok(Some(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_small_exact_and_bounded() {
        let old: Vec<u8> = (0..200_000_u32).flat_map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let mut new = old.clone();
        for at in (0..new.len()).step_by(50_000) {
            new[at] ^= 1;
        }
        let delta = encode(&old, &new).expect("compresses");
        assert!(delta.len() < 2_000, "{} bytes", delta.len());
        assert!(decode(&old, &delta, new.len() as u64).expect("unpacks") == new);
        assert!(decode(&old, &delta, new.len() as u64 - 1).is_err());
        assert!(decode(b"", &delta, new.len() as u64).map_or(true, |bytes| bytes != new));
        let bomb = encode(b"", &vec![0; 50_000_000]).expect("compresses");
        assert!(bomb.len() < 10_000 && decode(b"", &bomb, 1_000).is_err());
    }
}
