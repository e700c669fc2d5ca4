//! A memory as one file: exact, immutable, checked.
//!
//! `INARCHM1`, the length of the header (u32, little endian), the header as JSON, then for each sample in the order of ids the
//! length of its record and the record, then the SHA-256 of everything before. Encrypted, all of that is the content of an
//! encrypted file.

use std::collections::BTreeMap;
use std::path::Path;

use inarch_core::{Digest, file};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::config::MemoryConfig;
use super::fingerprint::Fingerprint;
use super::rehearsal::Memory;
use super::sample::{Reader, Sample, put_piece};
use super::seal::{Key, is_sealed};
use crate::error::{Error, Result};

const MAGIC: &[u8; 8] = b"INARCHM1";
const CHECKSUM: usize = 32;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    pub(super) config: MemoryConfig,
    pub(super) fingerprint: Fingerprint,
    pub(super) offered: BTreeMap<String, u64>,
    pub(super) samples: usize,
}

fn header(memory: &Memory) -> Vec<u8> {
    let header = Header {
        config: memory.config,
        fingerprint: memory.fingerprint.clone(),
        offered: memory.offered.clone(),
        samples: memory.samples.len(),
    };
    serde_json::to_vec(&header).unwrap_or_default()
}

/// Bytes of a snapshot beside its records.
pub(super) fn frame_bytes(memory: &Memory) -> u64 {
    (MAGIC.len() + 4 + header(memory).len() + CHECKSUM) as u64
}

impl Memory {
    /// The bytes of its snapshot, encrypted under `key` if there is one. Equal memories give equal bytes.
    pub fn snapshot(&self, key: Option<&Key>) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        put_piece(&header(self), &mut bytes);
        for sample in self.samples() {
            put_piece(&sample.encode(self.config.precision), &mut bytes);
        }
        let checksum = Sha256::digest(&bytes);
        bytes.extend(checksum);
        match key {
            None => bytes,
            Some(key) => key.seal(&bytes),
        }
    }

    /// Writes its snapshot, whole or not at all; returns the file's digest.
    ///
    /// # Errors
    /// An I/O error naming the file.
    pub fn save(&self, path: &Path, key: Option<&Key>) -> Result<Digest> {
        let bytes = self.snapshot(key);
        file::write(path, &bytes)?;
        Ok(Digest::of(&bytes))
    }

    /// Reads a snapshot.
    ///
    /// # Errors
    /// A file that is damaged or of another kind, or an encrypted one without its key.
    pub fn load(path: &Path, key: Option<&Key>) -> Result<Self> {
        Self::decode(&file::read(path)?, path, key)
    }

    /// Reads the bytes of a snapshot; `path` is named in errors.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn decode(bytes: &[u8], path: &Path, key: Option<&Key>) -> Result<Self> {
        if !is_sealed(bytes) {
            return Self::decode_plain(bytes, path);
        }
        match key {
            Some(key) => Self::decode_plain(&key.open(bytes, path)?, path),
            None => Err(Error::Sealed { path: path.to_path_buf(), reason: "give its key file with `--key`".into() }),
        }
    }

    fn decode_plain(bytes: &[u8], path: &Path) -> Result<Self> {
        let wrong = |reason: &str| Error::from(inarch_core::Error::malformed("memory", path, reason));
        let Some((content, checksum)) = bytes.len().checked_sub(CHECKSUM).map(|at| bytes.split_at(at)) else {
            return Err(wrong("it is too short"));
        };
        let Some(body) = content.strip_prefix(MAGIC) else {
            return Err(wrong("it does not begin as a memory of this version"));
        };
        if Sha256::digest(content).as_slice() != checksum {
            return Err(wrong("its checksum is wrong: the file was changed or is truncated"));
        }
        let mut reader = Reader(body);
        let text = reader.piece().ok_or_else(|| wrong("its header is cut off"))?;
        let header: Header = serde_json::from_slice(text).map_err(|error| wrong(&error.to_string()))?;
        header.config.check().map_err(|error| wrong(&error.to_string()))?;
        let MemoryConfig { precision, views, .. } = header.config;
        let mut samples = BTreeMap::new();
        for _ in 0..header.samples {
            let record = reader.piece().ok_or_else(|| wrong("it holds fewer samples than its header says"))?;
            let sample = Sample::decode(record, precision, views).ok_or_else(|| wrong("a sample is damaged"))?;
            if sample.latent.len() != header.fingerprint.dim {
                return Err(wrong("a latent has another length than its header says"));
            }
            samples.insert(sample.id.clone(), sample);
        }
        if !reader.0.is_empty() || samples.len() != header.samples {
            return Err(wrong("it holds other samples than its header says"));
        }
        let Header { config, fingerprint, offered, .. } = header;
        Ok(Self { config, fingerprint, offered, samples })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use inarch_core::{Digest, Seed};

    use super::super::{Fingerprint, Key, Memory, MemoryConfig, Sample};

    fn memory() -> Memory {
        let digest = Digest::of(b"x");
        let fingerprint =
            Fingerprint { name: "x".into(), backbone: digest.clone(), preprocess: digest, window: None, dim: 4 };
        let mut memory = Memory::new(MemoryConfig::default(), fingerprint).unwrap();
        let sample = |at: u64| Sample {
            id: at.to_string(),
            class: "a".into(),
            source: String::new(),
            time: at,
            weight: 1.0,
            latent: Seed::new(at).normals(4, 1.0),
            views: Vec::new(),
            image: None,
            scores: vec![0.25],
        };
        memory.offer((0..9).map(sample)).unwrap();
        memory
    }

    #[test]
    fn a_snapshot_is_exact_and_damage_is_refused() {
        let memory = memory();
        let bytes = memory.snapshot(None);
        let path = Path::new("test.memory");
        assert_eq!(Memory::decode(&bytes, path, None).unwrap(), memory);
        for cut in 0..bytes.len() {
            assert!(Memory::decode(&bytes[..cut], path, None).is_err());
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(Memory::decode(&damaged, path, None).is_err(), "byte {at}");
        }
    }

    #[test]
    fn an_encrypted_snapshot_needs_its_key_and_shows_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let key = Key::create(&folder.path().join("key")).unwrap();
        let other = Key::create(&folder.path().join("other")).unwrap();
        assert!(Key::create(&folder.path().join("key")).is_err(), "a key is never overwritten");
        let memory = memory();
        let sealed = memory.snapshot(Some(&key));
        assert_eq!(sealed, memory.snapshot(Some(&Key::read(&folder.path().join("key")).unwrap())));
        assert!(!sealed.windows(6).any(|window| window == b"config"));
        let path = Path::new("test.memory");
        assert_eq!(Memory::decode(&sealed, path, Some(&key)).unwrap(), memory);
        assert!(Memory::decode(&sealed, path, None).unwrap_err().to_string().contains("--key"));
        assert!(Memory::decode(&sealed, path, Some(&other)).unwrap_err().to_string().contains("another one"));
        let mut damaged = sealed.clone();
        *damaged.last_mut().unwrap() ^= 1;
        assert!(Memory::decode(&damaged, path, Some(&key)).is_err());
        assert_eq!(format!("{key:?}"), "Key(..)");
    }
}
