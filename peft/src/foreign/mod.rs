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

pub use import::{Import, ImportFormat, import};
pub use peft::{PEFT_CONFIG_FILE, PEFT_TENSORS_FILE, read_peft, write_peft};
