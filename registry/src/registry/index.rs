//! The searchable index: a cache of the cards in `sled`. It holds nothing that is not in the layout, follows it by
//! itself, and is made anew when it is lost or damaged. Only one process can have it open; the others read the layout.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Registry;
use super::version::Version;
use crate::error::{Error, Result};
use crate::name::{Name, Release};
use crate::oci::Card;

/// What is wrong with the database, in its own words.
type Fault = Box<dyn std::error::Error + Send + Sync>;

/// What the index knows about a version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) number: u64,
    pub(super) release: Option<Release>,
    pub(super) manifest: crate::digest::Digest,
    pub(super) manifest_bytes: u64,
    pub(super) published: String,
    pub(super) card: Card,
}

impl Entry {
    pub(super) fn new(version: &Version, card: Card) -> Self {
        Self {
            number: version.number,
            release: version.release.clone(),
            manifest: version.digest,
            manifest_bytes: version.manifest_bytes,
            published: version.published.clone(),
            card,
        }
    }

    pub(super) fn version(&self, name: &Name) -> Version {
        Version {
            name: name.clone(),
            number: self.number,
            release: self.release.clone(),
            digest: self.manifest,
            manifest_bytes: self.manifest_bytes,
            published: self.published.clone(),
        }
    }
}

/// How far a name is indexed.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Mark {
    latest: u64,
    epoch: u64,
}

/// What a rebuild found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReindexReport {
    /// Names that are indexed.
    pub names: usize,
    /// Versions that are indexed.
    pub versions: usize,
}

impl Registry {
    fn index_path(&self) -> PathBuf {
        self.root.join("index.sled")
    }

    /// Throws the index away and makes it, and `index.json`, from the layout.
    ///
    /// # Errors
    /// [`Error::Busy`] while another process has the index open.
    pub fn reindex(&self) -> Result<ReindexReport> {
        let path = self.index_path();
        let busy = || Error::Busy { path: path.clone(), holder: "another reader".into(), seconds: 0 };
        match self.open_index() {
            Ok(database) => drop(database),
            Err(fault) if is_taken(&fault) => return Err(busy()),
            Err(_) => {}
        }
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &path)(error));
            }
            _ => {}
        }
        self.rebuild_view(&self.write_lock()?)?;
        let database = self.open_index().map_err(|fault| match is_taken(&fault) {
            true => busy(),
            false => Error::malformed("index", path.display(), fault),
        })?;
        let names = self.names()?;
        for name in &names {
            self.catch_up(&database, name).map_err(|fault| Error::malformed("index", path.display(), fault))?;
        }
        let versions = database.open_tree("versions").map(|tree| tree.len()).unwrap_or(0);
        Ok(ReindexReport { names: names.len(), versions })
    }

    /// Visits what is known about all versions of the names, oldest first: from the index where it can be had, else from
    /// the layout.
    pub(super) fn visit(&self, names: &[Name], mut visit: impl FnMut(&Name, Entry)) -> Result<()> {
        match self.indexed(names) {
            Some(entries) => {
                for (name, entry) in entries {
                    visit(name, entry);
                }
            }
            None => {
                for name in names {
                    for version in self.versions(name).unwrap_or_default() {
                        // One damaged version must not hide the others; `verify` names it.
                        if let Ok(card) = self.card(&version) {
                            visit(name, Entry::new(&version, card));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// All entries of the names, or none when the index cannot be had now. A damaged one is thrown away.
    fn indexed<'a>(&self, names: &'a [Name]) -> Option<Vec<(&'a Name, Entry)>> {
        let attempt = || -> std::result::Result<Vec<(&'a Name, Entry)>, Fault> {
            let database = self.open_index()?;
            let mut found = Vec::new();
            for name in names {
                self.catch_up(&database, name)?;
                for item in database.open_tree("versions")?.scan_prefix(prefix(name)) {
                    found.push((name, serde_json::from_slice(&item?.1)?));
                }
            }
            Ok(found)
        };
        for _ in 0..2 {
            match catch_unwind(AssertUnwindSafe(attempt)) {
                Ok(Ok(found)) => return Some(found),
                Ok(Err(fault)) if is_taken(&fault) => return None,
                _ => drop(std::fs::remove_dir_all(self.index_path())),
            }
        }
        None
    }

    fn open_index(&self) -> std::result::Result<sled::Db, Fault> {
        // The cache is small and the log is written through when the database is closed.
        let config = sled::Config::new().path(self.index_path()).cache_capacity(32 << 20).flush_every_ms(None);
        match catch_unwind(AssertUnwindSafe(|| config.open())) {
            Ok(database) => Ok(database?),
            Err(_) => Err("the database could not be opened".into()),
        }
    }

    /// Adds what was published since the index was used last.
    fn catch_up(&self, database: &sled::Db, name: &Name) -> std::result::Result<(), Fault> {
        let (versions, marks) = (database.open_tree("versions")?, database.open_tree("marks")?);
        let shelf = self.shelf(name);
        let head = shelf.head()?;
        let mark: Option<Mark> = marks.get(name.as_str())?.map(|bytes| serde_json::from_slice(&bytes)).transpose()?;
        let now = Mark { latest: head.latest, epoch: head.epoch };
        if mark.as_ref() == Some(&now) {
            return Ok(());
        }
        let first = match mark {
            Some(mark) if mark.epoch == now.epoch && mark.latest <= now.latest => mark.latest + 1,
            _ => {
                // Versions came or went in the middle: this name is indexed anew.
                let stale: Vec<sled::IVec> = versions.scan_prefix(prefix(name)).keys().collect::<sled::Result<_>>()?;
                for key in stale {
                    versions.remove(key)?;
                }
                1
            }
        };
        let missing = now.latest.saturating_sub(first) + 1;
        // Few new ones are opened by number, many are listed.
        let numbers: Vec<u64> = if missing <= 1000 { (first..=now.latest).collect() } else { shelf.numbers()? };
        for number in numbers.into_iter().filter(|number| (first..=now.latest).contains(number)) {
            let Some(record) = shelf.record(number)?.filter(|record| record.removed.is_none()) else { continue };
            let version = record.version(name);
            if let Ok(card) = self.card(&version) {
                let key = [&prefix(name)[..], &number.to_be_bytes()].concat();
                versions.insert(key, serde_json::to_vec(&Entry::new(&version, card))?)?;
            }
        }
        marks.insert(name.as_str(), serde_json::to_vec(&now)?)?;
        database.flush()?;
        Ok(())
    }
}

fn prefix(name: &Name) -> Vec<u8> {
    [name.as_str().as_bytes(), b"\0"].concat()
}

/// Whether another process has the database open.
fn is_taken(fault: &Fault) -> bool {
    match fault.downcast_ref::<sled::Error>() {
        Some(sled::Error::Io(error)) => {
            error.kind() == std::io::ErrorKind::WouldBlock || error.to_string().contains("could not acquire lock")
        }
        _ => false,
    }
}
