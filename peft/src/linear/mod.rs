//! Methods that change linear layers.

mod dora;
mod eva;
mod factors;
mod ia3;
mod lora;
mod sites;
mod vera;

pub use dora::{Dora, DoraConfig};
pub use ia3::{Ia3, Ia3Config};
pub use lora::{Lora, LoraConfig, LoraInit, SitePattern};
pub use sites::{LinearSites, all_sites};
pub(crate) use sites::{matches, selected_sites};
pub use vera::{Vera, VeraConfig};
