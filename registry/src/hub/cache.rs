//! The cache that the hub's own libraries use: `models--ORG--NAME` with `blobs` by checksum, `refs` from revisions to
//! commits, and `snapshots` of commits as links to blobs.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use sha1::{Digest as _, Sha1};

use super::id::{HubId, is_commit};
use super::pull::Wanted;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::store::Lock;

/// The longest list of shards, in bytes and in files.
const INDEX_BYTES: u64 = 64 << 20;
const SHARDS: usize = 512;
/// How long another process may download the same file.
const PATIENCE: Duration = Duration::from_secs(3600);

/// What a server calls a file: the SHA-256 of a large one, or git's SHA-1 of a small one. It is safe in a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checksum(String);

impl Checksum {
    /// From an `ETag` or a field of the API; none when it is neither of the two.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim().trim_start_matches("W/").trim_matches('"');
        let is_known = is_commit(text) || Digest::from_hex(text).is_some();
        is_known.then(|| Self(text.to_string()))
    }

    /// Refuses a file that does not have it.
    pub(super) fn verify(&self, path: &Path, what: &str) -> Result<()> {
        let read = || -> io::Result<String> {
            let file = File::open(path)?;
            if self.0.len() == 64 {
                return Ok(Digest::of_reader(file)?.0.hex());
            }
            git_blob(file)
        };
        let found = read().map_err(Error::io("read", path))?;
        if found == self.0 {
            return Ok(());
        }
        Err(Error::Damaged { what: what.into(), expected: self.0.clone(), found })
    }
}

/// The name of a file's content in git.
fn git_blob(mut file: File) -> io::Result<String> {
    let mut hash = Sha1::new();
    hash.update(format!("blob {}\0", file.metadata()?.len()).as_bytes());
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            read => hash.update(&buffer[..read]),
        }
    }
}

/// A repository in the cache.
pub(super) struct Shelf {
    root: PathBuf,
    locks: PathBuf,
}

/// A whole backbone in the cache.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The repository, at the revision that it goes by.
    pub id: HubId,
    /// The commit.
    pub commit: String,
    /// The folder with its files.
    pub path: PathBuf,
    /// The bytes of its files.
    pub bytes: u64,
}

impl Shelf {
    pub(super) fn new(cache: &Path, id: &HubId) -> Self {
        Self { root: cache.join(id.folder()), locks: cache.join(".locks").join(id.folder()) }
    }

    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    pub(super) fn blob(&self, checksum: &Checksum) -> PathBuf {
        self.root.join("blobs").join(&checksum.0)
    }

    /// Where a download stands until it is whole.
    pub(super) fn part(&self, checksum: &Checksum) -> PathBuf {
        self.root.join("blobs").join(format!("{}.incomplete", checksum.0))
    }

    /// Keeps others from the same file; the hub's libraries lock in the same way.
    pub(super) fn lock(&self, checksum: &Checksum) -> Result<Lock> {
        create(&self.locks)?;
        create(&self.root.join("blobs"))?;
        Lock::hold(&self.locks.join(format!("{}.lock", checksum.0)), PATIENCE)
    }

    /// The commit of a revision, as far as is known here.
    pub(super) fn resolve(&self, revision: &str) -> Option<String> {
        if is_commit(revision) && self.snapshot(revision).is_dir() {
            return Some(revision.into());
        }
        let mut text = String::new();
        File::open(self.root.join("refs").join(revision)).ok()?.take(64).read_to_string(&mut text).ok()?;
        Some(text.trim().to_string()).filter(|commit| is_commit(commit))
    }

    /// Says which commit a revision is.
    pub(super) fn refer(&self, revision: &str, commit: &str) -> Result<()> {
        if revision == commit {
            return Ok(());
        }
        let path = self.root.join("refs").join(revision);
        place(&path, |beside| fs::write(beside, commit))
    }

    /// Puts a blob into a snapshot: as a link, or as a copy where links cannot be made.
    pub(super) fn link(&self, commit: &str, file: &str, checksum: &Checksum) -> Result<()> {
        let path = self.snapshot(commit).join(file);
        let blob = self.blob(checksum);
        if let (Ok(found), Ok(expected)) = (path.canonicalize(), blob.canonicalize())
            && found == expected
        {
            return Ok(());
        }
        let mut target: PathBuf = std::iter::repeat_n("..", 2 + file.matches('/').count()).collect();
        target.push("blobs");
        target.push(&checksum.0);
        place(&path, |beside| {
            symlink(&target, beside)
                .or_else(|_| fs::hard_link(&blob, beside))
                .or_else(|_| fs::copy(&blob, beside).map(drop))
        })
    }

    /// The snapshots that hold whole weights.
    fn snapshots(&self, id: &HubId, wanted: Wanted<'_>) -> Vec<Snapshot> {
        let mut revisions: BTreeMap<String, String> = BTreeMap::new();
        for revision in names(&self.root.join("refs")) {
            if let Some(commit) = self.resolve(&revision) {
                // A commit goes by its branch or tag; by `main` before all others.
                let name = revisions.entry(commit).or_insert_with(|| revision.clone());
                if revision == super::DEFAULT_REVISION {
                    *name = revision;
                }
            }
        }
        let commits = names(&self.root.join("snapshots")).into_iter().filter(|name| is_commit(name));
        commits
            .filter_map(|commit| {
                let path = self.snapshot(&commit);
                weights(&path, wanted)?;
                let id = id.at(revisions.get(&commit).unwrap_or(&commit));
                let files = names(&path).into_iter().filter_map(|name| fs::metadata(path.join(name)).ok());
                let bytes: u64 = files.filter(fs::Metadata::is_file).map(|about| about.len()).sum();
                Some(Snapshot { id, commit, path, bytes })
            })
            .collect()
    }
}

/// All that a cache holds with whole weights, by name.
pub(super) fn list(cache: &Path, wanted: Wanted<'_>) -> Vec<Snapshot> {
    let ids = names(cache).into_iter().filter_map(|folder| HubId::of_folder(&folder));
    ids.flat_map(|id| Shelf::new(cache, &id).snapshots(&id, wanted)).collect()
}

/// The weights of a snapshot; none when they are not whole.
pub(super) fn weights(snapshot: &Path, wanted: Wanted<'_>) -> Option<PathBuf> {
    let name = wanted.weights.iter().find(|name| snapshot.join(name).is_file())?;
    let path = snapshot.join(name);
    let is_whole = !is_index(name) || shards(&path).ok()?.iter().all(|shard| snapshot.join(shard).is_file());
    is_whole.then_some(path)
}

/// Whether a name of weights is that of a list of shards.
pub(super) fn is_index(name: &str) -> bool {
    name.ends_with(".index.json")
}

/// The shards that a list names, each a plain name of a safetensors file.
pub(super) fn shards(index: &Path) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let mut bytes = Vec::new();
    let read = File::open(index).and_then(|file| file.take(INDEX_BYTES).read_to_end(&mut bytes));
    read.map_err(Error::io("read", index))?;
    let malformed = |reason: String| Error::malformed("safetensors index", index.display(), reason);
    let index: Index = serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
    let mut shards: Vec<String> = index.weight_map.into_values().collect();
    shards.sort();
    shards.dedup();
    let is_plain = |name: &String| {
        name.ends_with(".safetensors")
            && !name.starts_with('.')
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    if let Some(shard) = shards.iter().find(|shard| !is_plain(shard)) {
        return Err(malformed(format!("`{shard}` is not the name of a safetensors file")));
    }
    if shards.is_empty() || shards.len() > SHARDS {
        return Err(malformed(format!("it names {} shards; 1 to {SHARDS} are taken", shards.len())));
    }
    Ok(shards)
}

/// The names in a folder, in order; none where it cannot be read.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

fn create(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(Error::io("create", folder))
}

/// Makes something beside a path and gives it the path's name, whole.
fn place(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    create(folder)?;
    let attempt = || -> io::Result<()> {
        // Of its own name, so that two processes do not make the same.
        let beside = tempfile::Builder::new().prefix(".inarch-").tempdir_in(folder.parent().unwrap_or(folder))?;
        let made = beside.path().join("made");
        make(&made)?;
        fs::rename(&made, path)
    };
    attempt().map_err(Error::io("write", path))
}

#[cfg(unix)]
fn symlink(target: &Path, path: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

#[cfg(windows)]
fn symlink(target: &Path, path: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, path)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_target: &Path, _path: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_file_has_the_name_that_git_gives() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("hello");
        fs::write(&path, "hello\n").expect("writes");
        // `printf 'hello\n' | git hash-object --stdin`
        let checksum = Checksum::parse("\"ce013625030ba8dba906f756967f9e9ca394464a\"").expect("a checksum");
        checksum.verify(&path, "hello").expect("the same");
        fs::write(&path, "hullo\n").expect("writes");
        assert!(matches!(checksum.verify(&path, "hello"), Err(Error::Damaged { .. })));
        for text in ["", "5f3759df-86", "../../x", "CE013625030BA8DBA906F756967F9E9CA394464A"] {
            assert!(Checksum::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_list_of_shards_names_plain_files() {
        let folder = tempfile::tempdir().expect("a folder");
        let index = folder.path().join("model.safetensors.index.json");
        let write = |shard: &str| fs::write(&index, format!(r#"{{"weight_map":{{"a":"{shard}"}}}}"#)).expect("writes");
        write("model-1.safetensors");
        assert_eq!(shards(&index).expect("a list"), ["model-1.safetensors"]);
        let wanted = Wanted { beside: &[], weights: &["model.safetensors.index.json"] };
        assert_eq!(weights(folder.path(), wanted), None, "the shard is not there");
        fs::write(folder.path().join("model-1.safetensors"), "").expect("writes");
        assert_eq!(weights(folder.path(), wanted), Some(index.clone()));
        for shard in ["../x.safetensors", "a/b.safetensors", ".x.safetensors", "model.py", "/x.safetensors"] {
            write(shard);
            assert!(shards(&index).is_err(), "{shard}");
        }
    }
}
