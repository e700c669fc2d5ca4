//! Files to backbones and back.

mod batch_norm;
mod embeddings;
mod hf;
mod layout;
mod open;
mod open_clip;
mod openai;
mod openai_resnet;
mod tensors;
mod torch;
mod write;

pub use embeddings::{LOGIT_SCALE_KEY, open_embeddings};
pub use layout::{COMPANION_FILES, WEIGHT_FILES, check_family};
pub use open::open_backbone;
pub use openai::to_canonical as from_openai;
pub use tensors::{TensorFile, read_safetensors, read_tensors};
pub use torch::{TorchValue, read_torch};
pub use write::{Precision, encode_safetensors, write_backbone};
