//! CoOp: learned context tokens in front of the class name (Zhou et al., 2022, arXiv 2109.01134).
//!
//! A prompt is `[v_1] .. [v_n] [class name] .`; the `v_i`, `[n, width]`, are shared by all classes and trained, everything
//! else is frozen. Count: `n * width`. Site: the input tokens of the text tower, positions 1 to n, before positions are
//! added. The image tower is not touched, so image features are computed once.
//!
//! Initial values: the embeddings of some words (`a photo of a`, which starts as exactly that hand-written prompt), or
//! draws from N(0, 0.02) in place of `n` neutral tokens.

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData};
use inarch_core::backbone::{Backbone, BlockSite, Entry, Pass, Sites, Tower};
use inarch_core::text::Template;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::learner::Learner;
use crate::method::{Method, Start};

/// The neutral word whose place a randomly initialised context token takes.
const PLACEHOLDER: &str = "X";
/// Standard deviation of random context tokens.
const DEVIATION: f32 = 0.02;

/// Settings of CoOp; the defaults are the paper's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CoopConfig {
    /// Number of context tokens, used when `words` is empty.
    pub context: usize,
    /// Words whose embeddings the context starts from; empty for random values.
    pub words: String,
}

impl Default for CoopConfig {
    fn default() -> Self {
        Self { context: 16, words: String::new() }
    }
}

/// A learned context.
#[derive(Module, Debug)]
pub struct Coop {
    context: Param<Tensor<2>>,
}

impl Method for CoopConfig {
    type Adapter = Coop;

    /// [`Error::Setting`] when the context leaves no room for a class name.
    fn init(&self, start: &Start<'_>) -> Result<Coop> {
        let Start { backbone, device, .. } = *start;
        let width = backbone.width(Tower::Text);
        let room = backbone.spec().text.context.saturating_sub(4);
        // Before anything is drawn: a manifest could ask for all memory.
        let fits = |tokens: usize| {
            let reason = format!("must be 1 to {room} tokens for this backbone, found {tokens}");
            let fault = Error::Setting { setting: "context", reason };
            if tokens == 0 || tokens > room { Err(fault) } else { Ok(()) }
        };
        let words = self.words.trim();
        let context = if words.is_empty() {
            fits(self.context)?;
            let values = start.seed.normals(self.context * width, DEVIATION);
            Tensor::from_data(TensorData::new(values, [self.context, width]), device)
        } else {
            let row = backbone.tokenize(&[words])?.remove(0);
            fits(row.len() - 2)?;
            let embedded = backbone.token_embeddings(&row[1..row.len() - 1]);
            Tensor::from_data(embedded.into_data(), device)
        };
        Ok(Coop { context: Param::from_tensor(context) })
    }

    fn trainable(&self, backbone: &Backbone, _classes: usize, _images: usize) -> usize {
        let words = backbone.tokenize(&[self.words.trim()]).map_or(0, |rows| rows[0].len() - 2);
        if words > 0 { words * backbone.width(Tower::Text) } else { self.context * backbone.width(Tower::Text) }
    }

    fn starts_as_zero_shot(&self) -> bool {
        !self.words.trim().is_empty()
    }

    /// The text whose tokens the context replaces: `n` tokens, then the class name.
    fn templates(&self) -> Result<Vec<Template>> {
        let words = self.words.trim();
        let prefix = if words.is_empty() { vec![PLACEHOLDER; self.context].join(" ") } else { words.to_string() };
        Ok(vec![Template::new(&format!("{prefix} {{}}."))?])
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

    fn tokens(&self, at: BlockSite, tokens: Tensor<3>, _pass: &Pass<'_>) -> Tensor<3> {
        if at != (BlockSite { tower: Tower::Text, block: 0 }) {
            return tokens;
        }
        let [rows, length, width] = tokens.dims();
        let context = self.context.val();
        let [learned, _] = context.dims();
        let context = context.unsqueeze::<3>().expand([rows, learned, width]);
        let start = tokens.clone().narrow(1, 0, 1);
        let name = tokens.narrow(1, 1 + learned, length - 1 - learned);
        Tensor::cat(vec![start, context, name], 1)
    }
}
