//! The start of a learned context: words whose place it takes, or draws in place of neutral ones.

use burn::tensor::{Tensor, TensorData};
use inarch_core::backbone::{Backbone, Tower};
use inarch_core::text::Template;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::method::Start;

/// The neutral word whose place a randomly initialised context token takes.
const PLACEHOLDER: &str = "X";
/// Standard deviation of random context tokens.
const DEVIATION: f32 = 0.02;

/// Where the class name stands among the context tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClassPosition {
    /// Behind the context.
    #[default]
    End,
    /// Between its two halves, the first of them the shorter one.
    Middle,
    /// Before the context.
    Front,
}

/// What a context starts from, as a method's settings say it.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    words: &'a str,
    count: usize,
    position: ClassPosition,
}

impl<'a> Context<'a> {
    /// `words`, or `count` random tokens when there are none, before the class name.
    pub(super) fn new(words: &'a str, count: usize) -> Self {
        Self { words: words.trim(), count, position: ClassPosition::End }
    }

    pub(super) fn at(self, position: ClassPosition) -> Self {
        Self { position, ..self }
    }

    /// Whether it starts as a prompt that a person could have written.
    pub(super) fn is_words(self) -> bool {
        !self.words.is_empty()
    }

    /// Number of tokens.
    pub(super) fn tokens(self, backbone: &Backbone) -> usize {
        match backbone.tokenizer().words(self.words) {
            Ok(words) if self.is_words() => words.len(),
            _ => self.count,
        }
    }

    /// First values of `copies` contexts, `[copies * tokens, width]`; random ones differ.
    ///
    /// # Errors
    /// [`Error::Setting`] when the context leaves no room for a class name.
    pub(super) fn values(self, start: &Start<'_>, copies: usize) -> Result<Tensor<2>> {
        let Start { backbone, device, .. } = *start;
        let width = backbone.width(Tower::Text);
        let room = backbone.spec().text.context.saturating_sub(4);
        // Before anything is drawn: a manifest could ask for all memory.
        let tokens = self.tokens(backbone);
        if tokens == 0 || tokens > room {
            let reason = format!("must be 1 to {room} tokens for this backbone, found {tokens}");
            return Err(Error::Setting { setting: "context", reason });
        }
        if !self.is_words() {
            let values = start.seed.normals(copies * tokens * width, DEVIATION);
            return Ok(Tensor::from_data(TensorData::new(values, [copies * tokens, width]), device));
        }
        let words = backbone.tokenizer().words(self.words)?;
        let embedded = backbone.token_embeddings(&words).repeat_dim(0, copies);
        Ok(Tensor::from_data(embedded.into_data(), device))
    }

    /// The text whose tokens the context replaces.
    ///
    /// # Errors
    /// Words that are no part of a template, such as ones with a place for another class name.
    pub(super) fn template(self) -> Result<Template> {
        let words: Vec<&str> = match self.is_words() {
            true => self.words.split_whitespace().collect(),
            false => vec![PLACEHOLDER; self.count.min(MOST_PLACEHOLDERS)],
        };
        let before = match self.position {
            ClassPosition::End => words.len(),
            ClassPosition::Middle => words.len() / 2,
            ClassPosition::Front => 0,
        };
        let parts = words[..before].iter().chain(&["{}"]).chain(&words[before..]).copied();
        Ok(Template::new(&format!("{}.", parts.collect::<Vec<_>>().join(" ")))?)
    }
}

/// More neutral words than any context has; a greater count fails for its own reason later.
const MOST_PLACEHOLDERS: usize = 4096;
