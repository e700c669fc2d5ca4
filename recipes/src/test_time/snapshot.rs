//! The state of a stream on disk: one safetensors file, whole or absent.

use std::collections::BTreeMap;
use std::path::Path;

use inarch_core::backbone::StateDict;
use inarch_core::checkpoint::{Precision, encode_safetensors, read_safetensors};
use inarch_core::{Digest, file};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::guard::Guard;
use super::method::{MethodState, TestTimeMethod};
use crate::error::Result;

/// The version of the format.
const SCHEMA: u32 = 1;
/// Where the header holds everything that is no tensor.
const KEY: &str = "inarch-test-time";

/// Everything that a stream remembers.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// What is no tensor.
    pub head: SnapshotHead,
    /// The method's tensors.
    pub tensors: StateDict,
}

/// What of a snapshot is no tensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotHead {
    /// Version of the format.
    pub schema: u32,
    /// The method and its settings.
    pub method: TestTimeMethod,
    /// The backbone's identity.
    pub backbone: Digest,
    /// The mean of the class features, which tells adapters and templates apart, `[dim]`.
    pub texts: Vec<f32>,
    /// The classes.
    pub classes: Vec<String>,
    /// Images seen.
    pub position: u64,
    /// The guard's window.
    pub guard: Guard,
    /// The method's numbers and names.
    pub values: BTreeMap<String, Value>,
}

impl SnapshotHead {
    /// A head of the present format.
    pub(super) fn new(
        method: TestTimeMethod,
        backbone: Digest,
        texts: Vec<f32>,
        classes: Vec<String>,
        position: u64,
        guard: Guard,
    ) -> Self {
        Self { schema: SCHEMA, method, backbone, texts, classes, position, guard, values: BTreeMap::new() }
    }
}

impl Snapshot {
    pub(super) fn new(head: SnapshotHead, state: MethodState) -> Self {
        Self { head: SnapshotHead { values: state.values, ..head }, tensors: state.tensors }
    }

    /// The method's part.
    pub(super) fn state(&self) -> MethodState {
        MethodState { tensors: self.tensors.clone(), values: self.head.values.clone() }
    }

    /// The bytes of its file.
    ///
    /// # Errors
    /// A value that JSON cannot hold.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let fault = |error: serde_json::Error| inarch_core::Error::invalid("test-time state", error.to_string());
        let head = serde_json::to_string(&self.head).map_err(fault)?;
        let metadata = BTreeMap::from([(KEY.to_string(), head)]);
        Ok(encode_safetensors(&self.tensors, metadata, Precision::F32)?)
    }

    /// Writes it.
    ///
    /// # Errors
    /// As [`encode`](Self::encode), and an I/O error.
    pub fn write(&self, path: &Path) -> Result<()> {
        Ok(file::write(path, &self.encode()?)?)
    }

    /// Reads it.
    ///
    /// # Errors
    /// A file that is missing, damaged or of another kind or version.
    pub fn read(path: &Path) -> Result<Self> {
        let malformed = |reason: String| inarch_core::Error::malformed("test-time state", path, reason);
        let (tensors, metadata) = read_safetensors(path)?;
        let head = metadata.get(KEY).ok_or_else(|| malformed(format!("its header has no `{KEY}`")))?;
        let head: SnapshotHead = serde_json::from_str(head).map_err(|error| malformed(error.to_string()))?;
        if head.schema != SCHEMA {
            return Err(malformed(format!("version {} is not {SCHEMA}, the one that is read", head.schema)).into());
        }
        if let Some((name, _)) = tensors.iter().find(|(_, tensor)| tensor.data.iter().any(|value| !value.is_finite())) {
            return Err(malformed(format!("`{name}` holds a value that is not finite")).into());
        }
        Ok(Self { head, tensors })
    }
}
