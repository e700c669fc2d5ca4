//! A monitor of a memory, and the file that carries it from batch to batch. The file holds nothing of the samples: a
//! digest of those that batches are compared with, and the window of distances. The samples come from the memory each
//! time, so that what was forgotten there is nowhere else.

use std::path::Path;

use inarch_core::{Digest, DigestBuilder, file};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::adwin::Adwin;
use super::monitor::{DriftConfig, DriftMonitor, DriftVerdict};
use crate::error::{Error, Result};
use crate::memory::{Fingerprint, Key, Memory, opened};

/// Version of the file's format.
const SCHEMA: u32 = 1;

/// The file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DriftState {
    schema: u32,
    fingerprint: Fingerprint,
    /// Digest of the samples that batches are compared with.
    memory: Digest,
    window: Adwin,
    batches: u64,
}

/// Compares batches of features with what a memory holds, and says whose state it is that it leaves.
#[derive(Debug, Clone, PartialEq)]
pub struct DriftWatch {
    fingerprint: Fingerprint,
    memory: Digest,
    monitor: DriftMonitor,
}

impl DriftWatch {
    /// A watch that goes on from the state in a file; it begins where no file is named, or none is there.
    ///
    /// # Errors
    /// [`Error::Refused`] with the cure for a state of another backbone, image preparation or memory, or one that does
    /// not say what it belongs to; [`Error::Sealed`] for one under another key; a damaged file; otherwise as
    /// [`DriftMonitor::new`].
    pub fn open(memory: &Memory, config: DriftConfig, file: Option<&Path>, key: Option<&Key>) -> Result<Self> {
        let state = file.map(|path| Self::check(memory, path, key)).transpose()?.flatten();
        let latents: Vec<f32> = memory.samples().flat_map(|sample| sample.latent.iter().copied()).collect();
        let fingerprint = memory.fingerprint().clone();
        let mut monitor = DriftMonitor::new(config, fingerprint.dim, &latents)?;
        if let Some((window, batches)) = state {
            monitor = monitor.going_on(window, batches);
        }
        Ok(Self { fingerprint, memory: samples_of(memory), monitor })
    }

    /// What a file carries for this memory, if there is one.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(crate) fn check(memory: &Memory, path: &Path, key: Option<&Key>) -> Result<Option<(Adwin, u64)>> {
        if !path.exists() {
            return Ok(None);
        }
        let DriftState { fingerprint, memory: samples, window, batches, .. } = read(path, key)?;
        if !fingerprint.is_like(memory.fingerprint()) {
            let (own, other) = (fingerprint.shown(), memory.fingerprint().shown());
            return Err(refused(path, &format!("belongs to latents of {own}, and these are of {other}")));
        }
        if samples != samples_of(memory) {
            let reason = "belongs to other samples than the memory holds: some came, were forgotten or were dropped \
                          since, and distances to them do not compare";
            return Err(refused(path, reason));
        }
        Ok(Some((window, batches)))
    }

    /// Tests a batch of features `[rows, dim]`.
    ///
    /// # Errors
    /// As [`DriftMonitor::observe`].
    pub fn observe(&mut self, batch: &[f32]) -> Result<DriftVerdict> {
        self.monitor.observe(batch)
    }

    /// Writes the state, encrypted under `key` if there is one.
    ///
    /// # Errors
    /// An I/O error naming the file.
    pub fn save(&self, path: &Path, key: Option<&Key>) -> Result<()> {
        let (window, batches) = self.monitor.course();
        let state = DriftState {
            schema: SCHEMA,
            fingerprint: self.fingerprint.clone(),
            memory: self.memory.clone(),
            window: window.clone(),
            batches,
        };
        match key {
            None => Ok(file::write_json(path, &state)?),
            Some(key) => {
                let plain = serde_json::to_vec(&state).unwrap_or_default();
                Ok(file::write(path, &key.seal(&plain))?)
            }
        }
    }
}

fn read(path: &Path, key: Option<&Key>) -> Result<DriftState> {
    let wrong = |reason: String| Error::from(inarch_core::Error::malformed("drift state", path, reason));
    let bytes = opened(file::read(path)?, key, path)?;
    let value: Value = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
    if value.get("reference").is_some() && value.get("fingerprint").is_none() {
        let reason =
            "was written by an older version: it holds samples in clear, and does not say of which backbone they are";
        return Err(refused(path, reason));
    }
    let state: DriftState = serde_json::from_value(value).map_err(|error| wrong(error.to_string()))?;
    if state.schema != SCHEMA {
        let what = format!("format version of `{}`", path.display());
        return Err(inarch_core::Error::mismatch(what, SCHEMA, state.schema).into());
    }
    if !state.window.is_sound() {
        return Err(wrong("its window holds numbers that no batch leaves".into()));
    }
    Ok(state)
}

fn refused(path: &Path, reason: &str) -> Error {
    let path = path.display();
    Error::Refused(format!("refused: the drift state `{path}` {reason}; remove it, and the next run begins a new one"))
}

/// The identity of what a memory holds: ids and latents.
fn samples_of(memory: &Memory) -> Digest {
    let mut digest = DigestBuilder::default();
    for sample in memory.samples() {
        digest.piece(sample.id.as_bytes()).values(&sample.latent);
    }
    digest.finish()
}

#[cfg(test)]
mod tests {
    use inarch_core::{Digest, Seed};
    use serde_json::{Value, json};

    use super::{DriftConfig, DriftWatch};
    use crate::error::Error;
    use crate::memory::{Fingerprint, Key, Memory, MemoryConfig, Sample};

    const DIM: usize = 8;

    fn memory(backbone: &str) -> Memory {
        let digest = Digest::of(backbone.as_bytes());
        let print =
            Fingerprint { name: backbone.into(), backbone: digest.clone(), preprocess: digest, window: None, dim: DIM };
        let mut memory = Memory::new(MemoryConfig::default(), print).unwrap();
        let sample = |at: u64| Sample {
            id: format!("patient-{at}"),
            class: "a".into(),
            source: String::new(),
            time: at,
            weight: 1.0,
            latent: Seed::new(at).normals(DIM, 1.0),
            views: Vec::new(),
            image: None,
            scores: Vec::new(),
        };
        memory.offer((0..40).map(sample)).unwrap();
        memory
    }

    fn batch(seed: u64) -> Vec<f32> {
        Seed::new(1000 + seed).normals(30 * DIM, 1.0)
    }

    #[test]
    fn a_state_goes_on_alike_and_belongs_to_one_backbone_and_one_memory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("drift.json");
        let open = |memory: &Memory| DriftWatch::open(memory, DriftConfig::default(), Some(&path), None);
        let mut kept = memory("x");
        let mut watch = open(&kept).unwrap();
        watch.observe(&batch(1)).unwrap();
        watch.save(&path, None).unwrap();
        let mut again = open(&kept).unwrap();
        assert!(again == watch, "the state changed on its way through a file");
        assert_eq!(again.observe(&batch(2)).unwrap(), watch.observe(&batch(2)).unwrap());

        let refused = |memory: &Memory, word: &str| match open(memory) {
            Err(Error::Refused(text)) => assert!(text.contains(word) && text.contains("remove it"), "{text}"),
            other => panic!("{other:?}"),
        };
        // Of equal width, so that nothing else would tell.
        refused(&memory("y"), "backbone y");
        kept.remove(&["patient-3".to_string()]);
        refused(&kept, "forgotten");
        std::fs::write(&path, json!({ "config": {}, "dim": 8, "reference": [0.5], "mean": [0.5] }).to_string())
            .unwrap();
        refused(&memory("x"), "older version");
        std::fs::write(&path, "{").unwrap();
        assert!(matches!(open(&memory("x")), Err(Error::Core(_))));
    }

    #[test]
    fn a_state_holds_nothing_of_the_samples_and_is_encrypted_with_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("drift.json");
        let key = Key::create(&folder.path().join("key")).unwrap();
        let memory = memory("x");
        let mut watch = DriftWatch::open(&memory, DriftConfig::default(), None, None).unwrap();
        watch.observe(&batch(1)).unwrap();
        watch.save(&path, None).unwrap();
        let state: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let names: Vec<&String> = state.as_object().unwrap().keys().collect();
        assert_eq!(names, ["schema", "fingerprint", "memory", "window", "batches"]);
        assert!(!state.to_string().contains("patient"));
        // Thirty distances: five buckets of each size at most, far from forty latents.
        assert!(state["window"]["buckets"].as_array().unwrap().len() <= 20);

        watch.save(&path, Some(&key)).unwrap();
        let sealed = std::fs::read(&path).unwrap();
        assert!(!sealed.windows(7).any(|window| window == b"buckets"));
        let open = |key| DriftWatch::open(&memory, DriftConfig::default(), Some(&path), key);
        assert!(open(Some(&key)).unwrap() == watch);
        assert!(matches!(open(None), Err(Error::Sealed { .. })));
    }
}
