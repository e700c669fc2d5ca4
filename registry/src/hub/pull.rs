//! From a hub into its cache, verified.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use super::cache::{Shelf, Snapshot, is_index, list, shards, weights};
use super::client::{Client, Entry, Listing};
use super::id::HubId;
use crate::error::{Error, Result};
use crate::transport::Transfer;

/// The most bytes of a file of weights, and of any other.
const WEIGHT_BYTES: u64 = 1 << 36;
const COMPANION_BYTES: u64 = 1 << 26;

/// A hub and its cache.
#[derive(Clone)]
pub struct Hub {
    /// The address of the hub, such as `https://huggingface.co`.
    pub endpoint: String,
    /// The folder with `models--ORG--NAME`.
    pub cache: PathBuf,
    /// What gated and private repositories ask for; it is sent to the hub alone, over TLS or loopback.
    pub token: Option<String>,
    /// How patiently content is moved.
    pub transfer: Transfer,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hub({}, {})", self.endpoint, self.cache.display())
    }
}

/// Which files of a repository are wanted.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// All of these that there are.
    pub beside: &'a [&'a str],
    /// The first of these that there is; `.index.json` stands for itself and the shards that it names.
    pub weights: &'a [&'a str],
}

/// What a pull left in the cache.
#[derive(Debug)]
pub struct Pulled {
    /// The commit that the revision was.
    pub commit: String,
    /// The folder with the files.
    pub path: PathBuf,
    /// The files.
    pub files: Vec<String>,
    /// Bytes of the files.
    pub bytes: u64,
    /// Bytes of those files that were not here before.
    pub moved: u64,
}

impl Hub {
    /// The folder of a repository whose weights are whole here; the network is not asked.
    pub fn find(&self, id: &HubId, wanted: Wanted<'_>) -> Option<PathBuf> {
        let shelf = Shelf::new(&self.cache, id);
        let snapshot = shelf.snapshot(&shelf.resolve(id.revision())?);
        weights(&snapshot, wanted).map(|_| snapshot)
    }

    /// All that is whole here, by name.
    pub fn list(&self, wanted: Wanted<'_>) -> Vec<Snapshot> {
        list(&self.cache, wanted)
    }

    /// Brings the wanted files of a repository here. Every file is verified before it gets its name, and a download
    /// that broke off goes on where it did. Small files come first; `admit` looks at the folder with them and may say
    /// why the weights are of no use. `progress` is told the bytes of weights that are here, and all of them.
    ///
    /// # Errors
    /// [`Error::Remote`] when the hub cannot be reached; [`Error::Unknown`] when it has no such repository or revision;
    /// [`Error::Refused`] when it asks for another token, or `admit` says no; [`Error::Malformed`],
    /// [`Error::TooLarge`] and [`Error::Damaged`] for what it sends; [`Error::Io`].
    pub fn pull(
        &self,
        id: &HubId,
        wanted: Wanted<'_>,
        admit: &dyn Fn(&Path) -> Result<(), String>,
        progress: &dyn Fn(u64, u64),
    ) -> Result<Pulled> {
        let client = Client::open(&self.endpoint, self.token.as_deref())?;
        let listing = self.transfer.retry("list", || client.list(id))?;
        let shelf = Shelf::new(&self.cache, id);
        let path = shelf.snapshot(&listing.commit);
        let run = Run { hub: self, client: &client, shelf: &shelf, id, listing: &listing, moved: Cell::new(0) };
        let chosen = choose(&listing, wanted, id)?;
        let mut files = Vec::new();
        for name in wanted.beside.iter().copied().chain(is_index(chosen).then_some(chosen)) {
            if listing.files.contains_key(name) {
                let entry = run.entry(name, COMPANION_BYTES)?;
                run.bring(&entry, &|_| ())?;
                files.push(entry);
            }
        }
        admit(&path).map_err(|reason| Error::refused(format!("`{id}`"), reason))?;
        let parts = if is_index(chosen) { shards(&path.join(chosen))? } else { vec![chosen.to_string()] };
        let parts = parts.iter().map(|name| run.entry(name, WEIGHT_BYTES)).collect::<Result<Vec<_>>>()?;
        let total: u64 = parts.iter().map(|part| part.size).sum();
        let mut before = 0_u64;
        for part in parts {
            run.bring(&part, &|here| progress(before + here, total))?;
            before += part.size;
            progress(before, total);
            files.push(part);
        }
        shelf.refer(id.revision(), &listing.commit)?;
        let bytes = files.iter().map(|file| file.size).sum();
        let files = files.into_iter().map(|file| file.name).collect();
        Ok(Pulled { path, files, bytes, moved: run.moved.get(), commit: listing.commit })
    }
}

/// One pull.
struct Run<'a> {
    hub: &'a Hub,
    client: &'a Client,
    shelf: &'a Shelf,
    id: &'a HubId,
    listing: &'a Listing,
    moved: Cell<u64>,
}

impl Run<'_> {
    fn entry(&self, name: &str, limit: u64) -> Result<Entry> {
        let (id, commit) = (self.id, &self.listing.commit);
        let Some(known) = self.listing.files.get(name) else {
            return Err(Error::unknown("file", format!("{name}` of `{id}"), ", which its list of shards names"));
        };
        let entry = self.hub.transfer.retry(name, || self.client.entry(id, commit, name, known.clone()))?;
        if entry.size > limit {
            let what = format!("`{name}` of `{id}`");
            return Err(Error::TooLarge { what, unit: "bytes", limit, found: entry.size });
        }
        Ok(entry)
    }

    /// Puts a file into the snapshot, whatever of it is here already.
    fn bring(&self, entry: &Entry, seen: &dyn Fn(u64)) -> Result<()> {
        let (id, commit) = (self.id, self.listing.commit.as_str());
        let what = format!("`{}` of `{id}`", entry.name);
        let _lock = self.shelf.lock(&entry.checksum)?;
        let (blob, part) = (self.shelf.blob(&entry.checksum), self.shelf.part(&entry.checksum));
        // Where links cannot be made, the hub's libraries put the file itself into the snapshot.
        let plain = self.shelf.snapshot(commit).join(&entry.name);
        if !blob.is_file() && plain.is_file() && entry.checksum.verify(&plain, &what).is_ok() {
            return Ok(());
        }
        if !(blob.is_file() && entry.checksum.verify(&blob, &what).is_ok()) {
            let resumes = part.is_file();
            let download = || {
                self.hub.transfer.retry(&entry.name, || self.client.download(id, commit, entry, &part, seen))?;
                entry.checksum.verify(&part, &what).inspect_err(|_| drop(std::fs::remove_file(&part)))
            };
            match download() {
                // What was here from before may be what is damaged.
                Err(Error::Damaged { .. }) if resumes => download()?,
                done => done?,
            }
            std::fs::rename(&part, &blob).map_err(Error::io("rename", &part))?;
            self.moved.set(self.moved.get() + entry.size);
        }
        self.shelf.link(commit, &entry.name, &entry.checksum)
    }
}

/// The weights that are read of those that there are.
fn choose<'a>(listing: &Listing, wanted: Wanted<'a>, id: &HubId) -> Result<&'a str> {
    if let Some(chosen) = wanted.weights.iter().copied().find(|name| listing.files.contains_key(*name)) {
        return Ok(chosen);
    }
    let kinds = [".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".gguf", ".ckpt", ".index.json"];
    let found = listing.files.keys().filter(|name| kinds.iter().any(|kind| name.ends_with(kind)));
    let found: Vec<&str> = found.map(String::as_str).take(8).collect();
    let found = if found.is_empty() { "nothing like them".into() } else { found.join(", ") };
    let expected = wanted.weights.join(", ");
    let reason = format!(
        "it has no weights that can be read: expected one of {expected}; found {found}; pickles in shards and the \
         weights of other frameworks are not read: load them with their own library, write safetensors, and give the \
         folder"
    );
    Err(Error::malformed("repository of a backbone", format!("`{id}`"), reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_kind_of_weights_is_chosen() {
        let listing = |names: &[&str]| Listing {
            commit: "0".repeat(40),
            files: names.iter().map(|name| (name.to_string(), Default::default())).collect(),
        };
        let wanted = Wanted { beside: &[], weights: &["model.safetensors", "pytorch_model.bin"] };
        let id: HubId = "org/tiny".parse().expect("an id");
        let both = listing(&["pytorch_model.bin", "model.safetensors", "modeling_x.py"]);
        assert_eq!(choose(&both, wanted, &id).expect("weights"), "model.safetensors");
        let pickle = listing(&["pytorch_model.bin", "flax_model.msgpack"]);
        assert_eq!(choose(&pickle, wanted, &id).expect("weights"), "pytorch_model.bin");
        let other = listing(&["config.json", "tf_model.h5"]);
        let error = choose(&other, wanted, &id).expect_err("no weights").to_string();
        assert!(error.contains("model.safetensors") && error.contains("tf_model.h5"), "{error}");
    }
}
