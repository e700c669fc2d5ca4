//! Removals from a memory at work, on record: hashes of ids, and the memory's digests before and after.
//!
//! The record is a file beside the database, so no batch can hold both. The batch that takes samples out writes the record
//! into the database too, as one that is owed; the file is written after it. A process that is killed in between leaves the
//! record owed, and whoever opens the database next writes it. What is owed lies in clear under a key too, as the file does: it
//! names nobody.

use std::path::{Path, PathBuf};

use inarch_core::{Digest, file};
use serde::{Deserialize, Serialize};

use super::ledger::Ledger;
use super::rehearsal::Memory;
use super::sample::Sample;
use super::store::MemoryStore;
use crate::error::Result;

/// Key of the entry that holds the record that is owed.
const OWED: &[u8] = b"removal";

/// What takes samples out. Records that do not say are of `memory forget`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Somebody asked.
    #[default]
    Forget,
    /// They were older than the memory keeps.
    Expire,
}

/// One removal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// Why they went.
    #[serde(default)]
    pub by: Cause,
    /// Hashes of the ids.
    pub forgotten: Vec<String>,
    /// How many samples were taken out.
    pub from_memory: usize,
    /// Number of samples before and after.
    pub samples: (usize, usize),
    /// Digest of the memory's snapshot before and after.
    pub memory: (Digest, Digest),
    /// When, in seconds since 1970.
    pub time: u64,
}

/// A record that is not known to be in the file.
#[derive(Debug, Serialize, Deserialize)]
struct Owed {
    /// How many records the file held before; where this one is, if it is there.
    place: usize,
    record: Removal,
}

/// The records of a file that may not be there yet.
fn read(path: &Path) -> Result<Vec<Removal>> {
    Ok(if path.is_file() { file::read_json(path, "records of removals")? } else { Vec::new() })
}

impl MemoryStore {
    /// The file of its removals, a list of [`Removal`]: `NAME.forgotten.json` beside the database `NAME.sled`.
    pub fn records(&self) -> PathBuf {
        self.path().with_extension("forgotten.json")
    }

    /// Takes samples out of the memory that this database holds and puts that on record; returns those that were there. A
    /// process that is killed meanwhile has taken out nothing, or the next [`open`](Self::open) completes the record.
    ///
    /// # Errors
    /// A damaged file of records, before anything is taken out; a disk that is full or failing.
    pub fn take_out(&self, memory: &mut Memory, ids: &[String], by: Cause, time: u64) -> Result<Vec<Sample>> {
        let gone = self.take_out_owing(memory, ids, by, time)?;
        self.settle()?;
        Ok(gone)
    }

    /// Takes out what is older at `time` than the memory keeps, as [`take_out`](Self::take_out) does.
    ///
    /// # Errors
    /// As [`take_out`](Self::take_out).
    pub fn expire(&self, memory: &mut Memory, time: u64) -> Result<Vec<Sample>> {
        let old = memory.expired(time);
        self.take_out(memory, &old, Cause::Expire, time)
    }

    /// Takes samples out and owes the record, in one step.
    fn take_out_owing(&self, memory: &mut Memory, ids: &[String], by: Cause, time: u64) -> Result<Vec<Sample>> {
        if ids.iter().all(|id| memory.get(id).is_none()) {
            return Ok(Vec::new());
        }
        let place = read(&self.records())?.len();
        let before = Digest::of(&memory.snapshot(None));
        let gone = memory.remove(ids);
        let record = Removal {
            by,
            forgotten: gone.iter().map(|sample| Ledger::name(&sample.id)).collect(),
            from_memory: gone.len(),
            samples: (memory.len() + gone.len(), memory.len()),
            memory: (before, Digest::of(&memory.snapshot(None))),
            time,
        };
        let mut batch = self.batch(memory)?;
        batch.insert(OWED, serde_json::to_vec(&Owed { place, record }).unwrap_or_default());
        self.apply(batch)?;
        Ok(gone)
    }

    /// Writes the record that is owed, if one is.
    pub(super) fn settle(&self) -> Result<()> {
        let Some(owed) = self.owed()? else { return Ok(()) };
        self.record(owed)?;
        let mut batch = sled::Batch::default();
        batch.remove(OWED);
        self.apply(batch)
    }

    fn owed(&self) -> Result<Option<Owed>> {
        let Some(bytes) = self.entry(OWED)? else { return Ok(None) };
        let owed = serde_json::from_slice(&bytes).map(Some);
        owed.map_err(|error| inarch_core::Error::malformed("memory database", self.path(), error).into())
    }

    /// Puts a record into the file, unless it is there already.
    fn record(&self, Owed { place, record }: Owed) -> Result<()> {
        let path = self.records();
        let mut records = read(&path)?;
        if records.get(place) == Some(&record) {
            return Ok(());
        }
        records.push(record);
        Ok(file::write_json(&path, &records)?)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use inarch_core::{Digest, Seed};

    use super::super::{Fingerprint, Key, Ledger, Memory, MemoryConfig, MemoryStore, Sample};
    use super::{Cause, Removal, read};

    const TIME: u64 = 1_700_000_000;
    const DAY: u64 = 24 * 60 * 60;

    /// A database of ten samples, of which the first three came two days before [`TIME`].
    fn filled(path: &Path, key: Option<Key>) -> (MemoryStore, Memory) {
        let digest = Digest::of(b"x");
        let print =
            Fingerprint { name: "x".into(), backbone: digest.clone(), preprocess: digest, window: None, dim: 4 };
        let config = MemoryConfig { most_days: Some(1), ..MemoryConfig::default() };
        let sample = |at: u64| Sample {
            id: format!("patient-{at}"),
            class: "a".into(),
            source: String::new(),
            time: if at < 3 { TIME - 2 * DAY } else { TIME },
            weight: 1.0,
            latent: Seed::new(at).normals(4, 1.0),
            views: Vec::new(),
            image: None,
            scores: Vec::new(),
        };
        let store = MemoryStore::open(path, key).unwrap();
        let memory = store.offer(config, &print, (0..10).map(sample)).unwrap();
        (store, memory)
    }

    fn ids(numbers: &[u64]) -> Vec<String> {
        numbers.iter().map(|at| format!("patient-{at}")).collect()
    }

    fn digest(memory: &Memory) -> Digest {
        Digest::of(&memory.snapshot(None))
    }

    #[test]
    fn a_removal_without_its_record_is_put_on_record_by_whoever_opens_the_database() {
        let folder = tempfile::tempdir().unwrap();
        let key = Key::create(&folder.path().join("key")).unwrap();
        for (name, key) in [("plain.sled", None), ("sealed.sled", Some(key))] {
            let path = folder.path().join(name);
            let (store, whole) = filled(&path, key.clone());
            let mut left = whole.clone();
            let gone = store.take_out_owing(&mut left, &ids(&[4, 7]), Cause::Forget, TIME).unwrap();
            assert_eq!((gone.len(), left.len()), (2, 8));
            let file = store.records();
            assert_eq!(file, path.with_extension("forgotten.json"));
            assert!(!file.exists());
            // The process ends here.
            drop(store);

            // Whoever has the key or not.
            drop(MemoryStore::open(&path, None).unwrap());
            let expected = Removal {
                by: Cause::Forget,
                forgotten: ids(&[4, 7]).iter().map(|id| Ledger::name(id)).collect(),
                from_memory: 2,
                samples: (10, 8),
                memory: (digest(&whole), digest(&left)),
                time: TIME,
            };
            assert_eq!(read(&file).unwrap(), std::slice::from_ref(&expected));

            // Nothing is owed any more, and the next removal stands behind it.
            let store = MemoryStore::open(&path, key).unwrap();
            assert!(store.owed().unwrap().is_none());
            let mut memory = store.memory().unwrap().unwrap();
            assert_eq!(memory, left);
            let old = store.expire(&mut memory, TIME).unwrap();
            assert_eq!(old.iter().map(|sample| sample.id.clone()).collect::<Vec<_>>(), ids(&[0, 1, 2]));
            let records = read(&file).unwrap();
            assert_eq!((records.len(), &records[0], records[1].by), (2, &expected, Cause::Expire));
            assert_eq!((records[1].samples, &records[1].memory), ((8, 5), &(digest(&left), digest(&memory))));
            assert_eq!(store.memory().unwrap().unwrap(), memory);
            // What takes out nothing is no removal.
            assert!(store.expire(&mut memory, TIME).unwrap().is_empty());
            assert!(store.take_out(&mut memory, &ids(&[4]), Cause::Forget, TIME).unwrap().is_empty());
            assert_eq!(read(&file).unwrap(), records);
        }
    }

    #[test]
    fn a_record_that_is_in_the_file_and_still_owed_is_not_written_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("camera.sled");
        let (store, whole) = filled(&path, None);
        for round in 1..=2 {
            // The same samples out of the same memory in the same second, and two removals all the same.
            store.put(&whole).unwrap();
            store.take_out_owing(&mut whole.clone(), &ids(&[4]), Cause::Forget, TIME).unwrap();
            let owed = store.owed().unwrap().unwrap();
            assert_eq!(owed.place, round - 1);
            store.record(owed).unwrap();
            // The process ends here.
            assert!(store.owed().unwrap().is_some());
            store.settle().unwrap();
            assert_eq!(read(&store.records()).unwrap().len(), round);
        }
        // A file that was put away meanwhile begins again.
        store.put(&whole).unwrap();
        store.take_out_owing(&mut whole.clone(), &ids(&[5]), Cause::Forget, TIME).unwrap();
        std::fs::remove_file(store.records()).unwrap();
        store.settle().unwrap();
        assert_eq!(read(&store.records()).unwrap()[0].forgotten, [Ledger::name("patient-5")]);
    }

    #[test]
    fn a_damaged_file_of_records_is_told_of_before_anything_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let (store, whole) = filled(&folder.path().join("camera.sled"), None);
        std::fs::write(store.records(), "[{").unwrap();
        let error = store.take_out(&mut whole.clone(), &ids(&[4]), Cause::Forget, TIME).unwrap_err().to_string();
        assert!(error.contains("camera.forgotten.json"), "{error}");
        assert_eq!(store.memory().unwrap().unwrap(), whole);
        assert!(store.owed().unwrap().is_none());
    }
}
