//! Methods that change pooled features or the last projection; they need no towers, or only the end of one.

mod clap;
mod class_rows;
mod clip_adapter;
mod cross_modal;
mod linear_probe;
mod lp_plus_plus;
mod prolip;
mod taskres;
mod two_stage;

pub(crate) use class_rows::class_rows;

pub use clap::{Clap, ClapConfig};
pub use clip_adapter::{ClipAdapter, ClipAdapterConfig};
pub use cross_modal::{CrossModal, CrossModalConfig};
pub use linear_probe::{LinearProbe, LinearProbeConfig};
pub use lp_plus_plus::{LpPlusPlus, LpPlusPlusConfig};
pub use prolip::{ProLip, ProLipConfig};
pub use taskres::{TaskRes, TaskResConfig};
pub use two_stage::{TwoStage, TwoStageConfig};
