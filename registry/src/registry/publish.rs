//! Publication: files to blobs, blobs to a manifest, the manifest to a number.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::Registry;
use super::version::{Record, Version};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::name::{Name, Release};
use crate::oci::{
    CARD_FILE, Card, Descriptor, GateVerdict, Manifest, TENSORS_FILE, annotation, media_type, title_is_safe, weigh,
};

/// The largest file of an artifact, in bytes.
pub(crate) const MAX_FILE_BYTES: u64 = 8 << 30;
/// The largest `adapter.json`, in bytes.
pub(crate) const MAX_CARD_BYTES: u64 = 64 << 20;
/// Files that are published with a folder where they are there.
const COMPANIONS: [&str; 4] = ["report.json", "report.html", "recipe.toml", "version.json"];
/// What an update leaves for the next one; nobody who only answers needs it.
const STATE: [&str; 5] =
    ["statistics.safetensors", "statistics.inarch", "memory.inarch", "probe.inarch", "ledger.json"];

/// Where the bytes of a file come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file.
    Path(PathBuf),
    /// Memory.
    Bytes(Vec<u8>),
}

/// What is published, and what is known about it.
#[derive(Debug, Clone)]
pub struct PublishRequest {
    /// The adapter.
    pub name: Name,
    /// Semantic version; the number alone when absent.
    pub release: Option<Release>,
    /// Files by title. `adapter.safetensors` and `adapter.json` must be among them; statistics, rehearsal memory and
    /// reports may be.
    pub files: Vec<(String, Source)>,
    /// Manifests it was made from; the first one is what deltas start from.
    pub parents: Vec<Digest>,
    /// Labels to be found by.
    pub labels: BTreeMap<String, String>,
    /// Figures beside those in `adapter.json`.
    pub metrics: BTreeMap<String, f64>,
    /// What a gate said.
    pub verdict: Option<GateVerdict>,
}

impl PublishRequest {
    /// A request without files.
    pub fn new(name: Name) -> Self {
        Self {
            name,
            release: None,
            files: Vec::new(),
            parents: Vec::new(),
            labels: BTreeMap::new(),
            metrics: BTreeMap::new(),
            verdict: None,
        }
    }

    /// The files of a folder that `inarch fit` wrote: the adapter, and its reports and recipe where they are there.
    ///
    /// # Errors
    /// [`Error::Unknown`] when the folder holds no adapter.
    pub fn folder(name: Name, folder: &Path) -> Result<Self> {
        for title in [CARD_FILE, TENSORS_FILE] {
            if !folder.join(title).is_file() {
                return Err(Error::unknown("file", title, format!(" in `{}`", folder.display())));
            }
        }
        let titles = [CARD_FILE, TENSORS_FILE].into_iter().chain(COMPANIONS).chain(STATE);
        let files = titles.map(|title| (title.to_string(), folder.join(title))).filter(|(_, path)| path.is_file());
        let files = files.map(|(title, path)| (title, Source::Path(path))).collect();
        Ok(Self { files, ..Self::new(name) })
    }

    /// Without statistics, rehearsal memory and probe, which are large and made of the samples that were learned. Such a version
    /// answers like the whole one, and cannot be updated.
    #[must_use]
    pub fn for_devices(mut self) -> Self {
        self.files.retain(|(title, _)| !STATE.contains(&title.as_str()));
        self
    }
}

/// What came of a publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The version.
    pub version: Version,
    /// False when the newest version was equal already.
    pub is_new: bool,
}

impl Registry {
    /// Publishes an adapter as the next version. Content equal to that of the newest version is not published again,
    /// so an interrupted publication is simply repeated.
    ///
    /// # Errors
    /// [`Error::Damaged`] when `adapter.json` belongs to other tensors, [`Error::Conflict`] when the release exists.
    pub fn publish(&self, request: PublishRequest) -> Result<Published> {
        let _ingest = self.ingest_lock()?;
        let (manifest, content) = self.ingest(&request)?;
        self.blobs.sync()?;

        let lock = self.write_lock()?;
        let shelf = self.shelf(&request.name);
        let latest = shelf.latest()?.unwrap_or(0);
        if let Some(record) = shelf.record(latest)?
            && record.content == content
            && record.removed.is_none()
            && (request.release.is_none() || request.release == record.release)
        {
            self.refresh_view(&lock, &request.name)?;
            return Ok(Published { version: record.version(&request.name), is_new: false });
        }
        if let Some(release) = &request.release
            && let Some(number) = shelf.released(release)?
        {
            let what = format!("release {release} of `{}`", request.name);
            return Err(Error::Conflict { what, expected: "a new one".into(), found: format!("version {number}") });
        }
        let number = latest + 1;
        let published = Timestamp::now().to_string();
        let mut manifest = manifest;
        let annotations = manifest.annotations_mut();
        annotations.insert(annotation::NAME.into(), request.name.to_string());
        annotations.insert(annotation::NUMBER.into(), number.to_string());
        annotations.insert(annotation::CREATED.into(), published.clone());
        let spoken = request.release.as_ref().map_or_else(|| number.to_string(), ToString::to_string);
        annotations.insert(annotation::VERSION.into(), spoken);
        if let Some(release) = &request.release {
            annotations.insert(annotation::RELEASE.into(), release.to_string());
        }
        let bytes = manifest.encode();
        // What cannot be read again is not published.
        let what = "the manifest to be published";
        Card::of(&Manifest::parse(&bytes, what)?, what)?;
        let digest = self.blobs.put(&bytes)?;
        self.blobs.sync()?;
        let record = Record {
            number,
            release: request.release.clone(),
            manifest: digest,
            manifest_bytes: bytes.len() as u64,
            content,
            published,
            removed: None,
        };
        shelf.create()?;
        shelf.commit(&lock, &record)?;
        self.refresh_view(&lock, &request.name)?;
        Ok(Published { version: record.version(&request.name), is_new: true })
    }

    /// Stores all files and returns the manifest without what is given at publication, and its digest.
    fn ingest(&self, request: &PublishRequest) -> Result<(Manifest, Digest)> {
        let mut layers = Vec::new();
        for (title, source) in &request.files {
            if !title_is_safe(title) {
                return Err(Error::reference("file name", title, "expected letters, digits, `.`, `_` and `-`"));
            }
            let limit = if title == CARD_FILE { MAX_CARD_BYTES } else { MAX_FILE_BYTES };
            let (digest, size) = match source {
                Source::Path(path) => {
                    let file = File::open(path).map_err(Error::io("read", path))?;
                    self.blobs.put_reader(file, limit, None, &path.display().to_string())?
                }
                Source::Bytes(bytes) => (self.blobs.put(bytes)?, bytes.len() as u64),
            };
            layers.push(
                Descriptor::new(weigh(title), digest, size)
                    .with(annotation::TITLE, title)
                    .with(annotation::FILE_PATH, title),
            );
        }
        // One order, whatever the caller's.
        layers.sort_by(|left, right| left.title().cmp(&right.title()));
        let find = |title: &str| {
            let found = layers.iter().find(|layer| layer.title() == Some(title));
            found.ok_or_else(|| Error::unknown("file", title, format!(" among those of `{}`", request.name)))
        };
        let tensors = find(TENSORS_FILE)?;
        check_safetensors(&self.blobs.path(&tensors.digest), tensors.size)?;
        let described = self.blobs.read(&find(CARD_FILE)?.digest, MAX_CARD_BYTES)?;
        let (mut card, config) = Card::read(&described, &tensors.digest, &layers)?;
        card.parents.clone_from(&request.parents);
        card.labels.clone_from(&request.labels);
        card.metrics.extend(request.metrics.iter().map(|(name, value)| (name.clone(), *value)));
        card.verdict.clone_from(&request.verdict);
        let config = serde_json::to_vec(&config).expect("a JSON value");
        let config = Descriptor::new(media_type::CONFIG, self.blobs.put(&config)?, config.len() as u64);
        let manifest = card.manifest(config, layers);
        let content = Digest::of(&manifest.encode());
        Ok((manifest, content))
    }
}

/// The part of a tensor's entry that is read here.
#[derive(serde::Deserialize)]
struct TensorEntry {
    data_offsets: Option<[u64; 2]>,
}

/// Checks that a file begins like one of safetensors, without reading the tensors.
pub(crate) fn check_safetensors(path: &Path, size: u64) -> Result<()> {
    use std::io::Read as _;

    let wrong = |reason: String| Error::malformed("safetensors file", format!("`{TENSORS_FILE}`"), reason);
    let mut file = File::open(path).map_err(Error::io("read", path))?;
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|_| wrong("it is shorter than its own head".into()))?;
    let length = u64::from_le_bytes(length);
    if length > MAX_CARD_BYTES || length > size.saturating_sub(8) {
        return Err(wrong(format!("its head claims {length} bytes")));
    }
    let mut head = vec![0; length as usize];
    file.read_exact(&mut head).map_err(|error| wrong(error.to_string()))?;
    let tensors: BTreeMap<String, Option<TensorEntry>> =
        serde_json::from_slice(&head).map_err(|error| wrong(format!("its head: {error}")))?;
    let ends = tensors.iter().filter(|(name, _)| *name != "__metadata__").map(|(_, tensor)| {
        let [begin, end] = tensor.as_ref()?.data_offsets?;
        (begin <= end).then_some(end)
    });
    let ends: Option<Vec<u64>> = ends.collect();
    let tensors = ends.ok_or_else(|| wrong("a tensor has no place in it".into()))?.into_iter().max().unwrap_or(0);
    if tensors == size - length - 8 {
        Ok(())
    } else {
        Err(wrong(format!("its tensors have {tensors} bytes, the file holds {}", size - length - 8)))
    }
}
