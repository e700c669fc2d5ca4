//! Where an adapter can enter a frozen tower, and how each place is called.

use std::fmt;

use super::pointwise::TrunkSite;

/// One of the two towers of a dual encoder. Where images and texts meet before there is a score
/// ([`Crossing`](super::Crossing)), the blocks in which they meet belong to the text tower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tower {
    /// Pixels to features.
    Image,
    /// Words to features.
    Text,
}

impl fmt::Display for Tower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Image => "image",
            Self::Text => "text",
        })
    }
}

/// How far a tower's frozen prefix reaches: the first point at which an adapter can change a value.
///
/// Ordered as data flows, so the entry of several adapters together is their minimum. Everything before the entry is a
/// function of the input alone and may be computed once, stored and shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entry {
    /// The map that enters block `i` of the image tower's convolutional trunk. A tower without one begins at
    /// [`Entry::Tokens`].
    Trunk(usize),
    /// The embedded input tokens: before positions in the text tower, before the first normalisation in the image tower.
    Tokens,
    /// The input of block `i`, before its token site. Block 0's token site belongs to [`Entry::Tokens`].
    Block(usize),
    /// After the last block: final normalisation, pooling and projection.
    Head,
    /// The projected features of frames, before those of a clip become one; image tower only.
    Pool,
    /// The pooled, projected feature.
    Feature,
    /// The tower is not touched at all.
    Never,
}

/// A block of a tower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockSite {
    /// The tower.
    pub tower: Tower,
    /// The block, counted from 0.
    pub block: usize,
}

impl BlockSite {
    /// Block `block` of `tower`.
    pub fn new(tower: Tower, block: usize) -> Self {
        Self { tower, block }
    }
}

/// Which linear projection of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Projection {
    /// Attention query.
    Query,
    /// Attention key.
    Key,
    /// Attention value.
    Value,
    /// Attention output.
    Output,
    /// Query of the attention to an image.
    CrossQuery,
    /// Key of an image.
    CrossKey,
    /// Value of an image.
    CrossValue,
    /// Output of the attention to an image.
    CrossOutput,
    /// First layer of the MLP.
    Up,
    /// Second layer of the MLP.
    Down,
}

impl Projection {
    /// All, in the order in which data meets them.
    pub const ALL: [Self; 10] = [
        Self::Query,
        Self::Key,
        Self::Value,
        Self::Output,
        Self::CrossQuery,
        Self::CrossKey,
        Self::CrossValue,
        Self::CrossOutput,
        Self::Up,
        Self::Down,
    ];

    /// The field's name for it, equal to the Hugging Face module name; those of the attention to an image stand below `cross`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Query => "q_proj",
            Self::Key => "k_proj",
            Self::Value => "v_proj",
            Self::Output => "out_proj",
            Self::CrossQuery => "cross.q_proj",
            Self::CrossKey => "cross.k_proj",
            Self::CrossValue => "cross.v_proj",
            Self::CrossOutput => "cross.out_proj",
            Self::Up => "fc1",
            Self::Down => "fc2",
        }
    }
}

/// A linear layer of a tower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinearSite {
    /// A pointwise convolution of the image tower's trunk: a linear layer over the channels of each place. Its tokens are the
    /// places of its map, row by row.
    Trunk(TrunkSite),
    /// A projection of a block.
    Block(BlockSite, Projection),
    /// The tower's projection into the shared space.
    Head(Tower),
}

impl fmt::Display for LinearSite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trunk(TrunkSite { block, layer }) => {
                write!(f, "{}.trunk.blocks.{block}.{}", Tower::Image, layer.name())
            }
            Self::Block(BlockSite { tower, block }, projection) => {
                write!(f, "{tower}.blocks.{block}.{}", projection.name())
            }
            Self::Head(tower) => write!(f, "{tower}.projection"),
        }
    }
}

impl LinearSite {
    /// The tower it is in.
    pub fn tower(self) -> Tower {
        match self {
            Self::Trunk(_) => Tower::Image,
            Self::Block(at, _) => at.tower,
            Self::Head(tower) => tower,
        }
    }
}

/// A layer normalisation of a tower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NormSite {
    /// Before the first block (image tower of CLIP only).
    Input(Tower),
    /// Before the attention of a block.
    Attention(BlockSite),
    /// Before the attention of a block to an image.
    Cross(BlockSite),
    /// Before the MLP of a block.
    Mlp(BlockSite),
    /// After the last block.
    Output(Tower),
}

impl NormSite {
    /// The tower it is in.
    pub fn tower(self) -> Tower {
        match self {
            Self::Input(tower) | Self::Output(tower) => tower,
            Self::Attention(at) | Self::Cross(at) | Self::Mlp(at) => at.tower,
        }
    }
}

impl fmt::Display for NormSite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(tower) => write!(f, "{tower}.pre_norm"),
            Self::Attention(BlockSite { tower, block }) => write!(f, "{tower}.blocks.{block}.norm1"),
            Self::Cross(BlockSite { tower, block }) => write!(f, "{tower}.blocks.{block}.cross.norm"),
            Self::Mlp(BlockSite { tower, block }) => write!(f, "{tower}.blocks.{block}.norm2"),
            Self::Output(tower) => write!(f, "{tower}.post_norm"),
        }
    }
}

/// The residual branch of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BranchSite {
    /// After self-attention, before its residual addition.
    Attention(BlockSite),
    /// After the attention to an image, before its residual addition.
    Cross(BlockSite),
    /// After the MLP, before its residual addition.
    Mlp(BlockSite),
}

impl BranchSite {
    /// The block it is in.
    pub fn block(self) -> BlockSite {
        match self {
            Self::Attention(at) | Self::Cross(at) | Self::Mlp(at) => at,
        }
    }
}
