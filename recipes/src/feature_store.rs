//! Frozen image features on disk, computed once for all runs.
//!
//! A row is found by what it was made of: the weights, the preparation, the bytes of the image, the view, how far the tower
//! had come. Rows lie in *segments*, files that are written whole, named by their content and never changed: two processes
//! may use a store at once, and one that is killed leaves a temporary file at most. A store that fails costs time, never a
//! run: what it does not give is computed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use inarch_core::backbone::{Backbone, Entry, HostTensor};
use inarch_core::checkpoint::{Precision, TensorFile, encode_safetensors};
use inarch_core::image::{Frame, ImageAddress, ImageJob, View};
use inarch_core::{Digest, DigestBuilder, file, parallel};

use crate::error::Result;

/// Bytes of a segment.
const SEGMENT_BYTES: usize = 16 << 20;
/// When a temporary file belongs to nobody any more.
const ABANDONED: Duration = Duration::from_hours(24);
const EXTENSION: &str = "safetensors";

/// A folder of frozen image features, bounded in bytes; what was used longest ago goes first.
#[derive(Debug, Clone)]
pub struct FeatureStore {
    folder: PathBuf,
    limit: u64,
    precision: Precision,
}

/// The rows of one backbone at one place of its tower.
pub(crate) struct Shelf<'a> {
    store: &'a FeatureStore,
    folder: PathBuf,
    /// Rows to be written, by key.
    waiting: BTreeMap<String, HostTensor>,
    bytes: usize,
    /// Bytes written by this value.
    written: u64,
    fault: Option<inarch_core::Error>,
}

impl FeatureStore {
    /// A store in a folder, which is made when it is first written to.
    pub fn new(folder: impl Into<PathBuf>, limit: u64, precision: Precision) -> Self {
        Self { folder: folder.into(), limit, precision }
    }

    /// The rows of a backbone whose image tower has come to `entry`.
    pub(crate) fn shelf(&self, backbone: &Backbone, entry: Entry) -> Shelf<'_> {
        let mut key = DigestBuilder::default();
        let preprocess = serde_json::to_string(backbone.preprocess()).expect("plain data");
        // Kernels may round otherwise in another version or on another device.
        let device = format!("{:?} {:?}", backbone.device(), backbone.device().settings().float_dtype);
        let parts = [env!("CARGO_PKG_VERSION"), &backbone.digest().to_string(), &preprocess, &device];
        for part in parts {
            key.piece(part.as_bytes());
        }
        key.piece(format!("{entry:?} {:?}", self.precision).as_bytes());
        let folder = self.folder.join(key.finish().short());
        Shelf { store: self, folder, waiting: BTreeMap::new(), bytes: 0, written: 0, fault: None }
    }

    /// Every segment with its age and size, the one that was used longest ago first.
    fn segments(&self) -> Result<Vec<(SystemTime, u64, PathBuf)>> {
        let mut found = Vec::new();
        for folder in file::list(&self.folder)?.into_iter().filter(|path| path.is_dir()) {
            for path in file::list(&folder)? {
                // Another process may have removed it just now.
                let Ok((used, bytes)) = file::age_and_bytes(&path) else { continue };
                match is_segment(&path) {
                    true => found.push((used, bytes, path)),
                    // What a killed process left. Whoever removes it first is right.
                    false if used.elapsed().is_ok_and(|age| age > ABANDONED) => drop(file::remove(&path)),
                    false => {}
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// Removes what is over the limit.
    fn trim(&self) -> Result<()> {
        let segments = self.segments()?;
        let mut total: u64 = segments.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, bytes, path) in segments {
            if total <= self.limit {
                break;
            }
            // Another process may have been quicker.
            let _ = file::remove(&path);
            total -= bytes;
        }
        Ok(())
    }
}

/// The keys of the jobs whose files can be read, by the jobs' numbers.
pub(crate) fn keys(jobs: &[ImageJob]) -> HashMap<usize, String> {
    let address = |job: &ImageJob| job.bytes.is_none().then(|| ImageAddress::of(&job.path));
    let addresses: Vec<Option<ImageAddress>> = jobs.iter().map(address).collect();
    // A file is read once, whatever the number of its frames and views.
    let files: BTreeSet<&Path> = addresses.iter().flatten().map(|address| address.file.as_path()).collect();
    let files: Vec<&Path> = files.into_iter().collect();
    let digests = parallel::map(&files, |file| Some((*file, Digest::of_file(file).ok()?)));
    let digests: HashMap<&Path, Digest> = digests.into_iter().flatten().collect();
    let key = |(job, address): (&ImageJob, &Option<ImageAddress>)| {
        let image = match (address, &job.bytes) {
            (Some(address), _) => digests.get(address.file.as_path())?.clone(),
            // The path is but a name.
            (None, Some(bytes)) => Digest::of(bytes),
            (None, None) => return None,
        };
        Some((job.index, key(job, &image, address.as_ref())?))
    };
    jobs.iter().zip(&addresses).filter_map(key).collect()
}

/// What tells the row of a job from all others on its shelf, by its file's bytes.
fn key(job: &ImageJob, image: &Digest, address: Option<&ImageAddress>) -> Option<String> {
    let mut key = DigestBuilder::default();
    key.piece(image.to_string().as_bytes());
    if let Some(address) = address.filter(|address| (address.frame, address.window) != (Frame::Middle, None)) {
        let shown = ImageAddress { file: PathBuf::new(), ..address.clone() };
        key.piece(shown.path().to_string_lossy().as_bytes());
    }
    if let Some(frame) = job.frame {
        key.piece(format!("frame {frame}").as_bytes());
    }
    match &job.view {
        View::Centre => key.piece(b"centre"),
        View::Crop(place) => key.piece(format!("crop {place:?}").as_bytes()),
        View::Augmented { augment, seed } => {
            let augment = serde_json::to_string(augment.as_ref()).ok()?;
            key.piece(augment.as_bytes()).piece(format!("{seed:?}").as_bytes())
        }
    };
    Some(key.finish().hex().to_string())
}

impl Shelf<'_> {
    /// The rows that are there, by the jobs' numbers.
    pub(crate) fn find(&self, keys: &HashMap<usize, String>) -> HashMap<usize, HostTensor> {
        // Copies of one image have one key.
        let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
        keys.iter().for_each(|(job, key)| places.entry(key).or_default().push(*job));
        let mut found = HashMap::new();
        let segments = file::list(&self.folder).unwrap_or_default();
        for path in segments.iter().filter(|path| is_segment(path)) {
            let wanted = |name: &&str| places.get(name).is_some_and(|places| !found.contains_key(&places[0]));
            let names = TensorFile::open(path).map(|file| {
                let names: Vec<String> = file.names().filter(wanted).map(String::from).collect();
                (file, names)
            });
            match names {
                Ok((_, names)) if names.is_empty() => {}
                Ok((mut file, names)) if whole(path) => {
                    for name in names {
                        let Ok(row) = file.read(&name) else { continue };
                        places[name.as_str()].iter().for_each(|at| drop(found.insert(*at, row.clone())));
                    }
                    // Another user's store may be read only, and then ages.
                    let _ = file::touch(path);
                }
                // Damaged: its rows are computed again.
                _ => drop(file::remove(path)),
            }
        }
        found
    }

    /// Adds a row `[tokens, width]`, and gives it back as later runs will find it. One with a value beyond what the precision holds
    /// is left as it is and not kept, so that later runs compute it again.
    pub(crate) fn add(&mut self, key: Option<&String>, shape: [usize; 2], row: &mut [f32]) {
        let precision = self.store.precision;
        if row.iter().any(|value| !precision.rounded(*value).is_finite()) {
            return;
        }
        row.iter_mut().for_each(|value| *value = precision.rounded(*value));
        let Some(key) = key else { return };
        let fits = self.written + (self.bytes + size_of_val(row)) as u64 <= self.store.limit;
        if self.fault.is_some() || !fits {
            return;
        }
        self.bytes += size_of_val(row);
        let tensor = HostTensor { shape: shape.to_vec(), data: row.to_vec(), origin: String::new() };
        self.waiting.insert(key.clone(), tensor);
        if self.bytes >= SEGMENT_BYTES {
            self.write();
        }
    }

    fn write(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let waiting = std::mem::take(&mut self.waiting);
        self.bytes = 0;
        let outcome = encode_safetensors(&waiting, BTreeMap::new(), self.store.precision).and_then(|bytes| {
            self.written += bytes.len() as u64;
            file::write(&self.folder.join(Digest::of(&bytes).hex()).with_extension(EXTENSION), &bytes)
        });
        self.fault = outcome.err();
    }

    /// Writes what waits and removes what is too much.
    ///
    /// # Errors
    /// The first fault of writing, which the rows do not suffer from.
    pub(crate) fn close(mut self) -> Result<()> {
        self.write();
        match self.fault {
            Some(fault) => Err(fault.into()),
            None if self.written > 0 => self.store.trim(),
            None => Ok(()),
        }
    }
}

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == EXTENSION)
}

/// Whether a segment holds what it was written with.
fn whole(path: &Path) -> bool {
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    file::read(path).is_ok_and(|bytes| Digest::of(&bytes).hex() == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use inarch_core::checkpoint::Precision;

    use super::{FeatureStore, Shelf};

    #[test]
    fn a_row_beyond_the_precision_is_not_kept() {
        let store = FeatureStore::new("nowhere", 1 << 20, Precision::F16);
        let (folder, waiting) = (PathBuf::from("nowhere/shelf"), BTreeMap::new());
        let mut shelf = Shelf { store: &store, folder, waiting, bytes: 0, written: 0, fault: None };
        let (mut wide, mut plain) = ([1.0, 1e5], [0.1, 2.0]);
        shelf.add(Some(&"wide".to_string()), [1, 2], &mut wide);
        shelf.add(Some(&"plain".to_string()), [1, 2], &mut plain);
        assert_eq!(wide, [1.0, 1e5]);
        assert!(plain[0] != 0.1 && plain[1] == 2.0, "{plain:?}");
        assert_eq!(shelf.waiting.keys().collect::<Vec<_>>(), ["plain"]);
    }
}
