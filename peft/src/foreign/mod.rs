//! Adapters of other programs: Hugging Face PEFT folders.

mod config;
mod names;
mod peft_folder;

pub use peft_folder::{PEFT_CONFIG_FILE, PEFT_TENSORS_FILE, read_peft, write_peft};
