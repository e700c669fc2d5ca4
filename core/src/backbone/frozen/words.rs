//! Words on their way into the text tower: prompts, token rows, embeddings.

use burn::tensor::{Int, Tensor, TensorData};

use super::super::embeddings;
use super::super::pass::Pass;
use super::super::site::Frozen;
use super::super::spec::TextPool;
use super::{Backbone, NO_TOWERS};
use crate::error::{Error, Result};
use crate::text::Template;

impl Backbone {
    /// The frozen token embeddings of some ids, `[ids, width]`.
    ///
    /// # Panics
    /// Without towers; see [`need_towers`](Self::need_towers).
    pub fn token_embeddings(&self, ids: &[u32]) -> Tensor<2> {
        let ids: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
        let count = ids.len();
        let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [count]), &self.device);
        self.towers().expect(NO_TOWERS).text().token_embedding.val().select(0, ids)
    }

    /// The learned positions of the text tower, `[context, width]`.
    ///
    /// # Panics
    /// Without towers; see [`need_towers`](Self::need_towers).
    pub fn text_positions(&self) -> Tensor<2> {
        self.towers().expect(NO_TOWERS).text().position_embedding.val()
    }

    /// Token rows of every class in every template, class-major; empty ones where words have no features.
    ///
    /// # Errors
    /// A prompt that does not fit into the context, or that a backbone without towers has no feature for.
    pub fn prompts(&self, classes: &[String], templates: &[Template]) -> Result<Vec<Vec<u32>>> {
        if !self.has_towers() {
            return embeddings::prompts(&self.tokenizer, classes, templates);
        }
        if !self.has_words() {
            return Ok(vec![Vec::new(); classes.len() * templates.len()]);
        }
        let texts: Vec<String> =
            classes.iter().flat_map(|class| templates.iter().map(move |template| template.fill(class))).collect();
        let tokens = self.tokenizer.encode(&texts)?;
        if let Some(at) = tokens.iter().position(|tokens| tokens.truncated) {
            // A class name that is cut could read like another one.
            let reason = format!(
                "longer than the {} tokens of this backbone: shorten the class name or the template",
                self.spec.text.context
            );
            return Err(Error::invalid(format!("prompt `{}`", texts[at]), reason));
        }
        Ok(tokens.into_iter().map(|tokens| self.until_end(tokens.ids)).collect())
    }

    /// Token rows of some texts.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`](crate::text::Tokenizer::encode) and [`need_words`](Self::need_words).
    pub fn tokenize<T: AsRef<str>>(&self, texts: &[T]) -> Result<Vec<Vec<u32>>> {
        self.need_words("texts")?;
        Ok(self.tokenizer.encode(texts)?.into_iter().map(|tokens| self.until_end(tokens.ids)).collect())
    }

    /// Token ids up to the first end token, at which CLIP pools; a text may spell it out, and nothing behind it is seen.
    fn until_end(&self, mut ids: Vec<u32>) -> Vec<u32> {
        let text = &self.spec.text;
        if text.is_causal() && text.style.pool == TextPool::End && !self.crosses() {
            let end = ids.iter().position(|id| *id == self.tokenizer.eot());
            ids.truncate(end.map_or(ids.len(), |end| end + 1));
        }
        ids
    }

    /// Text features of plain texts with the frozen tower, in batches of `batch` rows: `[texts, dim]`.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`](crate::text::Tokenizer::encode).
    pub fn text_features<T: AsRef<str>>(&self, texts: &[T], batch: usize) -> Result<Tensor<2>> {
        let rows = self.tokenize(texts)?;
        let parts = rows
            .chunks(batch.max(1))
            .map(|rows| self.encode_text(rows, &Frozen, &Pass::evaluate()))
            .collect::<Vec<_>>();
        if parts.is_empty() {
            return Err(Error::invalid("texts", "at least one text is needed"));
        }
        Ok(Tensor::cat(parts, 0))
    }
}
