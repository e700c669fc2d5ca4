//! Adapters of other programs: read as artifacts of this one, and written for Hugging Face PEFT.
//!
//! Nothing in a file is passed over: a tensor is learned, or frozen and then compared with the backbone, or the file is
//! refused.

mod clip_lora;
mod coop;
mod frozen;
mod import;
mod kohya;
mod maple;
mod names;
mod peft;
mod prompt_rows;
mod promptsrc;
mod tensors;
mod tip_adapter;

use std::path::Path;

use inarch_core::backbone::Backbone;

use crate::artifact::Artifact;
use crate::error::Result;

pub use import::{Import, ImportFormat, import};
pub use peft::{PEFT_CONFIG_FILE, PEFT_TENSORS_FILE, read_peft, write_peft};

/// Reads a folder that this program or Hugging Face PEFT wrote.
///
/// # Errors
/// As [`Artifact::load`] and [`read_peft`].
pub fn open_adapter(folder: &Path, backbone: &Backbone) -> Result<Artifact> {
    match folder.join(PEFT_CONFIG_FILE).is_file() {
        true => read_peft(folder, backbone),
        false => Artifact::load(folder, backbone),
    }
}
