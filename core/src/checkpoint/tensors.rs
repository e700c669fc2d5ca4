//! Raw named tensors from safetensors files, shards and PyTorch files. Nothing in a file is ever executed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::Deserialize;

use super::layout::WEIGHT_FILES;
use super::torch::{TorchValue, read_torch};
use crate::backbone::{HostTensor, StateDict};
use crate::error::{Error, Result};
use crate::file::{self, Pieces};

/// Bytes before the header of a safetensors file, which say how long it is.
const COUNT: usize = size_of::<u64>();

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
        for (name, tensor) in read_safetensors(&folder.join(shard))?.0 {
            if tensors.insert(name.clone(), tensor).is_some() {
                let found = "a second one of the same name".into();
                return Err(Error::Tensor {
                    path: folder.join(shard),
                    name,
                    expected: "a tensor in one shard".into(),
                    found,
                });
            }
        }
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
    let mut file = TensorFile::open(path)?;
    let tensors = file.names().map(String::from).collect::<Vec<_>>();
    let tensors = tensors.into_iter().map(|name| Ok((name.clone(), file.read(&name)?))).collect::<Result<_>>()?;
    Ok((tensors, file.metadata))
}

/// A safetensors file that is read tensor by tensor, so that it is never in memory beside what is made of it.
pub struct TensorFile {
    file: Pieces,
    path: PathBuf,
    /// Where the tensors begin.
    start: u64,
    infos: BTreeMap<String, TensorInfo>,
    metadata: BTreeMap<String, String>,
}

impl TensorFile {
    /// Opens a file and checks its header against its length.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Malformed`] naming the file.
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = Pieces::open(path)?;
        let length = file.length();
        let cut = |reason: String| {
            let reason = format!("{reason} ({length} bytes found); it may be truncated: download or write it again");
            Error::Malformed { format: "safetensors file", path: path.to_path_buf(), reason }
        };
        let start = header_end(&mut file)?.ok_or_else(|| cut("no whole header".into()))?;
        let mut header = vec![0; start as usize - COUNT];
        file.read(COUNT as u64, &mut header)?;
        let header: Metadata = serde_json::from_slice(&header).map_err(|error| cut(error.to_string()))?;
        let infos: BTreeMap<String, TensorInfo> =
            header.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
        let end = infos.values().map(|info| info.data_offsets.1 as u64).max().unwrap_or(0);
        if start.checked_add(end) != Some(length) {
            return Err(cut(format!("{end} bytes of tensors should follow {start} of header")));
        }
        let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
        Ok(Self { file, path: path.to_path_buf(), start, infos, metadata })
    }

    /// The names of its tensors, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.infos.keys().map(String::as_str)
    }

    /// One tensor, as f32.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Malformed`] naming the file, also for a name that it does not have.
    pub fn read(&mut self, name: &str) -> Result<HostTensor> {
        let malformed = |reason| Error::Malformed { format: "safetensors file", path: self.path.clone(), reason };
        let info = self.infos.get(name).ok_or_else(|| malformed(format!("no tensor `{name}`")))?;
        let (from, to) = info.data_offsets;
        let data = floats(info.dtype, &mut self.file, self.start + from as u64, to - from)?.ok_or_else(|| {
            malformed(format!("tensor `{name}` has type {:?}; known are f16, bf16, f32, f64 and integers", info.dtype))
        })?;
        Ok(HostTensor { shape: info.shape.clone(), data, origin: name.into() })
    }
}

/// Where the tensors of a safetensors file begin; `None` if the file ends before.
fn header_end(file: &mut Pieces) -> Result<Option<u64>> {
    // The limit of the format's own reader.
    const LONGEST: u64 = 100_000_000;
    if file.length() < COUNT as u64 {
        return Ok(None);
    }
    let mut count = [0; COUNT];
    file.read(0, &mut count)?;
    let end = COUNT as u64 + u64::from_le_bytes(count).min(LONGEST);
    Ok(Some(end).filter(|end| *end <= file.length()))
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

/// `length` bytes of a type, little-endian, as f32; `None` for a type without a plain value.
fn floats(dtype: Dtype, file: &mut Pieces, from: u64, length: usize) -> Result<Option<Vec<f32>>> {
    if dtype == Dtype::F32 {
        // Straight to where they stay.
        let mut values = vec![0.0_f32; length / size_of::<f32>()];
        file.read(from, bytemuck::cast_slice_mut(&mut values))?;
        if cfg!(target_endian = "big") {
            values.iter_mut().for_each(|value| *value = f32::from_bits(value.to_bits().swap_bytes()));
        }
        return Ok(Some(values));
    }
    fn each<const N: usize>(bytes: &[u8], convert: impl Fn([u8; N]) -> f32) -> Vec<f32> {
        bytes.as_chunks::<N>().0.iter().map(|chunk| convert(*chunk)).collect()
    }
    let mut bytes = vec![0; length];
    file.read(from, &mut bytes)?;
    let bytes = &bytes;
    Ok(Some(match dtype {
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
        _ => return Ok(None),
    }))
}

/// The weights file of a folder, by the names that the ecosystem uses.
pub(super) fn find_weights(folder: &Path) -> Option<PathBuf> {
    WEIGHT_FILES.into_iter().map(|name| folder.join(name)).find(|path| path.is_file())
}
