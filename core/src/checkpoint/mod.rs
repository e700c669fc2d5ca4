//! Files to backbones and back.

mod open;
mod openai;
mod tensors;
mod write;

pub use open::open_backbone;
pub use tensors::{read_safetensors, read_tensors};
pub use write::{Precision, encode_safetensors, write_backbone};
