//! The vision transformer of CLIP (Radford et al., 2021, arXiv 2103.00020; Dosovitskiy et al., 2021, arXiv 2010.11929).

use burn::module::{Module, Param};
use burn::nn::{LayerNorm, Linear};
use burn::tensor::{Device, Tensor};

use super::block::{Block, BlockContext, linear, norm};
use super::parameter;
use super::partial::Partial;
use super::site::{BlockSite, Entry, Frozen, LinearSite, NormSite, Pass, Sites, Tower};
use super::spec::ImageSpec;
use super::stream::Stream;

/// Pixels `[batch, 3, size, size]` to features `[batch, dim]`.
#[derive(Module, Debug)]
pub struct ImageTower {
    /// Patch embedding as a linear layer over `channel, row, column` of a patch: `[3 * patch * patch, width]`.
    pub patch_embedding: Linear,
    /// The class token, `[width]`.
    pub class_embedding: Param<Tensor<1>>,
    /// Learned positions, `[tokens, width]`.
    pub position_embedding: Param<Tensor<2>>,
    /// Before the first block.
    pub pre_norm: LayerNorm,
    /// The blocks.
    pub blocks: Vec<Block>,
    /// On the class token, after the last block.
    pub post_norm: LayerNorm,
    /// Into the shared space, without bias.
    pub projection: Linear,
}

impl ImageTower {
    pub(super) fn zeros(spec: &ImageSpec, dim: usize, device: &Device) -> Self {
        let transformer = &spec.transformer;
        let width = transformer.width;
        Self {
            patch_embedding: parameter::linear(3 * spec.patch * spec.patch, width, false, device),
            class_embedding: Param::from_tensor(Tensor::zeros([width], device)),
            position_embedding: Param::from_tensor(Tensor::zeros([spec.tokens(), width], device)),
            pre_norm: parameter::layer_norm(width, transformer.epsilon(), device),
            blocks: (0..transformer.depth).map(|_| Block::zeros(transformer, device)).collect(),
            post_norm: parameter::layer_norm(width, transformer.epsilon(), device),
            projection: parameter::linear(width, dim, false, device),
        }
    }

    /// Embeds pixels: `[batch, 3, size, size]` to `[batch, tokens, width]`, positions added.
    fn embed(&self, spec: &ImageSpec, pixels: Tensor<4>) -> Tensor<3> {
        let [batch, _, _, _] = pixels.dims();
        let (grid, patch, width) = (spec.grid(), spec.patch, spec.transformer.width);
        // A convolution whose stride is its kernel is one matrix product over unfolded patches.
        let patches = pixels.reshape([batch, 3, grid, patch, grid, patch]).permute([0, 2, 4, 1, 3, 5]).reshape([
            batch,
            grid * grid,
            3 * patch * patch,
        ]);
        let patches = self.patch_embedding.forward(patches);
        let class = self.class_embedding.val().reshape([1, 1, width]).expand([batch, 1, width]);
        Tensor::cat(vec![class, patches], 1) + self.position_embedding.val().unsqueeze::<3>()
    }

    /// The frozen prefix: everything before `entry`.
    pub(super) fn start(&self, spec: &ImageSpec, pixels: Tensor<4>, entry: Entry) -> Partial {
        let stream = self.embed(spec, pixels);
        self.advance(
            spec,
            Partial::tokens(Entry::Tokens, Stream::whole(stream), None),
            entry,
            &Frozen,
            &Pass::evaluate(),
        )
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
        let mut partial = partial;
        while partial.entry < until.min(Entry::Feature) {
            partial = match partial.entry {
                Entry::Tokens => {
                    let stream = sites.tokens(BlockSite { tower, block: 0 }, partial.into_stream().rest, pass);
                    let stream = norm(&self.pre_norm, NormSite::Input(tower), &spec.transformer, stream, sites, pass);
                    Partial::tokens(Entry::Block(0), Stream::whole(stream), None)
                }
                Entry::Block(block) if block < self.blocks.len() => {
                    let at = BlockSite { tower, block };
                    let mut stream = partial.into_stream().rest;
                    if block > 0 {
                        stream = sites.tokens(at, stream, pass);
                    }
                    let context = BlockContext { at, spec: &spec.transformer, causal: false, sites, pass };
                    let last = block + 1 == self.blocks.len();
                    let stream = self.blocks[block].forward(stream, last && !sites.needs_all_tokens(tower), context);
                    let next = if last { Entry::Head } else { Entry::Block(block + 1) };
                    Partial::tokens(next, Stream::whole(stream), None)
                }
                Entry::Block(_) => Partial::tokens(Entry::Head, partial.into_stream(), None),
                Entry::Head => {
                    let class = partial.into_stream().rest.narrow(1, 0, 1);
                    let class = norm(&self.post_norm, NormSite::Output(tower), &spec.transformer, class, sites, pass);
                    let feature = linear(&self.projection, LinearSite::Head(tower), class, sites, pass);
                    Partial::feature(feature.squeeze_dim::<2>(1))
                }
                Entry::Feature | Entry::Never => break,
            };
        }
        partial
    }
}
