//! The frozen backbone and the sites at which adapters enter it.

mod batch;
mod block;
mod dual_encoder;
mod embeddings;
mod frozen;
mod handle;
mod image_tower;
mod mixed;
mod parameter;
mod partial;
mod site;
mod spec;
mod stack;
mod state_dict;
mod stream;
mod text_tower;

pub use block::Block;
pub use dual_encoder::DualEncoder;
pub use embeddings::TextFeatures;
pub use frozen::{Backbone, normalise};
pub use handle::BackboneHandle;
pub use image_tower::ImageTower;
pub use mixed::Mixed;
pub use partial::Partial;
pub use site::{
    Base, BlockSite, BranchSite, Entry, Frozen, LinearBase, LinearChange, LinearSite, LowRank, Mode, NormBase,
    NormSite, Pass, Projection, Scores, Sites, Touched, Tower,
};
pub use spec::{Activation, BackboneSpec, ImageSpec, TextSpec, TransformerSpec};
pub use stack::Stack;
pub use state_dict::{HostTensor, StateDict, indices, values};
pub use text_tower::TextTower;
