//! Tokenizers that bring their own rules: word pieces between two special tokens (BERT), or sentence pieces before an end token
//! (SigLIP).
//!
//! The reference is `AutoTokenizer` of Hugging Face with the same `tokenizer.json`: its special tokens, truncation to the context,
//! and its padding token.

use std::path::Path;

use serde_json::{Value, json};
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
    /// Reads the bytes of a `tokenizer.json`; `config` is what lies [beside](config_beside) it.
    pub(super) fn read(bytes: &[u8], config: &Value, path: &Path, context: usize) -> Result<Self> {
        let malformed = |reason: String| Error::malformed(FORMAT, path, reason);
        let mut pieces = tokenizers::Tokenizer::from_bytes(bytes).map_err(|error| malformed(error.to_string()))?;
        let fill = padding(&pieces, config);
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

/// The `tokenizer_config.json` beside a `tokenizer.json`; null without one.
pub(super) fn config_beside(path: &Path) -> Result<Value> {
    let beside = path.with_file_name("tokenizer_config.json");
    if beside.is_file() { file::read_json(&beside, "tokenizer config") } else { Ok(Value::Null) }
}

/// Puts lower case ahead of the rules of a `tokenizer.json` that keeps case although its model was trained without; whether
/// it did. SigLIP 2 (Tschannen et al., 2025, arXiv 2502.14786) comes with Gemma's tokenizer as it is, and the lower case
/// of its training is left to `Siglip2Tokenizer` of transformers, or to whoever calls.
pub(super) fn lower_case(file: &mut Value, config: &Value) -> bool {
    let class = config.get("tokenizer_class").and_then(Value::as_str).unwrap_or_default();
    let lower = |rule: &Value| rule.get("type").and_then(Value::as_str) == Some("Lowercase");
    let rule = file.get("normalizer").cloned().unwrap_or_default();
    let rules = match rule.get("normalizers").and_then(Value::as_array) {
        Some(rules) => rules.clone(),
        None if rule.is_null() => Vec::new(),
        None => vec![rule],
    };
    if !(class.starts_with("Gemma") || class.starts_with("Siglip2")) || rules.iter().any(lower) {
        return false;
    }
    let rules: Vec<Value> = std::iter::once(json!({ "type": "Lowercase" })).chain(rules).collect();
    let Some(fields) = file.as_object_mut() else { return false };
    fields.insert("normalizer".into(), json!({ "type": "Sequence", "normalizers": rules }));
    true
}

/// The padding token.
fn padding(pieces: &tokenizers::Tokenizer, config: &Value) -> Option<u32> {
    let token = config.get("pad_token").unwrap_or(&Value::Null);
    let named = token.as_str().or_else(|| token.get("content").and_then(Value::as_str));
    let own = || pieces.get_padding().map(|padding| padding.pad_id);
    named.and_then(|token| pieces.token_to_id(token)).or_else(own)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::lower_case;

    #[test]
    fn gemmas_rules_follow_lower_case_and_others_stay() {
        let replace = json!({ "type": "Replace", "pattern": { "String": " " }, "content": "_" });
        let lower = json!({ "type": "Lowercase" });
        let sequence = |rules: &[&Value]| json!({ "type": "Sequence", "normalizers": rules });
        for (class, rule, expected) in [
            ("GemmaTokenizerFast", replace.clone(), sequence(&[&lower, &replace])),
            ("Siglip2Tokenizer", Value::Null, sequence(&[&lower])),
            ("Siglip2Tokenizer", sequence(&[&lower, &replace]), sequence(&[&lower, &replace])),
            ("GemmaTokenizer", lower.clone(), lower.clone()),
            ("SiglipTokenizer", replace.clone(), replace.clone()),
        ] {
            let mut file = json!({ "normalizer": rule });
            let changed = lower_case(&mut file, &json!({ "tokenizer_class": class }));
            assert_eq!((changed, &file["normalizer"]), (rule != expected, &expected), "{class}");
            assert!(!lower_case(&mut file, &json!({ "tokenizer_class": class })), "{class} twice");
        }
        assert!(!lower_case(&mut json!({ "normalizer": replace }), &Value::Null));
    }
}
