//! Methods that add to the residual branches of blocks.

mod bottleneck;
mod compacter;
mod mma;
mod moe;
mod sites;

pub(crate) use bottleneck::Bottleneck;
pub use bottleneck::{AdaptFormerConfig, Behind, Beside, HoulsbyConfig, PfeifferConfig};
pub use compacter::{Compacter, CompacterConfig};
pub use mma::{Mma, MmaConfig};
pub use moe::{ExpertUse, MoeAdapters, MoeAdaptersConfig};
pub use sites::{BranchSites, BranchTargets};
