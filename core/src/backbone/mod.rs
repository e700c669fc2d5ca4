//! The frozen backbone and the sites at which adapters enter it.

mod attention_pool;
mod batch;
mod block;
mod class_head;
mod cross;
mod crossing;
mod dual_encoder;
mod efficient_net;
mod embeddings;
mod frozen;
mod handle;
mod image_tower;
mod mixed;
mod parameter;
mod partial;
mod pass;
mod place;
mod pointwise;
mod pool;
mod resnet;
mod site;
mod slots;
mod spec;
mod stack;
mod state_dict;
mod stream;
mod sublayer;
mod text_tower;
mod trunk;

pub use attention_pool::{AttentionPool, Pool, QueryPool};
pub use block::Block;
pub use class_head::ClassHead;
pub use cross::{CrossAttention, MatchHead, WordHead};
pub use crossing::{Cross, Pairing};
pub use dual_encoder::DualEncoder;
pub use efficient_net::{EfficientNet, EfficientNetSpec, InvertedBottleneck, InvertedSpec, MapPool};
pub use embeddings::TextFeatures;
pub use frozen::{Backbone, normalise};
pub use handle::BackboneHandle;
pub use image_tower::{Embedding, ImageTower};
pub use mixed::Mixed;
pub use partial::Partial;
pub use pass::{Mode, Pass, Products};
pub use place::{BlockSite, BranchSite, Entry, LinearSite, NormSite, Projection, Tower};
pub use pointwise::{Pointwise, TrunkSite};
pub use pool::{Frames, PoolBase};
pub use resnet::{Bottleneck, Convolution, ResNet, ResNetSpec};
pub use site::{Base, Frozen, LinearBase, LinearChange, LowRank, NormBase, Scores, Sites, Touched};
pub use spec::{
    Activation, BackboneSpec, Crossing, ImagePool, ImageSpec, ImageStyle, Meeting, NormOrder, TextAttention, TextPool,
    TextProjection, TextSpec, TextStyle, TransformerSpec,
};
pub use stack::Stack;
pub use state_dict::{HostTensor, StateDict, indices, values};
pub use sublayer::SublayerBase;
pub use text_tower::TextTower;
pub use trunk::TrunkSpec;
