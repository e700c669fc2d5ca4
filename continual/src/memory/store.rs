//! A memory that is at work, in a `sled` database: a sample that was offered survives a crash. The snapshot is what is
//! kept and handed on; the database can be made from it again.
//!
//! Whatever changes goes in as one batch, of which a database that is opened after a crash has all or nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use inarch_core::file;

use super::config::MemoryConfig;
use super::fingerprint::Fingerprint;
use super::rehearsal::Memory;
use super::sample::Sample;
use super::seal::{Key, is_sealed};
use super::snapshot::Header;
use crate::error::{Error, Result};

/// Key of the settings and what is counted.
const HEADER: &[u8] = b"header";
/// What the keys of samples begin with.
const SAMPLE: &[u8] = b"sample/";

/// How long opening waits for a database that is still held, and how often it looks.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(20);

/// Files of `sled`: its settings, and what it stores.
const SETTINGS: &str = "conf";
const STORED: &str = "db";

/// Removes the settings of a database that was never stored. `sled` writes them first and in two pieces, and opens none
/// of which it finds one piece: a process that is killed there would leave a name that can never be used again.
fn clear_beginning(path: &Path) -> Result<()> {
    let settings = path.join(SETTINGS);
    if settings.is_file() && !path.join(STORED).exists() {
        file::remove(&settings)?;
    }
    Ok(())
}

/// Whether somebody holds the lock of a database; `sled` has no kind of error for it.
fn is_held(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(error) if error.to_string().contains("could not acquire lock"))
}

/// A memory in a database. With a key every value is encrypted, and ids stand as hashes.
pub struct MemoryStore {
    path: PathBuf,
    database: sled::Db,
    key: Option<Key>,
}

impl MemoryStore {
    /// Opens a database, or makes an empty one. A removal whose process was killed before it was on record
    /// ([`take_out`](Self::take_out)) is put there.
    ///
    /// # Errors
    /// A folder that cannot be opened, or is in use by another process; such a record that cannot be written.
    pub fn open(path: &Path, key: Option<Key>) -> Result<Self> {
        clear_beginning(path)?;
        let mut waited = Duration::ZERO;
        loop {
            match sled::Config::new().path(path).open() {
                Ok(database) => {
                    let store = Self { path: path.to_path_buf(), database, key };
                    store.settle()?;
                    return Ok(store);
                }
                // A database that was just closed is held a little longer by the thread that writes it.
                Err(source) if is_held(&source) && waited < PATIENCE => {
                    std::thread::sleep(PAUSE);
                    waited += PAUSE;
                }
                Err(source) => return Err(Error::Database { path: path.to_path_buf(), source }),
            }
        }
    }

    /// The memory, or `None` in a new database.
    ///
    /// # Errors
    /// A damaged entry, or a key that is missing or another one.
    pub fn memory(&self) -> Result<Option<Memory>> {
        let wrong = |reason: &str| Error::from(inarch_core::Error::malformed("memory database", &self.path, reason));
        let Some(bytes) = self.entry(HEADER)? else { return Ok(None) };
        let header: Header =
            serde_json::from_slice(&self.opened(&bytes)?).map_err(|error| wrong(&error.to_string()))?;
        header.config.check().map_err(|error| wrong(&error.to_string()))?;
        let MemoryConfig { precision, views, .. } = header.config;
        let mut samples = BTreeMap::new();
        for entry in self.database.scan_prefix(SAMPLE) {
            let (_, value) = entry.map_err(|error| self.fault(error))?;
            let sample = Sample::decode(&self.opened(&value)?, precision, views);
            let sample = sample.ok_or_else(|| wrong("a sample is damaged"))?;
            samples.insert(sample.id.clone(), sample);
        }
        if samples.len() != header.samples {
            return Err(wrong(&format!("it holds {} samples, expected {}", samples.len(), header.samples)));
        }
        let Header { config, fingerprint, offered, .. } = header;
        Ok(Some(Memory { config, fingerprint, offered, samples }))
    }

    /// Makes the database hold this memory: in one step, so that a crash leaves the old one or the new one.
    ///
    /// # Errors
    /// A disk that is full or failing.
    pub fn put(&self, memory: &Memory) -> Result<()> {
        self.apply(self.batch(memory)?)
    }

    /// What makes the database hold this memory.
    pub(super) fn batch(&self, memory: &Memory) -> Result<sled::Batch> {
        let header = Header {
            config: memory.config,
            fingerprint: memory.fingerprint.clone(),
            offered: memory.offered.clone(),
            samples: memory.samples.len(),
        };
        let mut batch = sled::Batch::default();
        let wanted: BTreeMap<Vec<u8>, &Sample> =
            memory.samples.values().map(|sample| (self.name(&sample.id), sample)).collect();
        for entry in self.database.scan_prefix(SAMPLE) {
            let (name, _) = entry.map_err(|error| self.fault(error))?;
            if !wanted.contains_key(name.as_ref()) {
                batch.remove(name);
            }
        }
        for (name, sample) in wanted {
            let value = self.closed(&sample.encode(memory.config.precision));
            let old = self.entry(&name)?;
            if old.is_none_or(|old| old != value) {
                batch.insert(name, value);
            }
        }
        batch.insert(HEADER, self.closed(&serde_json::to_vec(&header).unwrap_or_default()));
        Ok(batch)
    }

    /// Changes entries in one step, which is on disk in the end.
    pub(super) fn apply(&self, batch: sled::Batch) -> Result<()> {
        self.database.apply_batch(batch).map_err(|error| self.fault(error))?;
        self.database.flush().map_err(|error| self.fault(error))?;
        Ok(())
    }

    /// An entry, as it lies there.
    pub(super) fn entry(&self, key: &[u8]) -> Result<Option<sled::IVec>> {
        self.database.get(key).map_err(|error| self.fault(error))
    }

    /// Where the database lies.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Offers samples to the memory in the database; an empty database starts with `config`.
    ///
    /// # Errors
    /// As [`Memory::offer`], and latents of another backbone.
    pub fn offer(
        &self,
        config: MemoryConfig,
        fingerprint: &Fingerprint,
        samples: impl IntoIterator<Item = Sample>,
    ) -> Result<Memory> {
        let mut memory = match self.memory()? {
            Some(memory) => memory,
            None => Memory::new(config, fingerprint.clone())?,
        };
        memory.fingerprint.check(fingerprint, &format!("the memory `{}`", self.path.display()))?;
        memory.offer(samples)?;
        self.put(&memory)?;
        Ok(memory)
    }

    fn name(&self, id: &str) -> Vec<u8> {
        let name = if self.key.is_some() { super::Ledger::name(id) } else { id.to_string() };
        [SAMPLE, name.as_bytes()].concat()
    }

    fn closed(&self, plain: &[u8]) -> Vec<u8> {
        self.key.as_ref().map_or_else(|| plain.to_vec(), |key| key.seal(plain))
    }

    fn opened(&self, value: &[u8]) -> Result<Vec<u8>> {
        match &self.key {
            Some(key) => key.open(value, &self.path),
            None if is_sealed(value) => {
                Err(Error::Sealed { path: self.path.clone(), reason: "give its key file with `--key`".into() })
            }
            None => Ok(value.to_vec()),
        }
    }

    fn fault(&self, source: sled::Error) -> Error {
        Error::Database { path: self.path.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use inarch_core::{Digest, Seed};

    use super::super::{Fingerprint, Key, MemoryConfig, MemoryStore, Sample};
    use super::{PAUSE, SETTINGS, STORED};
    use crate::error::Error;

    fn sample(at: u64) -> Sample {
        Sample {
            id: format!("patient-{at}"),
            class: "a".into(),
            source: String::new(),
            time: at,
            weight: 1.0,
            latent: Seed::new(at).normals(4, 1.0),
            views: Vec::new(),
            image: None,
            scores: Vec::new(),
        }
    }

    #[test]
    fn a_database_whose_making_was_cut_off_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        drop(MemoryStore::open(folder.path(), None).unwrap());
        let whole = std::fs::read(folder.path().join(SETTINGS)).unwrap();
        // Without the four bytes of its checksum; the database is not there yet.
        for length in [0, whole.len() - 4, whole.len()] {
            let cut = tempfile::tempdir().unwrap();
            std::fs::write(cut.path().join(SETTINGS), &whole[..length]).unwrap();
            assert!(MemoryStore::open(cut.path(), None).unwrap().memory().unwrap().is_none(), "{length}");
            assert!(cut.path().join(STORED).is_file());
            assert_eq!(std::fs::read(cut.path().join(SETTINGS)).unwrap(), whole);
        }
    }

    #[test]
    fn a_database_that_is_about_to_be_closed_is_waited_for_and_one_in_use_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let first = MemoryStore::open(folder.path(), None).unwrap();
        assert!(matches!(MemoryStore::open(folder.path(), None), Err(Error::Database { .. })));
        let close = std::thread::spawn(move || {
            std::thread::sleep(PAUSE * 5);
            drop(first);
        });
        assert!(MemoryStore::open(folder.path(), None).is_ok());
        close.join().unwrap();
    }

    #[test]
    fn a_database_holds_what_was_offered_and_encrypted_it_shows_no_name() {
        let folder = tempfile::tempdir().unwrap();
        let key = Key::create(&folder.path().join("key")).unwrap();
        let digest = Digest::of(b"x");
        let print =
            Fingerprint { name: "x".into(), backbone: digest.clone(), preprocess: digest, window: None, dim: 4 };
        for (name, key) in [("plain", None), ("sealed", Some(key))] {
            let path = folder.path().join(name);
            let config = MemoryConfig { budget_bytes: 4096, ..MemoryConfig::default() };
            let expected = {
                let store = MemoryStore::open(&path, key.clone()).unwrap();
                assert!(store.memory().unwrap().is_none());
                store.offer(config, &print, (0..30).map(sample)).unwrap();
                store.offer(config, &print, (30..200).map(sample)).unwrap()
            };
            let store = MemoryStore::open(&path, key.clone()).unwrap();
            let mut found = store.memory().unwrap().unwrap();
            assert_eq!(found, expected);
            let first = found.samples().next().unwrap().id.clone();
            found.remove(&[first]);
            store.put(&found).unwrap();
            assert_eq!(store.memory().unwrap().unwrap(), found);
            let window = "full".parse().ok();
            for other in
                [Fingerprint { backbone: Digest::of(b"y"), ..print.clone() }, Fingerprint { window, ..print.clone() }]
            {
                let refused = store.offer(config, &other, [sample(1)]).unwrap_err().to_string();
                assert!(refused.contains("latents of one mean nothing to the other"), "{refused}");
            }
            drop(store);
            let bytes: Vec<u8> = inarch_core::file::list(&path)
                .unwrap()
                .iter()
                .filter(|p| p.is_file())
                .flat_map(|p| std::fs::read(p).unwrap())
                .collect();
            let shows = bytes.windows(8).any(|window| window == b"patient-");
            assert_eq!(shows, key.is_none());
            if key.is_some() {
                assert!(MemoryStore::open(&path, None).unwrap().memory().is_err());
            }
        }
    }
}
