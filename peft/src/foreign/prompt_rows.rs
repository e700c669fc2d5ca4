//! The frozen part of a prompt, as checkpoints of the CoOp family keep it beside the learned context.
//!
//! `token_prefix` `[classes, 1, width]` and `token_suffix` `[classes, rest, width]` are rows of the token table: what stands
//! before and behind the context. They hold nothing that is learned, but they tell for which classes, and beside which
//! text tower, a context was learned. Each row is looked up in the backbone's own table, so that a file of another backbone
//! is refused, and class names are read from the file, or checked against those that were given.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use half::f16;
use inarch_core::backbone::{HostTensor, values};
use inarch_core::text::Template;

use super::import::Import;
use super::tensors::Unused;
use crate::error::Result;

/// The tokens behind the context, for each class, up to and without the end of the text.
pub(super) struct PromptRows {
    rows: Vec<Vec<u32>>,
}

impl PromptRows {
    /// Takes the rows from a checkpoint whose buffers have `prefix` before their names.
    ///
    /// # Errors
    /// `Refused` when they are not rows of the backbone's token table, `Malformed` when one is missing.
    pub(super) fn take(unused: &mut Unused<'_>, prefix: &str, import: &Import<'_>) -> Result<Self> {
        let starts = unused.need(&format!("{prefix}token_prefix"), 3)?;
        let ends = unused.need(&format!("{prefix}token_suffix"), 3)?;
        let backbone = import.backbone;
        let (bos, eot) = (backbone.tokenizer().bos(), backbone.tokenizer().eot());
        let table = TokenTable::new(import);
        for row in table.ids(&starts)? {
            if row != [bos] {
                return Err(table.foreign(&starts));
            }
        }
        let until_end = |row: Vec<u32>| -> Result<Vec<u32>> {
            let end = row.iter().position(|id| *id == eot).ok_or_else(|| table.foreign(&ends))?;
            Ok(row[..end].to_vec())
        };
        let rows: Vec<Vec<u32>> = table.ids(&ends)?.into_iter().map(until_end).collect::<Result<_>>()?;
        if rows.is_empty() || rows.len() != starts.shape[0] {
            return Err(import.malformed("`token_prefix` and `token_suffix` must hold one row for each class"));
        }
        Ok(Self { rows })
    }

    /// The class names: those given, after it was checked that the file means them, or those of the file, in the lower case
    /// in which the tokenizer keeps them. `context` is the number of tokens that the context replaces in `template`.
    ///
    /// # Errors
    /// `Refused` when the names, their order or the words around them are others.
    pub(super) fn classes(&self, template: &Template, context: usize, import: &Import<'_>) -> Result<Vec<String>> {
        let tokenizer = import.backbone.tokenizer();
        let expected = |class: &str| -> Result<Vec<u32>> {
            let row = tokenizer.encode(&[template.fill(class)])?.remove(0).ids;
            Ok(row.get(1 + context..row.len() - 1).unwrap_or_default().to_vec())
        };
        if !import.classes.is_empty() && import.classes.len() != self.rows.len() {
            return Err(import.refused("classes", format!("{} classes", self.rows.len()), import.classes.len()));
        }
        // What stands between the context and the name, and behind the name, in every prompt.
        let marked = template.to_string();
        let (words, after) = marked.split_once("{}").unwrap_or((&marked, ""));
        let words = tokenizer.encode(&[words.trim()])?.remove(0).ids;
        let words = words.get(1 + context..words.len() - 1).unwrap_or_default();
        let mut classes = Vec::new();
        for (at, row) in self.rows.iter().enumerate() {
            let spelled = row.strip_prefix(words).map(|row| tokenizer.decode(row));
            let read = spelled.as_deref().and_then(|text| text.trim().strip_suffix(after.trim())).map(str::trim);
            let class = import.classes.get(at).map(String::as_str).or(read).unwrap_or_default();
            if class.is_empty() || &expected(class)? != row {
                let text = if class.is_empty() { marked.clone() } else { template.fill(class) };
                let what = format!("prompt of class {}", at + 1);
                let expected = format!("`{text}`, of which {context} tokens are learned");
                return Err(import.refused(&what, expected, format!("`{}` behind them", tokenizer.decode(row))));
            }
            classes.push(class.to_owned());
        }
        Ok(classes)
    }
}

/// Token ids by their embeddings. Half-precision copies of a table agree with the table after both are rounded.
struct TokenTable<'a> {
    import: &'a Import<'a>,
    ids: HashMap<u64, u32>,
    width: usize,
}

impl<'a> TokenTable<'a> {
    fn new(import: &'a Import<'a>) -> Self {
        let vocabulary: Vec<u32> = (0..import.backbone.spec().text.vocabulary as u32).collect();
        let table = values(import.backbone.token_embeddings(&vocabulary));
        let width = import.backbone.spec().text.transformer.width;
        let ids = table.chunks(width).zip(vocabulary).map(|(row, id)| (key(row), id)).collect();
        Self { import, ids, width }
    }

    fn ids(&self, tensor: &HostTensor) -> Result<Vec<Vec<u32>>> {
        let [_, tokens, width] = tensor.shape[..] else { return Err(self.foreign(tensor)) };
        if width != self.width || tokens == 0 {
            return Err(self.foreign(tensor));
        }
        let id = |row: &[f32]| self.ids.get(&key(row)).copied().ok_or_else(|| self.foreign(tensor));
        tensor.data.chunks(tokens * width).map(|text| text.chunks(width).map(id).collect()).collect()
    }

    fn foreign(&self, tensor: &HostTensor) -> crate::Error {
        let name = self.import.backbone.name();
        let what = format!("`{}`", tensor.origin);
        self.import.refused(&what, format!("rows of the token table of backbone `{name}`"), "the table of another one")
    }
}

fn key(row: &[f32]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for value in row {
        // Minus zero equals zero.
        (f16::from_f32(*value).to_f32() + 0.0).to_bits().hash(&mut hasher);
    }
    hasher.finish()
}
