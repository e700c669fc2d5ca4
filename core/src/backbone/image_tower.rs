//! The vision transformer (Dosovitskiy et al., 2021, arXiv 2010.11929) as CLIP (Radford et al., 2021, arXiv 2103.00020), SigLIP,
//! ViT, DeiT and DINOv2 have it, and CLIP's ResNets and ALIGN's EfficientNet, which are towers of no blocks behind a convolutional
//! trunk; [`ImageStyle`](super::ImageStyle) says in what they differ.

use burn::module::{Module, Param};
use burn::nn::{LayerNorm, Linear};
use burn::tensor::{Device, Tensor};

use super::attention_pool::{AttentionPool, Pool, QueryPool};
use super::block::{Block, BlockContext, Seen, linear, norm};
use super::efficient_net::{EfficientNet, token_of};
use super::parameter;
use super::partial::Partial;
use super::pass::Pass;
use super::place::{BlockSite, Entry, LinearSite, NormSite, Tower};
use super::pointwise::{TrunkContext, as_places};
use super::pool::{Frames, pooled};
use super::resnet::ResNet;
use super::site::{Frozen, Sites};
use super::spec::{ImagePool, ImageSpec};
use super::stream::Stream;
use super::trunk::TrunkSpec;

/// Pixels `[batch, 3, size, size]` to features `[batch, dim]`.
#[derive(Module, Debug)]
pub struct ImageTower {
    /// What makes tokens of pixels.
    pub embedding: Embedding,
    /// The tokens before the patches, each `[width]`; the first is the class token.
    pub class_embeddings: Vec<Param<Tensor<1>>>,
    /// Learned positions, `[tokens, width]`, where there are places.
    pub position_embedding: Option<Param<Tensor<2>>>,
    /// Before the first block.
    pub pre_norm: Option<LayerNorm>,
    /// The blocks.
    pub blocks: Vec<Block>,
    /// After the last block.
    pub post_norm: Option<LayerNorm>,
    /// What makes one token of all, where that is not the class token.
    pub pool: Option<Pool>,
    /// Into the shared space.
    pub projection: Option<Linear>,
}

/// What makes tokens of pixels.
#[derive(Module, Debug)]
pub enum Embedding {
    /// A linear layer over `channel, row, column` of a patch: `[channels * patch * patch, width]`.
    Patches(Linear),
    /// A convolutional trunk, whose places are tokens behind their mean.
    Trunk(ResNet),
    /// One whose last map is pooled into one token.
    EfficientNet(EfficientNet),
}

impl ImageTower {
    pub(super) fn zeros(spec: &ImageSpec, dim: usize, device: &Device) -> Self {
        let (transformer, style) = (&spec.transformer, &spec.style);
        let width = transformer.width;
        let norm = || parameter::layer_norm(width, transformer.epsilon(), device);
        let token = |_| parameter::zeros([width], device);
        let (embedding, trained) = match &style.trunk {
            Some(TrunkSpec::ResNet(trunk)) => (Embedding::Trunk(ResNet::zeros(trunk, device)), 0),
            Some(TrunkSpec::EfficientNet(trunk)) => (Embedding::EfficientNet(EfficientNet::zeros(trunk, device)), 0),
            None => {
                let patches = parameter::linear(spec.patch_values(), width, style.patch_bias, device);
                (Embedding::Patches(patches), style.class_tokens)
            }
        };
        Self {
            embedding,
            class_embeddings: (0..trained).map(token).collect(),
            position_embedding: (!style.trunk.as_ref().is_some_and(TrunkSpec::pools))
                .then(|| parameter::zeros([spec.tokens(), width], device)),
            pre_norm: style.pre_norm.then(norm),
            blocks: (0..transformer.depth).map(|_| Block::zeros(transformer, device)).collect(),
            post_norm: (style.trunk.is_none() && transformer.depth > 0).then(norm),
            pool: match style.pool {
                ImagePool::Class | ImagePool::Tokens => None,
                ImagePool::Attention => Some(Pool::Attention(AttentionPool::zeros(transformer, device))),
                ImagePool::Query => Some(Pool::Query(QueryPool::zeros(width, device))),
            },
            projection: style.projection.then(|| parameter::linear(width, dim, style.trunk.is_some(), device)),
        }
    }

    /// Begins with pixels, `[batch, 3, size, size]`: the map that enters a trunk, or tokens.
    fn begin(&self, spec: &ImageSpec, pixels: Tensor<4>) -> Partial {
        let pixels = if spec.style.channels == 1 { pixels.mean_dim(1) } else { pixels };
        match &self.embedding {
            Embedding::Patches(layer) => {
                let tokens = self.embed(spec, layer, pixels);
                Partial::tokens(Entry::Tokens, Stream::whole(tokens), None)
            }
            Embedding::Trunk(trunk) => Partial::map(0, trunk.begin(pixels)),
            Embedding::EfficientNet(trunk) => Partial::map(0, trunk.begin(pixels)),
        }
    }

    /// Tokens `[batch, tokens, width]` with their positions.
    fn placed(&self, tokens: Tensor<3>) -> Tensor<3> {
        match &self.position_embedding {
            Some(positions) => tokens + positions.val().unsqueeze::<3>(),
            None => tokens,
        }
    }

    /// The last map of a trunk as tokens, positions added.
    fn tokens_of(&self, spec: &ImageSpec, map: Tensor<4>) -> Tensor<3> {
        match &spec.style.trunk {
            Some(TrunkSpec::EfficientNet(sizes)) => self.placed(token_of(map, sizes.pool).unsqueeze_dim::<3>(1)),
            Some(TrunkSpec::ResNet(_)) | None => {
                let places = as_places(map);
                self.placed(Tensor::cat(vec![places.clone().mean_dim(1), places], 1))
            }
        }
    }

    /// Embeds patches: `[batch, channels, size, size]` to `[batch, tokens, width]`, positions added.
    fn embed(&self, spec: &ImageSpec, layer: &Linear, pixels: Tensor<4>) -> Tensor<3> {
        let [batch, channels, _, _] = pixels.dims();
        let (grid, patch, width) = (spec.grid(), spec.patch, spec.transformer.width);
        // A convolution whose stride is its kernel is one matrix product over unfolded patches.
        let patches = pixels
            .reshape([batch, channels, grid, patch, grid, patch])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([batch, grid * grid, spec.patch_values()]);
        let token = |token: &Param<Tensor<1>>| token.val().reshape([1, 1, width]).expand([batch, 1, width]);
        let mut tokens: Vec<Tensor<3>> = self.class_embeddings.iter().map(token).collect();
        tokens.push(layer.forward(patches));
        self.placed(Tensor::cat(tokens, 1))
    }

    /// The frozen prefix of images, or of clips of so many frames: everything before `entry`.
    pub(super) fn start(&self, spec: &ImageSpec, pixels: Tensor<4>, frames: Frames, entry: Entry) -> Partial {
        self.advance(spec, self.begin(spec, pixels), entry, &Frozen, &Pass { frames, ..Pass::evaluate() })
    }

    /// Goes on from a frozen prefix to the stage `until`, through the adapter's sites.
    pub(super) fn advance(
        &self,
        spec: &ImageSpec,
        partial: Partial,
        until: Entry,
        sites: &dyn Sites,
        pass: &Pass<'_>,
    ) -> Partial {
        let tower = Tower::Image;
        let all = spec.style.pool == ImagePool::Tokens;
        let mut partial = partial;
        while partial.entry < until.min(Entry::Feature) {
            partial = match partial.entry {
                Entry::Trunk(block) if block < self.embedding.blocks() => {
                    let context = TrunkContext { block, sites, pass };
                    let map = self.embedding.step(spec.style.trunk.as_ref(), partial.into_map(), context);
                    Partial::map(block + 1, map)
                }
                Entry::Trunk(_) => {
                    let tokens = self.tokens_of(spec, partial.into_map());
                    Partial::tokens(Entry::Tokens, Stream::whole(tokens), None)
                }
                Entry::Tokens => {
                    let mut stream = sites.tokens(BlockSite { tower, block: 0 }, partial.into_stream().rest, pass);
                    if let Some(pre_norm) = &self.pre_norm {
                        stream = norm(pre_norm, NormSite::Input(tower), &spec.transformer, stream, sites, pass);
                    }
                    Partial::tokens(Entry::Block(0), Stream::whole(stream), None)
                }
                Entry::Block(block) if block < self.blocks.len() => {
                    let at = BlockSite { tower, block };
                    let mut stream = partial.into_stream().rest;
                    if block > 0 {
                        stream = sites.tokens(at, stream, pass);
                    }
                    let (seen, images) = (Seen::All, None);
                    let context = BlockContext { at, spec: &spec.transformer, seen, images, sites, pass };
                    let last = block + 1 == self.blocks.len();
                    let first_only = last && self.pool.is_none() && !all && !sites.needs_all_tokens(tower);
                    let stream = self.blocks[block].forward(stream, first_only, context);
                    let next = if last { Entry::Head } else { Entry::Block(block + 1) };
                    Partial::tokens(next, Stream::whole(stream), None)
                }
                Entry::Block(_) => Partial::tokens(Entry::Head, partial.into_stream(), None),
                Entry::Head => {
                    let stream = partial.into_stream().rest;
                    let [rows, count, width] = stream.dims();
                    // Tokens that an adapter has added at the end are not pooled, but meet the text with the others.
                    let own = match all {
                        true => count,
                        false if self.pool.is_some() => spec.tokens(),
                        false => 1,
                    };
                    let mut tokens = stream.narrow(1, 0, own);
                    if let Some(post_norm) = &self.post_norm {
                        tokens = norm(post_norm, NormSite::Output(tower), &spec.transformer, tokens, sites, pass);
                    }
                    let pooled = match &self.pool {
                        Some(Pool::Attention(pool)) => pool.forward(&spec.transformer, tokens),
                        Some(Pool::Query(pool)) => pool.forward(spec.transformer.heads, tokens),
                        None if all => tokens.reshape([rows, 1, own * width]),
                        None => tokens,
                    };
                    let feature = match &self.projection {
                        Some(projection) => linear(projection, LinearSite::Head(tower), pooled, sites, pass),
                        None => pooled,
                    };
                    Partial::frames(feature.squeeze_dim::<2>(1))
                }
                Entry::Pool => match partial.into_feature() {
                    Some(features) => Partial::feature(pooled(features, sites, pass)),
                    None => unreachable!("frames were projected"),
                },
                Entry::Feature | Entry::Never => break,
            };
        }
        partial
    }
}
