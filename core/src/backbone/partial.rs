//! A tower stopped on its way.

use std::sync::Arc;

use burn::tensor::Tensor;

use super::pass::Mode;
use super::place::Entry;
use super::pointwise::{as_map, as_places};
use super::site::Sites;
use super::stream::Stream;
use super::sublayer::shares_beginnings;

/// The value of a tower at some entry: what the frozen work before an adapter amounts to.
#[derive(Debug, Clone)]
pub struct Partial {
    /// How far the tower has come.
    pub entry: Entry,
    pub(super) state: State,
    /// For the text tower.
    pub(super) texts: Option<Arc<Texts>>,
}

#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "there are a few of them at a time")]
pub(super) enum State {
    /// Of a convolutional trunk, `[images, channels, height, width]`.
    Map(Tensor<4>),
    Tokens(Stream),
    Feature(Tensor<2>),
}

/// What the text tower knows about its rows.
#[derive(Debug)]
pub(super) struct Texts {
    /// The position of the end-of-text token in each row.
    pub(super) ends: Vec<usize>,
    /// How many tokens all rows have in common at the front, short of any end.
    pub(super) beginning: usize,
}

impl Texts {
    /// In a tower that is not `causal` a beginning has no values of its own, and none is named.
    pub(super) fn new(rows: &[&[u32]], causal: bool) -> Self {
        let ends: Vec<usize> = rows.iter().map(|row| row.len().max(1) - 1).collect();
        let most = if causal { ends.iter().copied().min().unwrap_or(0) } else { 0 };
        let alike = |at: &usize| rows.iter().all(|row| row[*at] == rows[0][*at]);
        Self { beginning: (0..most).take_while(alike).count(), ends }
    }
}

impl Partial {
    pub(super) fn tokens(entry: Entry, stream: Stream, texts: Option<Arc<Texts>>) -> Self {
        Self { entry, state: State::Tokens(stream), texts }
    }

    /// The map that enters a block of a convolutional trunk.
    pub(super) fn map(block: usize, map: Tensor<4>) -> Self {
        Self { entry: Entry::Trunk(block), state: State::Map(map), texts: None }
    }

    /// The projected feature of each frame, `[clips * frames, dim]`, before those of a clip become one.
    pub fn frames(features: Tensor<2>) -> Self {
        Self { entry: Entry::Pool, state: State::Feature(features), texts: None }
    }

    /// A pooled feature, `[rows, dim]`.
    pub fn feature(feature: Tensor<2>) -> Self {
        Self { entry: Entry::Feature, state: State::Feature(feature), texts: None }
    }

    /// The residual stream of some images, `[images, tokens, width]`, as [`stream`](Self::stream) gave it at `entry`.
    ///
    /// # Panics
    /// When `entry` is past the last block: that is a feature. Within a trunk, when its places are not those of a square.
    pub fn image_stream(entry: Entry, stream: Tensor<3>) -> Self {
        assert!(entry < Entry::Pool, "a stream of tokens ends before the feature");
        if let Entry::Trunk(block) = entry {
            let [_, places, _] = stream.dims();
            return Self::map(block, as_map(stream, [places.isqrt(); 2]));
        }
        Self::tokens(entry, Stream::whole(stream), None)
    }

    /// Several parts of one batch, in order, which begin alike if they are texts.
    pub(super) fn join(mut parts: Vec<Self>, texts: Option<Arc<Texts>>) -> Self {
        if parts.len() == 1 {
            return Self { texts, ..parts.remove(0) };
        }
        let entry = parts[0].entry;
        if let Entry::Trunk(block) = entry {
            return Self::map(block, Tensor::cat(parts.into_iter().map(Self::into_map).collect(), 0));
        }
        if entry < Entry::Pool {
            return Self::tokens(entry, Stream::join(parts.into_iter().map(Self::into_stream).collect()), texts);
        }
        let features = Tensor::cat(parts.into_iter().filter_map(Self::into_feature).collect(), 0);
        Self { entry, ..Self::feature(features) }
    }

    pub(super) fn into_stream(self) -> Stream {
        match self.state {
            State::Tokens(stream) => stream,
            State::Map(_) => unreachable!("a trunk is the first stage of a tower"),
            State::Feature(_) => unreachable!("a feature is the last stage of a tower"),
        }
    }

    pub(super) fn into_map(self) -> Tensor<4> {
        match self.state {
            State::Map(map) => map,
            State::Tokens(_) | State::Feature(_) => unreachable!("nothing leads back into a trunk"),
        }
    }

    /// The feature, or that of each frame, if the tower has come that far.
    pub fn into_feature(self) -> Option<Tensor<2>> {
        match self.state {
            State::Feature(feature) => Some(feature),
            State::Map(_) | State::Tokens(_) => None,
        }
    }

    /// The residual stream `[rows, tokens, width]`, if the tower has not come to its end; within a trunk the places of its map,
    /// row by row, and their channels.
    pub fn stream(&self) -> Option<Tensor<3>> {
        match &self.state {
            State::Map(map) => Some(as_places(map.clone())),
            State::Tokens(stream) => Some(stream.clone().into_whole()),
            State::Feature(_) => None,
        }
    }

    /// Tokens of all rows, or places of their maps; 0 for features.
    pub fn token_count(&self) -> usize {
        match &self.state {
            State::Map(map) => {
                let [rows, _, height, width] = map.dims();
                rows * height * width
            }
            State::Tokens(stream) => {
                let [rows, tokens, _] = stream.rest.dims();
                rows * (stream.shared + tokens)
            }
            State::Feature(_) => 0,
        }
    }

    /// How many tokens each block runs for this adapter: those of a beginning that texts share count once.
    pub fn tokens_run(&self, sites: &dyn Sites, mode: Mode) -> usize {
        let (State::Tokens(stream), Some(texts)) = (&self.state, &self.texts) else { return self.token_count() };
        let [rows, _, _] = stream.rest.dims();
        match texts.beginning > 1 && rows > 1 && shares_beginnings(sites, mode) {
            true => self.token_count() - (rows - 1) * texts.beginning,
            false => self.token_count(),
        }
    }

    /// Values that it holds.
    pub fn values(&self) -> usize {
        match &self.state {
            State::Map(map) => map.dims().iter().product(),
            State::Tokens(stream) => stream.values(),
            State::Feature(feature) => feature.dims().iter().product(),
        }
    }
}
