//! The frozen backbone and the sites at which adapters enter it.

mod block;
mod dual_encoder;
mod embeddings;
mod frozen;
mod image_tower;
mod parameter;
mod partial;
mod site;
mod spec;
mod state_dict;
mod text_tower;

pub use block::Block;
pub use dual_encoder::DualEncoder;
pub use embeddings::TextFeatures;
pub use frozen::{Backbone, normalise};
pub use image_tower::ImageTower;
pub use partial::Partial;
pub use site::{
    Base, BlockSite, BranchSite, Entry, Frozen, LinearBase, LinearSite, Mode, NormBase, NormSite, Pass, Projection,
    Scores, Sites, Stack, Tower,
};
pub use spec::{Activation, BackboneSpec, ImageSpec, TextSpec, TransformerSpec};
pub use state_dict::{HostTensor, StateDict, values};
pub use text_tower::TextTower;
