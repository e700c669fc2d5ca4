//! PyTorch checkpoints, read as data: nothing in a file is executed, imported or looked up.
//!
//! A checkpoint is a container (a zip archive, or the older stream of pickles) around a pickle, and the bytes of its
//! tensors. [`pickle`] runs the few instructions that build plain values, [`globals`] lists every name that such a file may
//! mention, [`archive`] finds the bytes, [`value`] joins them. A name outside of the list ends the reading and is given in
//! the error. Memory is bounded by the size of the file: values cannot be repeated into more than it holds.

mod archive;
mod globals;
mod pickle;
mod value;

use std::path::Path;

pub use value::TorchValue;

use crate::error::{Error, Result};
use crate::file;

const FORMAT: &str = "PyTorch checkpoint";
const ADVICE: &str = "expected tensors, numbers and texts in plain containers; TorchScript archives and pickled objects are \
                      not opened: save `model.state_dict()`, or safetensors, instead";

/// Reads a PyTorch file (`.pt`, `.pth`, `.bin`, `.pth.tar-N`), whatever it holds: tensors, numbers and texts in
/// dictionaries and lists. Tensors come as f32.
///
/// # Errors
/// [`Error::Io`]; [`Error::Malformed`] for a damaged file, a container that is not known, or a name that is not allowed.
pub fn read_torch(path: &Path) -> Result<TorchValue> {
    let bytes = file::read(path)?;
    read(&bytes).map_err(|reason| Error::malformed(FORMAT, path, format!("{reason}; {ADVICE}")))
}

fn read(bytes: &[u8]) -> Result<TorchValue, String> {
    let (pickle, storages) = archive::open(bytes)?;
    value::build(&pickle, &storages, bytes.len())
}
