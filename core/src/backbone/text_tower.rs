//! The text transformer: causal as in CLIP (Radford et al., 2021, arXiv 2103.00020), or one whose tokens see their whole text, as in
//! SigLIP and BERT; [`TextStyle`](super::TextStyle) says in what they differ.

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::nn::{LayerNorm, Linear};
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::block::{Block, BlockContext, Seen, activate, linear, norm};
use super::parameter;
use super::partial::{Partial, Texts};
use super::pass::Pass;
use super::place::{BlockSite, Entry, LinearSite, NormSite, Tower};
use super::site::{Frozen, Sites};
use super::spec::{Activation, TextPool, TextProjection, TextSpec};
use super::state_dict::indices;
use super::stream::Stream;
use super::sublayer::shares_beginnings;

/// Token ids `[batch, tokens]` to features `[batch, dim]`.
#[derive(Module, Debug)]
pub struct TextTower {
    /// `[vocabulary, width]`.
    pub token_embedding: Param<Tensor<2>>,
    /// `[context, width]`.
    pub position_embedding: Param<Tensor<2>>,
    /// After embedding.
    pub embedding_norm: Option<LayerNorm>,
    /// The blocks.
    pub blocks: Vec<Block>,
    /// After the last block.
    pub final_norm: Option<LayerNorm>,
    /// Half the way into the shared space.
    pub projection_hidden: Option<Linear>,
    /// Into the shared space.
    pub projection: Option<Linear>,
}

impl TextTower {
    pub(super) fn zeros(spec: &TextSpec, dim: usize, device: &Device) -> Self {
        let (transformer, style) = (&spec.transformer, &spec.style);
        let width = transformer.width;
        let norm = || parameter::layer_norm(width, transformer.epsilon(), device);
        let offset = style.projection == TextProjection::Offset;
        let hidden = (style.projection == TextProjection::Hidden).then_some((width + dim) / 2);
        Self {
            token_embedding: parameter::zeros([spec.vocabulary, width], device),
            position_embedding: parameter::zeros([spec.context, width], device),
            embedding_norm: style.embedding_norm.then(norm),
            blocks: (0..transformer.depth).map(|_| Block::zeros(transformer, device)).collect(),
            final_norm: style.final_norm.then(norm),
            projection_hidden: hidden.map(|hidden| parameter::linear(width, hidden, false, device)),
            projection: (style.projection != TextProjection::None)
                .then(|| parameter::linear(hidden.unwrap_or(width), dim, offset, device)),
        }
    }

    /// The same, each of whose blocks looks at images whose tokens have this width.
    pub(super) fn attending(self, spec: &TextSpec, image_width: usize, device: &Device) -> Self {
        let blocks = self.blocks.into_iter();
        Self { blocks: blocks.map(|block| block.attending(&spec.transformer, image_width, device)).collect(), ..self }
    }

    /// Token ids of rows filled up to `longest`, embedded: `[rows, longest, width]`.
    pub(super) fn embed(&self, rows: &[&[u32]], longest: usize, fill: u32, device: &Device) -> Tensor<3> {
        let mut ids = Vec::with_capacity(rows.len() * longest);
        for row in rows {
            ids.extend(row.iter().map(|id| *id as i32));
            ids.resize(ids.len() + longest - row.len(), fill as i32);
        }
        let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [rows.len() * longest]), device);
        let [_, width] = self.token_embedding.val().dims();
        self.token_embedding.val().select(0, ids).reshape([rows.len(), longest, width])
    }

    /// Embedded tokens through the token site, with their positions.
    pub(super) fn place(&self, spec: &TextSpec, stream: Tensor<3>, sites: &dyn Sites, pass: &Pass<'_>) -> Tensor<3> {
        let tower = Tower::Text;
        let stream = sites.tokens(BlockSite { tower, block: 0 }, stream, pass);
        let [_, tokens, _] = stream.dims();
        let stream = stream + self.position_embedding.val().narrow(0, 0, tokens).unsqueeze::<3>();
        match &self.embedding_norm {
            Some(layer) => norm(layer, NormSite::Input(tower), &spec.transformer, stream, sites, pass),
            None => stream,
        }
    }

    /// The frozen prefix of rows padded to `longest`. A causal tower cannot see what stands behind the end of a text, and others
    /// are told not to: cutting at the longest row instead of the full context is exact.
    pub(super) fn start(
        &self,
        spec: &TextSpec,
        rows: &[&[u32]],
        longest: usize,
        texts: Texts,
        entry: Entry,
        device: &Device,
    ) -> Partial {
        let (longest, fill) = match spec.style.fill {
            Some(fill) => (spec.context, fill),
            None => (longest, 0),
        };
        let stream = self.embed(rows, longest, fill, device);
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
        let pass = &Pass { ends: Some(ends), first: usize::from(spec.style.begins), ..*pass };
        let causal = spec.is_causal();
        let marks = if causal || spec.style.fill.is_some() { None } else { marks(ends, &partial) };
        let seen = match &marks {
            _ if causal => Seen::Before,
            Some(marks) => Seen::Marked(marks),
            None => Seen::All,
        };
        let shares = causal && beginning > 1 && shares_beginnings(sites, pass.mode);
        let arrange = |stream: Tensor<3>| match shares && ends.len() > 1 {
            // A token site may repeat all texts, once for each image.
            true => Stream::split(stream.clone(), beginning, stream.dims()[0] / ends.len()),
            false => Stream::whole(stream),
        };
        let mut partial = partial;
        while partial.entry < until.min(Entry::Feature) {
            partial = match partial.entry {
                // A text tower has no trunk.
                Entry::Trunk(_) | Entry::Tokens => {
                    let stream = self.place(spec, partial.into_stream().into_whole(), sites, pass);
                    Partial::tokens(Entry::Block(0), arrange(stream), texts.clone())
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
                    let images = None;
                    let context = BlockContext { at, spec: &spec.transformer, seen, images, sites, pass };
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
                    // Tokens are normalised one by one, so that those which are not pooled need not be.
                    let of = |tokens: Tensor<3>| match &self.final_norm {
                        Some(layer) => norm(layer, NormSite::Output(tower), &spec.transformer, tokens, sites, pass),
                        None => tokens,
                    };
                    let pooled = match spec.style.pool {
                        TextPool::End => of(pool(stream.rest, ends, shared)),
                        TextPool::Last => of({
                            let [_, tokens, _] = stream.rest.dims();
                            stream.rest.narrow(1, tokens - 1, 1)
                        }),
                        TextPool::First => of(stream.into_whole().narrow(1, 0, 1)),
                        TextPool::Mean => mean(of(stream.into_whole()), ends),
                    };
                    let pooled = match &self.projection_hidden {
                        Some(layer) => activate(layer.forward(pooled), Activation::Gelu),
                        None => pooled,
                    };
                    let feature = match &self.projection {
                        Some(projection) => linear(projection, LinearSite::Head(tower), pooled, sites, pass),
                        None => pooled,
                    };
                    Partial::feature(feature.squeeze_dim::<2>(1))
                }
                Entry::Pool | Entry::Feature | Entry::Never => break,
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

/// What keeps the tokens of a text from seeing the padding behind it, `[rows, 1, 1, tokens]`; `None` when there is none.
fn marks(ends: &[usize], partial: &Partial) -> Option<Tensor<4>> {
    let stream = partial.stream()?;
    let [_, tokens, _] = stream.dims();
    mask_padding(ends, tokens, 0, &stream.device())
}

/// The same for texts of `tokens` tokens with so many behind them that all see, `[rows, 1, 1, tokens + beside]`.
pub(super) fn mask_padding(ends: &[usize], tokens: usize, beside: usize, device: &Device) -> Option<Tensor<4>> {
    // Far below any score, and far from overflow.
    const UNSEEN: f32 = -1e9;
    if ends.iter().all(|end| end + 1 == tokens) {
        return None;
    }
    let mark = |end: usize, token: usize| if token > end && token < tokens { UNSEEN } else { 0.0 };
    let marks: Vec<f32> =
        ends.iter().flat_map(|end| (0..tokens + beside).map(move |token| mark(*end, token))).collect();
    let device = device.clone().without_autodiff();
    Some(Tensor::from_data(TensorData::new(marks, [ends.len(), 1, 1, tokens + beside]), &device))
}

/// The mean over the tokens of each text, `[batch, tokens, width]` to `[batch, 1, width]`.
fn mean(stream: Tensor<3>, ends: &[usize]) -> Tensor<3> {
    let [batch, tokens, _] = stream.dims();
    let share = |row: usize| {
        let end = ends[row % ends.len()];
        (0..tokens).map(move |token| if token > end { 0.0 } else { 1.0 / (end + 1) as f32 })
    };
    let shares: Vec<f32> = (0..batch).flat_map(share).collect();
    let device = stream.device().without_autodiff();
    Tensor::<3>::from_data(TensorData::new(shares, [batch, 1, tokens]), &device).matmul(stream)
}
