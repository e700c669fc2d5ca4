//! A tower stopped on its way.

use burn::tensor::Tensor;

use super::site::Entry;

/// The value of a tower at some entry: what the frozen work before an adapter amounts to.
#[derive(Debug, Clone)]
pub struct Partial {
    /// How far the tower has come.
    pub entry: Entry,
    pub(super) state: State,
    /// For the text tower: the position of the end-of-text token in each row.
    pub(super) ends: Option<Vec<usize>>,
}

#[derive(Debug, Clone)]
pub(super) enum State {
    Tokens(Tensor<3>),
    Feature(Tensor<2>),
}

impl Partial {
    pub(super) fn tokens(entry: Entry, stream: Tensor<3>, ends: Option<Vec<usize>>) -> Self {
        Self { entry, state: State::Tokens(stream), ends }
    }

    /// A pooled feature, `[rows, dim]`.
    pub fn feature(feature: Tensor<2>) -> Self {
        Self { entry: Entry::Feature, state: State::Feature(feature), ends: None }
    }

    /// The residual stream of some images, `[images, tokens, width]`, as [`stream`](Self::stream) gave it at `entry`.
    ///
    /// # Panics
    /// When `entry` is past the last block: that is a feature.
    pub fn image_stream(entry: Entry, stream: Tensor<3>) -> Self {
        assert!(entry < Entry::Feature, "a stream of tokens ends before the feature");
        Self::tokens(entry, stream, None)
    }

    pub(super) fn into_tokens(self) -> Tensor<3> {
        match self.state {
            State::Tokens(stream) => stream,
            State::Feature(_) => unreachable!("a feature is the last stage of a tower"),
        }
    }

    /// The feature, if the tower has come to its end.
    pub fn into_feature(self) -> Option<Tensor<2>> {
        match self.state {
            State::Feature(feature) => Some(feature),
            State::Tokens(_) => None,
        }
    }

    /// The residual stream `[rows, tokens, width]`, if the tower has not come to its end.
    pub fn stream(&self) -> Option<&Tensor<3>> {
        match &self.state {
            State::Tokens(stream) => Some(stream),
            State::Feature(_) => None,
        }
    }
}
