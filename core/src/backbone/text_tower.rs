//! The causal text transformer of CLIP (Radford et al., 2021, arXiv 2103.00020).

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::nn::{LayerNorm, Linear};
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::block::{Block, BlockContext, linear, norm};
use super::parameter;
use super::partial::{Partial, Texts};
use super::site::{BlockSite, Entry, Frozen, LinearSite, NormSite, Pass, Sites, Tower};
use super::spec::TextSpec;
use super::state_dict::indices;
use super::stream::Stream;

/// Token ids `[batch, tokens]` to features `[batch, dim]`.
#[derive(Module, Debug)]
pub struct TextTower {
    /// `[vocabulary, width]`.
    pub token_embedding: Param<Tensor<2>>,
    /// `[context, width]`.
    pub position_embedding: Param<Tensor<2>>,
    /// The blocks.
    pub blocks: Vec<Block>,
    /// After the last block.
    pub final_norm: LayerNorm,
    /// Into the shared space, without bias.
    pub projection: Linear,
}

impl TextTower {
    pub(super) fn zeros(spec: &TextSpec, dim: usize, device: &Device) -> Self {
        let transformer = &spec.transformer;
        let width = transformer.width;
        Self {
            token_embedding: parameter::zeros(spec.vocabulary, width, device),
            position_embedding: Param::from_tensor(Tensor::zeros([spec.context, width], device)),
            blocks: (0..transformer.depth).map(|_| Block::zeros(transformer, device)).collect(),
            final_norm: parameter::layer_norm(width, transformer.epsilon(), device),
            projection: parameter::linear(width, dim, false, device),
        }
    }

    /// The frozen prefix of rows padded to `longest`. A causal tower cannot see what stands behind the end of a text: cutting
    /// at the longest row instead of the full context is exact.
    pub(super) fn start(
        &self,
        spec: &TextSpec,
        rows: &[&[u32]],
        longest: usize,
        texts: Texts,
        entry: Entry,
        device: &Device,
    ) -> Partial {
        let mut ids = Vec::with_capacity(rows.len() * longest);
        for row in rows {
            ids.extend(row.iter().map(|id| *id as i32));
            ids.resize(ids.len() + longest - row.len(), 0);
        }
        let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [rows.len() * longest]), device);
        let width = spec.transformer.width;
        let stream = self.token_embedding.val().select(0, ids).reshape([rows.len(), longest, width]);
        let partial = Partial::tokens(Entry::Tokens, Stream::whole(stream), Some(Arc::new(texts)));
        self.advance(spec, partial, entry, &Frozen, &Pass::evaluate())
    }

    /// Goes on from a frozen prefix to the stage `until`, through the adapter's sites.
    pub(super) fn advance(
        &self,
        spec: &TextSpec,
        partial: Partial,
        until: Entry,
        sites: &dyn Sites,
        pass: &Pass<'_>,
    ) -> Partial {
        let tower = Tower::Text;
        let texts = partial.texts.clone();
        let (ends, beginning) = texts.as_ref().map_or((&[][..], 0), |texts| (&texts.ends[..], texts.beginning));
        let pass = &Pass { ends: Some(ends), ..*pass };
        let shares = beginning > 1 && sites.shares_beginnings(pass.mode);
        let arrange = |stream: Tensor<3>| match shares && ends.len() > 1 {
            // A token site may repeat all texts, once for each image.
            true => Stream::split(stream.clone(), beginning, stream.dims()[0] / ends.len()),
            false => Stream::whole(stream),
        };
        let mut partial = partial;
        while partial.entry < until.min(Entry::Feature) {
            partial = match partial.entry {
                Entry::Tokens => {
                    let stream = partial.into_stream().into_whole();
                    let stream = sites.tokens(BlockSite { tower, block: 0 }, stream, pass);
                    let [_, tokens, _] = stream.dims();
                    let positions = self.position_embedding.val().narrow(0, 0, tokens);
                    Partial::tokens(Entry::Block(0), arrange(stream + positions.unsqueeze::<3>()), texts.clone())
                }
                Entry::Block(block) if block < self.blocks.len() => {
                    let at = BlockSite { tower, block };
                    let mut stream = partial.into_stream();
                    if stream.beginning.is_some() && !shares {
                        stream = Stream::whole(stream.into_whole());
                    }
                    if block > 0 && sites.touched().tokens {
                        stream = arrange(sites.tokens(at, stream.into_whole(), pass));
                    }
                    let last = block + 1 == self.blocks.len();
                    let context = BlockContext { at, spec: &spec.transformer, causal: true, sites, pass };
                    let stream = match stream.beginning {
                        None => Stream::whole(self.blocks[block].forward(stream.rest, false, context)),
                        Some(beginning) => {
                            let unread = last && until > Entry::Head;
                            self.blocks[block].forward_behind(beginning, stream.rest, unread, context)
                        }
                    };
                    let next = if last { Entry::Head } else { Entry::Block(block + 1) };
                    Partial::tokens(next, stream, texts.clone())
                }
                Entry::Block(_) => Partial::tokens(Entry::Head, partial.into_stream(), texts.clone()),
                Entry::Head => {
                    let stream = partial.into_stream();
                    let shared = stream.shared;
                    let end = pool(stream.rest, ends, shared);
                    let end = norm(&self.final_norm, NormSite::Output(tower), &spec.transformer, end, sites, pass);
                    let feature = linear(&self.projection, LinearSite::Head(tower), end, sites, pass);
                    Partial::feature(feature.squeeze_dim::<2>(1))
                }
                Entry::Feature | Entry::Never => break,
            };
        }
        partial
    }
}

/// The end-of-text token of each row: `[batch, tokens, width]` behind `shared` tokens to `[batch, 1, width]`. When an adapter repeats the rows
/// (one set of classes per image), the ends repeat with them.
fn pool(stream: Tensor<3>, ends: &[usize], shared: usize) -> Tensor<3> {
    let [batch, tokens, width] = stream.dims();
    let places = (0..batch).map(|row| row * tokens + ends[row % ends.len()] - shared);
    let places = indices(places, &stream.device());
    stream.reshape([batch * tokens, width]).select(0, places).reshape([batch, 1, width])
}
