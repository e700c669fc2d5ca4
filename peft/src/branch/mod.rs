//! Methods that add to the residual branches of blocks.

mod bottleneck;
mod compacter;
mod mma;
mod sites;

pub use bottleneck::{AdaptFormerConfig, Behind, Beside, HoulsbyConfig, PfeifferConfig};
pub use compacter::{Compacter, CompacterConfig};
pub use mma::{Mma, MmaConfig};
pub use sites::{BranchSites, BranchTargets};
