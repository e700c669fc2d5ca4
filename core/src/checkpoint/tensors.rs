//! Raw named tensors from safetensors files, shards and PyTorch files. Nothing in a file is ever executed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use super::torch::{TorchValue, read_torch};
use crate::backbone::{HostTensor, StateDict};
use crate::error::{Error, Result};
use crate::file;

#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

/// Reads every tensor of a `.safetensors` file, a `.safetensors.index.json` with its shards, or a PyTorch `.pt`, `.pth`
/// or `.bin` file (tensors and plain containers only).
///
/// # Errors
/// [`Error::Io`] or [`Error::Malformed`] naming the file.
pub fn read_tensors(path: &Path) -> Result<StateDict> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if name.ends_with(".index.json") {
        return read_shards(path);
    }
    if name.ends_with(".safetensors") {
        return Ok(read_safetensors(path)?.0);
    }
    read_torch_tensors(path)
}

fn read_shards(path: &Path) -> Result<StateDict> {
    let index: ShardIndex = file::read_json(path, "safetensors index")?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut tensors = StateDict::new();
    let mut shards: Vec<&String> = index.weight_map.values().collect();
    shards.sort();
    shards.dedup();
    for shard in shards {
        // A shard is a plain file name; anything else could lead out of the folder.
        if Path::new(shard).file_name().is_none_or(|name| name != shard.as_str()) {
            return Err(Error::malformed("safetensors index", path, format!("`{shard}` is not a file name")));
        }
        tensors.extend(read_safetensors(&folder.join(shard))?.0);
    }
    for (name, shard) in &index.weight_map {
        if !tensors.contains_key(name) {
            return Err(Error::Tensor {
                path: folder.join(shard),
                name: name.clone(),
                expected: "a tensor listed in the index".into(),
                found: "no such tensor".into(),
            });
        }
    }
    Ok(tensors)
}

/// Reads one safetensors file: its tensors, as f32, and its metadata.
///
/// # Errors
/// [`Error::Io`] or [`Error::Malformed`] naming the file.
pub fn read_safetensors(path: &Path) -> Result<(StateDict, BTreeMap<String, String>)> {
    let bytes = file::read(path)?;
    let malformed = |reason: String| Error::Malformed { format: "safetensors file", path: path.to_path_buf(), reason };
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| {
        malformed(format!("{error} ({} bytes found); it may be truncated: download or write it again", bytes.len()))
    })?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| malformed(error.to_string()))?;
    let mut tensors = StateDict::new();
    for (name, view) in file.iter() {
        let data = floats(view.dtype(), view.data()).ok_or_else(|| {
            malformed(format!(
                "tensor `{name}` has type {:?}; known are f16, bf16, f32, f64 and integers",
                view.dtype()
            ))
        })?;
        tensors.insert(name.into(), HostTensor { shape: view.shape().to_vec(), data, origin: name.into() });
    }
    let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
    Ok((tensors, metadata))
}

/// The tensors of a PyTorch file: those of its state dict, where it has one among other things.
fn read_torch_tensors(path: &Path) -> Result<StateDict> {
    let mut value = read_torch(path)?;
    for key in ["state_dict", "model_state_dict", "model"] {
        if let TorchValue::Dict(entries) = &mut value
            && matches!(entries.get(key), Some(TorchValue::Dict(_)))
            && let Some(inner) = entries.remove(key)
        {
            value = inner;
            break;
        }
    }
    let found = value.into_tensors();
    if found.is_empty() {
        return Err(Error::malformed("PyTorch checkpoint", path, "it holds no tensors; save `model.state_dict()`"));
    }
    // Data-parallel training leaves a prefix on every name.
    let canonical = |name: &str| name.strip_prefix("module.").unwrap_or(name).to_string();
    Ok(found.into_iter().map(|(name, tensor)| (canonical(&name), tensor)).collect())
}

/// Little-endian bytes of a type as f32; `None` for a type without a plain value.
fn floats(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    fn each<const N: usize>(bytes: &[u8], convert: impl Fn([u8; N]) -> f32) -> Vec<f32> {
        bytes.as_chunks::<N>().0.iter().map(|chunk| convert(*chunk)).collect()
    }
    Some(match dtype {
        Dtype::F32 => each(bytes, f32::from_le_bytes),
        Dtype::F16 => each(bytes, |chunk| f16::from_le_bytes(chunk).to_f32()),
        Dtype::BF16 => each(bytes, |chunk| bf16::from_le_bytes(chunk).to_f32()),
        Dtype::F64 => each(bytes, |chunk| f64::from_le_bytes(chunk) as f32),
        Dtype::I64 => each(bytes, |chunk| i64::from_le_bytes(chunk) as f32),
        Dtype::I32 => each(bytes, |chunk| i32::from_le_bytes(chunk) as f32),
        Dtype::I16 => each(bytes, |chunk| f32::from(i16::from_le_bytes(chunk))),
        Dtype::U64 => each(bytes, |chunk| u64::from_le_bytes(chunk) as f32),
        Dtype::U32 => each(bytes, |chunk| u32::from_le_bytes(chunk) as f32),
        Dtype::U16 => each(bytes, |chunk| f32::from(u16::from_le_bytes(chunk))),
        Dtype::I8 => each(bytes, |chunk: [u8; 1]| f32::from(chunk[0] as i8)),
        Dtype::U8 | Dtype::BOOL => each(bytes, |chunk: [u8; 1]| f32::from(chunk[0])),
        _ => return None,
    })
}

/// The weights file of a folder, by the names that the ecosystem uses.
pub(super) fn find_weights(folder: &Path) -> Option<PathBuf> {
    [
        "model.safetensors",
        "model.safetensors.index.json",
        "open_clip_model.safetensors",
        "open_clip_pytorch_model.bin",
        "pytorch_model.bin",
        "model.pt",
    ]
    .into_iter()
    .map(|name| folder.join(name))
    .find(|path| path.is_file())
}
