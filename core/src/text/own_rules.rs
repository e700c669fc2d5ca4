//! Tokenizers that bring their own rules: word pieces between two special tokens (BERT), or sentence pieces before an end token
//! (SigLIP).
//!
//! The reference is `AutoTokenizer` of Hugging Face with the same `tokenizer.json`: its special tokens, truncation to the context,
//! and its padding token.

use std::path::Path;

use serde_json::Value;
use tokenizers::{TruncationDirection, TruncationParams, TruncationStrategy};

use super::tokenizer::Tokens;
use crate::error::{Error, Result};
use crate::file;

/// What error messages call the file.
const FORMAT: &str = "tokenizer";

/// A tokenizer with the rules of its file.
#[derive(Debug, Clone)]
pub(super) struct OwnRules {
    pieces: tokenizers::Tokenizer,
    /// The padding token: named by `tokenizer_config.json` beside the file, or by the file's own padding.
    pub(super) fill: Option<u32>,
    /// The special tokens before the words of a text, and behind them.
    pub(super) around: [Vec<u32>; 2],
}

impl OwnRules {
    /// Reads the bytes of a `tokenizer.json`.
    pub(super) fn read(bytes: &[u8], path: &Path, context: usize) -> Result<Self> {
        let malformed = |reason: String| Error::malformed(FORMAT, path, reason);
        let mut pieces = tokenizers::Tokenizer::from_bytes(bytes).map_err(|error| malformed(error.to_string()))?;
        let fill = padding(&pieces, path)?;
        pieces.with_padding(None);
        let truncation = TruncationParams {
            max_length: context,
            strategy: TruncationStrategy::LongestFirst,
            stride: 0,
            direction: TruncationDirection::Right,
        };
        pieces.with_truncation(Some(truncation)).map_err(|error| malformed(error.to_string()))?;
        let probe = pieces.encode_fast("a", true).map_err(|error| malformed(error.to_string()))?;
        let special = |pair: &(&u32, &u32)| *pair.1 == 1;
        let marked = || probe.get_ids().iter().zip(probe.get_special_tokens_mask());
        let before: Vec<u32> = marked().take_while(special).map(|(id, _)| *id).collect();
        let behind: Vec<u32> = marked().rev().take_while(special).map(|(id, _)| *id).collect();
        if behind.is_empty() || before.len() + behind.len() >= context {
            return Err(malformed("it ends no text with a special token, as this backbone's texts do".into()));
        }
        Ok(Self { pieces, fill, around: [before, behind] })
    }

    /// The ids of each text.
    pub(super) fn encode(&self, texts: Vec<&str>) -> Result<Vec<Tokens>> {
        let encodings =
            self.pieces.encode_batch_fast(texts, true).map_err(|error| Error::invalid("text", error.to_string()))?;
        let row = |encoding: &tokenizers::Encoding| Tokens {
            ids: encoding.get_ids().to_vec(),
            truncated: !encoding.get_overflowing().is_empty(),
        };
        Ok(encodings.iter().map(row).collect())
    }

    /// The ids of a text's words, without special tokens.
    pub(super) fn words(&self, text: &str) -> Result<Vec<u32>> {
        let encoding =
            self.pieces.encode_fast(text, false).map_err(|error| Error::invalid("text", error.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    pub(super) fn pieces(&self) -> &tokenizers::Tokenizer {
        &self.pieces
    }
}

/// The padding token.
fn padding(pieces: &tokenizers::Tokenizer, path: &Path) -> Result<Option<u32>> {
    let beside = path.with_file_name("tokenizer_config.json");
    let named = match beside.is_file() {
        true => {
            let config: Value = file::read_json(&beside, "tokenizer config")?;
            let token = config.get("pad_token").cloned().unwrap_or_default();
            token.as_str().or_else(|| token.get("content").and_then(Value::as_str)).map(String::from)
        }
        false => None,
    };
    let own = || pieces.get_padding().map(|padding| padding.pad_id);
    Ok(named.and_then(|token| pieces.token_to_id(&token)).or_else(own))
}
