//! Versions of an adapter: what an update starts from and what it leaves.

use std::path::{Path, PathBuf};

use inarch_core::backbone::Backbone;
use inarch_core::{Digest, file};
use inarch_peft::{Artifact, MANIFEST_FILE, Statistics};
use serde::{Deserialize, Serialize};

use super::gate::Verdict;
use super::turn::Turn;
use crate::error::{Error, Result};
use crate::memory::{Key, Ledger, Memory};

const RECORD: &str = "version.json";
const STATISTICS: &str = "statistics.safetensors";
/// The same under a key.
const SEALED_STATISTICS: &str = "statistics.inarch";
const MEMORY: &str = "memory.inarch";
const PROBE: &str = "probe.inarch";
const LEDGER: &str = "ledger.json";
/// Which version of a folder of versions is in force.
const CURRENT: &str = "current";
/// Where a version is put together, and where one is that is being removed.
const STAGING: &str = ".staging";
const WITHDRAWN: &str = ".withdrawn";
/// What is locked by whoever puts a version in force.
const LOCK: &str = ".lock";

/// What is known about a version beside its adapter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionRecord {
    /// Version of this format.
    pub schema: u32,
    /// Tensors of the adapter that it was made from.
    pub parent: Option<Digest>,
    /// The parent's name, for people.
    pub parent_name: Option<String>,
    /// When, in seconds since 1970.
    pub created: u64,
    /// What made it: `init`, `update`, `merge`, `forget`.
    pub made_by: String,
    /// The strategy that learned.
    pub strategy: String,
    /// What the gate said.
    pub verdict: Option<Verdict>,
}

/// A version on disk: an adapter folder with what the next update needs beside it.
#[derive(Debug, Clone)]
pub struct Version {
    /// Its name, for people.
    pub name: String,
    /// Where its files are.
    pub folder: PathBuf,
}

/// Everything that is to be written into a version's folder.
pub(crate) struct Content<'a> {
    pub(crate) artifact: &'a Artifact,
    pub(crate) record: &'a VersionRecord,
    pub(crate) statistics: Option<&'a Statistics>,
    pub(crate) memory: Option<&'a Memory>,
    pub(crate) probe: Option<&'a Memory>,
    pub(crate) ledger: &'a Ledger,
    /// What a learner by steps hands on; files to be copied.
    pub(crate) carried: &'a [PathBuf],
}

/// Writes a version's files; statistics, memory and probe under `key` if there is one.
pub(crate) fn write_version(folder: &Path, content: &Content<'_>, key: Option<&Key>) -> Result<()> {
    content.artifact.save(folder)?;
    for path in content.carried {
        file::write(&folder.join(path.file_name().unwrap_or_default()), &file::read(path)?)?;
    }
    if let Some(statistics) = content.statistics {
        let bytes = statistics.encode();
        match key {
            None => file::write(&folder.join(STATISTICS), &bytes)?,
            Some(key) => file::write(&folder.join(SEALED_STATISTICS), &key.seal(&bytes))?,
        }
    }
    if let Some(memory) = content.memory {
        memory.save(&folder.join(MEMORY), key)?;
    }
    if let Some(probe) = content.probe {
        probe.save(&folder.join(PROBE), key)?;
    }
    file::write_json(&folder.join(LEDGER), content.ledger)?;
    Ok(file::write_json(&folder.join(RECORD), content.record)?)
}

impl Version {
    /// The adapter.
    ///
    /// # Errors
    /// As [`Artifact::load`].
    pub fn artifact(&self, backbone: &Backbone) -> Result<Artifact> {
        Ok(Artifact::load(&self.folder, backbone)?)
    }

    /// Its record; `None` for an adapter that was not made by an update.
    ///
    /// # Errors
    /// A damaged file, or one of a newer version.
    pub fn record(&self) -> Result<Option<VersionRecord>> {
        let path = self.folder.join(RECORD);
        if !path.is_file() {
            return Ok(None);
        }
        let record: VersionRecord = file::read_json(&path, "version record")?;
        if record.schema != 1 {
            let what = format!("format version of `{}`", path.display());
            return Err(inarch_core::Error::mismatch(what, 1, record.schema).into());
        }
        Ok(Some(record))
    }

    /// Its statistics, for an analytic method.
    ///
    /// # Errors
    /// A damaged file, or an encrypted one without its key.
    pub fn statistics(&self, key: Option<&Key>) -> Result<Option<Statistics>> {
        let (plain, sealed) = (self.folder.join(STATISTICS), self.folder.join(SEALED_STATISTICS));
        let (path, bytes) = if sealed.is_file() {
            let Some(key) = key else {
                return Err(Error::Sealed { path: sealed, reason: "give its key file with `--key`".into() });
            };
            let bytes = key.open(&file::read(&sealed)?, &sealed)?;
            (sealed, bytes)
        } else if plain.is_file() {
            let bytes = file::read(&plain)?;
            (plain, bytes)
        } else {
            return Ok(None);
        };
        let read = Statistics::decode(&bytes);
        read.map(Some).map_err(|error| inarch_core::Error::malformed("statistics", &path, error).into())
    }

    /// Its rehearsal memory.
    ///
    /// # Errors
    /// A damaged file, or an encrypted one without its key.
    pub fn memory(&self, key: Option<&Key>) -> Result<Option<Memory>> {
        load_memory(&self.folder.join(MEMORY), key)
    }

    /// The samples that were held out to judge it by.
    ///
    /// # Errors
    /// As [`memory`](Self::memory).
    pub fn probe(&self, key: Option<&Key>) -> Result<Option<Memory>> {
        load_memory(&self.folder.join(PROBE), key)
    }

    /// Which samples it has learned; empty for an adapter that was not made by an update.
    ///
    /// # Errors
    /// A damaged file.
    pub fn ledger(&self) -> Result<Ledger> {
        let path = self.folder.join(LEDGER);
        if path.is_file() { Ok(file::read_json(&path, "ledger")?) } else { Ok(Ledger::default()) }
    }

    /// The file of its rehearsal memory.
    pub fn memory_file(&self) -> PathBuf {
        self.folder.join(MEMORY)
    }
}

fn load_memory(path: &Path, key: Option<&Key>) -> Result<Option<Memory>> {
    if path.is_file() { Memory::load(path, key).map(Some) } else { Ok(None) }
}

/// A version that is to be published: its files lie in a folder and nothing is missing.
pub struct Release<'a> {
    /// The folder, made by [`Versions::staging`].
    pub folder: &'a Path,
    /// What is known about it.
    pub record: &'a VersionRecord,
}

/// Refuses a version that would take the place of one it knows nothing of: what was learned, or forgotten, since `began` was in force.
/// Whoever asks has the [turn](Versions::turn), and keeps it until the version is published: what is in force stays so.
///
/// # Errors
/// [`Error::Refused`] with the version that is in force now.
pub(crate) fn check_in_force(versions: &dyn Versions, target: &str, began: Option<&Version>) -> Result<()> {
    let now = versions.exists(target).then(|| versions.open(target)).transpose()?;
    match now {
        Some(now) if began.is_none_or(|began| began.name != now.name) => Err(Error::Refused(format!(
            "`{}` was published while this one was made, which knows nothing of it; run the command again to go on from there",
            now.name
        ))),
        _ => Ok(()),
    }
}

/// Whether two targets are one, however they are written.
pub(super) fn is_one_place(left: &str, right: &str) -> bool {
    let place = |target: &str| Path::new(target).canonicalize().ok();
    left == right || place(left).is_some_and(|left| place(right) == Some(left))
}

/// Where versions are kept.
pub trait Versions {
    /// The version that is in force.
    ///
    /// # Errors
    /// No such target.
    fn open(&self, target: &str) -> Result<Version>;

    /// Whether there is such a target.
    fn exists(&self, target: &str) -> bool;

    /// All versions, oldest first.
    ///
    /// # Errors
    /// No such target.
    fn all(&self, target: &str) -> Result<Vec<Version>>;

    /// Whether a version can be published there; asked before anything is learned.
    ///
    /// # Errors
    /// [`Error::Target`] with the way out.
    fn takes_versions(&self, target: &str) -> Result<()>;

    /// Where a training for this target is kept that was stopped.
    ///
    /// # Errors
    /// No place for state.
    fn work(&self, target: &str) -> Result<PathBuf>;

    /// Waits until nobody else puts a version in force there, and keeps all others waiting until it is dropped. It is held
    /// from the look at what is in force to the end of [`publish`](Self::publish).
    ///
    /// # Errors
    /// [`Error::Refused`] where another process does not come to its end; a place that cannot be written to.
    fn turn(&self, target: &str) -> Result<Turn>;

    /// An empty folder in which a version is put together, by whoever has the [turn](Self::turn).
    ///
    /// # Errors
    /// A place that cannot be written to.
    fn staging(&self, target: &str) -> Result<PathBuf>;

    /// Publishes a version and puts it in force; returns its name.
    ///
    /// # Errors
    /// A place that cannot be written to.
    fn publish(&self, target: &str, release: &Release<'_>) -> Result<String>;

    /// Whether versions can be written to and removed after they are published.
    ///
    /// # Errors
    /// Versions that never change, with what to do instead.
    fn changeable(&self, target: &str) -> Result<()>;

    /// Removes a version that is not in force.
    ///
    /// # Errors
    /// A version in force, or files that cannot be removed.
    fn withdraw(&self, target: &str, version: &Version) -> Result<()>;
}

/// Removes a folder, if it is there.
fn clear(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        file::remove_folder(folder)?;
    }
    Ok(())
}

/// Versions in a folder: `1`, `2`, .. and `current`, which names the one in force.
#[derive(Debug, Clone, Copy, Default)]
pub struct FolderVersions;

impl FolderVersions {
    fn numbers(target: &str) -> Result<Vec<u32>> {
        let mut numbers = Vec::new();
        for path in file::list(Path::new(target))? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if let (Ok(number), true) = (name.parse(), path.join(MANIFEST_FILE).is_file()) {
                numbers.push(number);
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn version(target: &str, number: u32) -> Version {
        let folder = Path::new(target).join(number.to_string());
        Version { name: folder.display().to_string(), folder }
    }
}

impl Versions for FolderVersions {
    fn open(&self, target: &str) -> Result<Version> {
        let root = Path::new(target);
        let current = root.join(CURRENT);
        if current.is_file() {
            let text = file::read_text(&current)?;
            let number = text.trim().parse().map_err(|_| {
                inarch_core::Error::malformed("version number", &current, format!("found `{}`", text.trim()))
            })?;
            return Ok(Self::version(target, number));
        }
        if root.join(MANIFEST_FILE).is_file() {
            return Ok(Version { name: target.into(), folder: root.to_path_buf() });
        }
        let reason = "there is neither a version nor an adapter; `--init METHOD` starts the first version";
        Err(Error::setting(format!("target `{target}`"), reason))
    }

    fn exists(&self, target: &str) -> bool {
        // Versions of which nobody can tell which is in force are there, and nothing is begun over them.
        Path::new(target).join(CURRENT).exists() || self.open(target).is_ok()
    }

    fn all(&self, target: &str) -> Result<Vec<Version>> {
        if !Path::new(target).join(CURRENT).is_file() {
            return Ok(vec![self.open(target)?]);
        }
        Ok(Self::numbers(target)?.into_iter().map(|number| Self::version(target, number)).collect())
    }

    fn takes_versions(&self, target: &str) -> Result<()> {
        if !Path::new(target).join(MANIFEST_FILE).is_file() {
            return Ok(());
        }
        let reason = "it is a single adapter, and versions are not mixed with it; name another folder with `-o`";
        Err(Error::Target { target: target.into(), reason: reason.into() })
    }

    fn work(&self, target: &str) -> Result<PathBuf> {
        Ok(Path::new(target).join(".update"))
    }

    fn turn(&self, target: &str) -> Result<Turn> {
        self.takes_versions(target)?;
        Turn::wait(&Path::new(target).join(LOCK), target)
    }

    fn staging(&self, target: &str) -> Result<PathBuf> {
        self.takes_versions(target)?;
        let [staging, withdrawn] = [STAGING, WITHDRAWN].map(|name| Path::new(target).join(name));
        // What is there was left by a process that died.
        clear(&withdrawn)?;
        clear(&staging)?;
        file::create_folder(&staging)?;
        Ok(staging)
    }

    fn publish(&self, target: &str, release: &Release<'_>) -> Result<String> {
        let number = Self::numbers(target)?.last().map_or(1, |last| last + 1);
        let version = Self::version(target, number);
        std::fs::rename(release.folder, &version.folder).map_err(inarch_core::Error::io("move to", &version.folder))?;
        // The version is whole before it is in force.
        file::write(&Path::new(target).join(CURRENT), format!("{number}\n").as_bytes())?;
        Ok(version.name)
    }

    fn changeable(&self, _target: &str) -> Result<()> {
        Ok(())
    }

    fn withdraw(&self, target: &str, version: &Version) -> Result<()> {
        if self.open(target)?.folder == version.folder {
            return Err(Error::setting(format!("version `{}`", version.name), "it is in force and cannot be removed"));
        }
        // In one step: half of a version would hold samples, and be no version that can be removed.
        let withdrawn = Path::new(target).join(WITHDRAWN);
        clear(&withdrawn)?;
        file::rename(&version.folder, &withdrawn)?;
        Ok(file::remove_folder(&withdrawn)?)
    }
}

#[cfg(test)]
mod tests {
    use super::{FolderVersions, Versions as _, is_one_place};

    #[test]
    fn a_folder_of_versions_is_one_however_it_is_written_and_is_there_when_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        std::fs::create_dir_all(path("shop")).unwrap();
        assert!(is_one_place(&path("shop"), &path("./shop/../shop")) && is_one_place(&path("none"), &path("none")));
        assert!(!is_one_place(&path("shop"), &path("")) && !is_one_place(&path("none"), &path("./none")));

        assert!(!FolderVersions.exists(&path("shop")));
        std::fs::write(path("shop/current"), "one").unwrap();
        assert!(FolderVersions.exists(&path("shop")) && FolderVersions.open(&path("shop")).is_err());
    }
}
