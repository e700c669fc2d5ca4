//! CoOp: learned context tokens around the class name (Zhou et al., 2022, arXiv 2109.01134).
//!
//! A prompt is `[v_1] .. [v_n] [class name] .`; the `v_i`, `[n, width]`, are shared by all classes, or each class has its
//! own, and trained; everything else is frozen. The class name may also stand in front or in the middle. Count:
//! `n * width`, times the number of classes with class-specific contexts. Site: the input tokens of the text tower, before
//! positions are added. The image tower is not touched, so image features are computed once.
//!
//! Initial values: the embeddings of some words (`a photo of a`, which starts as exactly that hand-written prompt), or
//! draws from N(0, 0.02) in place of `n` neutral tokens.

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData};
use inarch_core::backbone::{Backbone, BlockSite, Entry, Mode, Pass, Sites, Tower, indices};
use inarch_core::text::Template;
use serde::{Deserialize, Serialize};

use super::context::{ClassPosition, Context};
use super::place::{each_into_text, into_text};
use crate::error::Result;
use crate::learner::Learner;
use crate::method::{Method, Start};

/// Settings of CoOp; the defaults are the paper's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CoopConfig {
    /// Number of context tokens, used when `words` is empty.
    pub context: usize,
    /// Words whose embeddings the context starts from; empty for random values.
    pub words: String,
    /// A context for each class instead of one for all.
    pub class_specific: bool,
    /// Where the class name stands.
    pub class_position: ClassPosition,
}

impl Default for CoopConfig {
    fn default() -> Self {
        Self { context: 16, words: String::new(), class_specific: false, class_position: ClassPosition::End }
    }
}

impl CoopConfig {
    fn start(&self) -> Context<'_> {
        Context::new(&self.words, self.context).at(self.class_position)
    }
}

/// A learned context.
#[derive(Module, Debug)]
pub struct Coop {
    /// `[n, width]`, or `[classes * n, width]`.
    context: Param<Tensor<2>>,
    tokens: usize,
    class_specific: bool,
    /// Tokens before the class name; `None` for all.
    before: Option<usize>,
}

impl Coop {
    /// A context for all classes, before their names.
    pub(super) fn shared(start: &Start<'_>, context: Context<'_>) -> Result<Self> {
        let tokens = context.tokens(start.backbone);
        let context = Param::from_tensor(context.values(start, 1)?);
        Ok(Self { context, tokens, class_specific: false, before: None })
    }

    /// The context of each of `rows` rows, `[rows, n, width]`.
    fn contexts(&self, rows: usize, pass: &Pass<'_>) -> Tensor<3> {
        let (count, context) = (self.tokens, self.context.val());
        let [all, width] = context.dims();
        let contexts = context.reshape([all / count, count, width]);
        if !self.class_specific {
            return contexts.expand([rows, count, width]);
        }
        match pass.classes {
            None => contexts,
            Some(classes) => contexts.clone().select(0, indices(classes.iter().copied(), &contexts.device())),
        }
    }
}

impl Method for CoopConfig {
    type Adapter = Coop;

    /// [`Error::Setting`](crate::Error::Setting) when the context leaves no room for a class name.
    fn init(&self, start: &Start<'_>) -> Result<Coop> {
        let tokens = self.start().tokens(start.backbone);
        let copies = if self.class_specific { start.classes() } else { 1 };
        let before = match self.class_position {
            ClassPosition::End => None,
            ClassPosition::Middle => Some(tokens / 2),
            ClassPosition::Front => Some(0),
        };
        let context = Param::from_tensor(self.start().values(start, copies)?);
        Ok(Coop { context, tokens, class_specific: self.class_specific, before })
    }

    fn trainable(&self, backbone: &Backbone, classes: usize, _images: usize) -> usize {
        let copies = if self.class_specific { classes } else { 1 };
        copies * self.start().tokens(backbone) * backbone.width(Tower::Text)
    }

    fn starts_as_zero_shot(&self) -> bool {
        self.start().is_words()
    }

    fn bound_to_classes(&self) -> bool {
        self.class_specific
    }

    /// The text whose tokens the context replaces.
    fn templates(&self) -> Result<Vec<Template>> {
        Ok(vec![self.start().template()?])
    }
}

impl Learner for Coop {}

impl Sites for Coop {
    fn entry(&self, tower: Tower) -> Entry {
        match tower {
            Tower::Image => Entry::Never,
            Tower::Text => Entry::Tokens,
        }
    }

    fn shares_beginnings(&self, _mode: Mode) -> bool {
        !self.class_specific && self.before.is_none()
    }

    fn tokens(&self, at: BlockSite, tokens: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        if at != BlockSite::new(Tower::Text, 0) {
            return tokens;
        }
        let [rows, _, _] = tokens.dims();
        match (self.before, pass.ends) {
            (Some(before), Some(ends)) => around_names(tokens, self.contexts(rows, pass), &[before], ends, pass.first),
            _ if self.class_specific => each_into_text(tokens, self.contexts(rows, pass), pass),
            _ => into_text(tokens, self.context.val(), pass),
        }
    }
}

/// Puts each row's context `[rows, n, width]` around its class name: `before` (one number for each row, or a few that repeat)
/// of the tokens behind the start token, the rest before the full stop, which stands before the end-of-text token. Class
/// names have different lengths, so the places differ by row: a matrix product with a constant of zeros and ones puts them
/// there.
pub(super) fn around_names(
    tokens: Tensor<3>,
    contexts: Tensor<3>,
    before: &[usize],
    ends: &[usize],
    first: usize,
) -> Tensor<3> {
    let ([rows, length, _], [_, count, _]) = (tokens.dims(), contexts.dims());
    let mut places = vec![0.0f32; rows * length * count];
    let mut kept = vec![1.0f32; rows * length];
    for row in 0..rows {
        let (stop, before) = (ends[row % ends.len()] - 1, before[row % before.len()]);
        for token in 0..count {
            let position = if token < before { first + token } else { stop + token - count };
            places[(row * length + position) * count + token] = 1.0;
            kept[row * length + position] = 0.0;
        }
    }
    let device = tokens.device().without_autodiff();
    let places = Tensor::<3>::from_data(TensorData::new(places, [rows, length, count]), &device);
    let kept = Tensor::<3>::from_data(TensorData::new(kept, [rows, length, 1]), &device);
    tokens * kept + places.matmul(contexts)
}
