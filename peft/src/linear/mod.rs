//! Methods that change linear layers.

mod lora;
mod sites;

pub use lora::{Lora, LoraConfig};
pub(crate) use sites::selected;
pub use sites::{LinearSites, all_sites};
