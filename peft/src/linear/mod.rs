//! Methods that change linear layers.

mod boft;
mod dora;
mod eva;
mod factors;
mod fourier_ft;
mod ia3;
mod inputs;
mod loha;
mod lokr;
mod lora;
mod oft;
mod rotation;
mod sd_lora;
mod sites;
mod vera;

pub use boft::{Boft, BoftConfig};
pub use dora::{Dora, DoraConfig};
pub(crate) use factors::{check_dropout, check_finite, dropped};
pub use fourier_ft::{FourierFt, FourierFtConfig};
pub use ia3::{Ia3, Ia3Config};
pub use inputs::InputMoments;
pub use loha::{LoHa, LoHaConfig};
pub use lokr::{LoKr, LoKrConfig};
pub use lora::{Lora, LoraConfig, LoraInit, SitePattern};
pub use oft::{Oft, OftConfig};
pub use sd_lora::{SdLora, SdLoraConfig};
pub use sites::{LinearSites, all_sites};
pub(crate) use sites::{matches, selected_sites};
pub use vera::{Vera, VeraConfig};
