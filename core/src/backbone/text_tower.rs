//! The causal text transformer of CLIP (Radford et al., 2021, arXiv 2103.00020).

use burn::module::{Module, Param};
use burn::nn::{LayerNorm, Linear};
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::block::{Block, BlockContext, linear, norm};
use super::parameter;
use super::partial::Partial;
use super::site::{BlockSite, Entry, Frozen, LinearSite, NormSite, Pass, Sites, Tower};
use super::spec::TextSpec;

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
            token_embedding: Param::from_tensor(Tensor::zeros([spec.vocabulary, width], device)),
            position_embedding: Param::from_tensor(Tensor::zeros([spec.context, width], device)),
            blocks: (0..transformer.depth).map(|_| Block::zeros(transformer, device)).collect(),
            final_norm: parameter::layer_norm(width, transformer.epsilon(), device),
            projection: parameter::linear(width, dim, false, device),
        }
    }

    /// The frozen prefix. Rows shorter than the longest are padded, which a causal tower cannot see before the end of
    /// the text: cutting at the longest row instead of the full context is exact.
    pub(super) fn start(&self, spec: &TextSpec, rows: &[Vec<u32>], entry: Entry, device: &Device) -> Partial {
        let longest = rows.iter().map(Vec::len).max().unwrap_or(1).max(1);
        let ends: Vec<usize> = rows.iter().map(|row| row.len().max(1) - 1).collect();
        let mut ids = Vec::with_capacity(rows.len() * longest);
        for row in rows {
            ids.extend(row.iter().map(|id| *id as i32));
            ids.resize(ids.len() + longest - row.len(), 0);
        }
        let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [rows.len() * longest]), device);
        let width = spec.transformer.width;
        let stream = self.token_embedding.val().select(0, ids).reshape([rows.len(), longest, width]);
        let partial = Partial::tokens(Entry::Tokens, stream, Some(ends));
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
        let mut partial = partial;
        while partial.entry < until.min(Entry::Feature) {
            let ends = partial.ends.clone();
            let pass = &Pass { ends: ends.as_deref(), ..*pass };
            partial = match partial.entry {
                Entry::Tokens => {
                    let stream = sites.tokens(BlockSite { tower, block: 0 }, partial.into_tokens(), pass);
                    let [_, tokens, _] = stream.dims();
                    let positions = self.position_embedding.val().narrow(0, 0, tokens);
                    Partial::tokens(Entry::Block(0), stream + positions.unsqueeze::<3>(), ends.clone())
                }
                Entry::Block(block) if block < self.blocks.len() => {
                    let at = BlockSite { tower, block };
                    let mut stream = partial.into_tokens();
                    if block > 0 {
                        stream = sites.tokens(at, stream, pass);
                    }
                    let context = BlockContext {
                        at,
                        heads: spec.transformer.heads,
                        activation: spec.transformer.activation,
                        causal: true,
                        sites,
                        pass,
                    };
                    let stream = self.blocks[block].forward(stream, false, context);
                    let next = if block + 1 == self.blocks.len() { Entry::Head } else { Entry::Block(block + 1) };
                    Partial::tokens(next, stream, ends.clone())
                }
                Entry::Block(_) => Partial::tokens(Entry::Head, partial.into_tokens(), ends.clone()),
                Entry::Head => {
                    let end = pool(partial.into_tokens(), ends.as_deref().unwrap_or_default());
                    let end = norm(&self.final_norm, NormSite::Output(tower), end, sites, pass);
                    let feature = linear(&self.projection, LinearSite::Head(tower), end, sites, pass);
                    Partial::feature(feature.squeeze_dim::<2>(1))
                }
                Entry::Feature | Entry::Never => break,
            };
        }
        partial
    }
}

/// The end-of-text token of each row: `[batch, tokens, width]` to `[batch, 1, width]`. When an adapter repeats the rows
/// (one set of classes per image), the ends repeat with them.
fn pool(stream: Tensor<3>, ends: &[usize]) -> Tensor<3> {
    let [batch, tokens, width] = stream.dims();
    let indices: Vec<i32> = (0..batch).map(|row| (row * tokens + ends[row % ends.len().max(1)]) as i32).collect();
    let indices = Tensor::<1, Int>::from_data(TensorData::new(indices, [batch]), &stream.device());
    stream.reshape([batch * tokens, width]).select(0, indices).reshape([batch, 1, width])
}
