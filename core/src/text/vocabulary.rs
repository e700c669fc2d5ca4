//! The CLIP vocabulary: its special tokens, its byte symbols, and how to make a smaller one.

use std::collections::HashSet;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::tokenizer::Tokenizer;
use crate::error::{Error, Result};

/// The token before a text.
pub(super) const BEGIN: &str = "<|startoftext|>";
/// The token after a text.
pub(super) const END: &str = "<|endoftext|>";
/// What the last token of a word ends in.
pub(super) const WORD_END: &str = "</w>";

/// The 256 printable characters that stand for bytes, in CLIP's order, then the same as word ends: every text can be
/// spelled with these 512.
pub(super) fn byte_symbols() -> Vec<String> {
    let plain = (0..=255u8).filter(is_printable).map(char::from);
    // Bytes that have no visible Latin-1 character are written as the characters from U+0100 on.
    let shifted = (0..=255u8).filter(|byte| !is_printable(byte)).zip('\u{100}'..).map(|(_, character)| character);
    let symbols: Vec<String> = plain.chain(shifted).map(String::from).collect();
    let ends: Vec<String> = symbols.iter().map(|symbol| format!("{symbol}{WORD_END}")).collect();
    [symbols, ends].concat()
}

fn is_printable(byte: &u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff)
}

/// The bytes that the first 256 of [`byte_symbols`] stand for.
pub(super) fn bytes_in_order() -> impl Iterator<Item = u8> {
    (0..=255u8).filter(is_printable).chain((0..=255u8).filter(|byte| !is_printable(byte)))
}

/// A smaller `tokenizer.json` out of a CLIP-style one: the byte symbols, the first `merges` merges and the special
/// tokens, with ids from 0 to `513 + merges` (more if there are other special tokens); the end token has the highest.
///
/// The result encodes every text, with more tokens than the full vocabulary does, and is read by the same programs.
/// A text tower made for it has `514 + merges` embedding rows instead of 49,408.
///
/// # Errors
/// [`Error::Malformed`] when `bytes` is not a CLIP-style tokenizer or its merges are not in the order they were learned;
/// [`Error::Invalid`] when it has fewer merges than asked for.
pub fn reduce_vocabulary(bytes: &[u8], merges: usize) -> Result<Vec<u8>> {
    let path = Path::new("tokenizer.json");
    let malformed = |reason: String| Error::malformed("CLIP tokenizer", path, reason);
    // Proves what the rest relies on: BPE with word ends, special tokens and all byte symbols.
    Tokenizer::from_bytes(bytes, path, 77)?;
    let mut file: Value = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;

    let full = file["model"]["merges"].as_array().cloned().unwrap_or_default();
    if merges > full.len() {
        let reason = format!("{merges} merges were asked for, the tokenizer has {}", full.len());
        return Err(Error::invalid("size of the reduced vocabulary", reason));
    }
    let mut tokens = byte_symbols();
    let mut known: HashSet<String> = tokens.iter().cloned().collect();
    let mut kept = Vec::with_capacity(merges);
    for merge in &full[..merges] {
        let (left, right) = parts(merge).ok_or_else(|| malformed(format!("`{merge}` is not a merge of two tokens")))?;
        if let Some(unknown) = [left, right].into_iter().find(|part| !known.contains(*part)) {
            return Err(malformed(format!("merge `{left} {right}` needs `{unknown}`, which no earlier merge makes")));
        }
        kept.push(Value::String(format!("{left} {right}")));
        // Two merges may make the same token; it has one id.
        if known.insert(format!("{left}{right}")) {
            tokens.push(format!("{left}{right}"));
        }
    }

    let mut special = file["added_tokens"].as_array().cloned().unwrap_or_default();
    special.retain(|token| token["content"].as_str().is_some_and(|content| !known.contains(content)));
    // A file may have these two in its vocabulary only; here they are always split off before the merges.
    for token in [BEGIN, END] {
        if !special.iter().any(|entry| entry["content"] == token) {
            special.push(json!({"id": 0, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                                "normalized": false, "special": true}));
        }
    }
    let rank = |token: &Value| (token["content"] == END, token["content"] == BEGIN, token["id"].as_u64());
    special.sort_by_key(rank);
    for token in &mut special {
        token["id"] = tokens.len().into();
        tokens.extend(token["content"].as_str().map(str::to_owned));
    }
    let ends = (tokens.len() - 2, tokens.len() - 1);

    let vocabulary: Map<String, Value> =
        tokens.into_iter().enumerate().map(|(id, token)| (token, Value::from(id))).collect();
    file["model"]["vocab"] = Value::Object(vocabulary);
    file["model"]["merges"] = Value::Array(kept);
    file["added_tokens"] = Value::Array(special);
    file["truncation"] = Value::Null;
    file["padding"] = Value::Null;
    file["post_processor"] = json!({"type": "RobertaProcessing", "sep": [END, ends.1], "cls": [BEGIN, ends.0],
                                    "trim_offsets": false, "add_prefix_space": false});
    let reduced = file.to_string().into_bytes();
    Tokenizer::from_bytes(&reduced, path, 77)?;
    Ok(reduced)
}

/// The two tokens of a merge, which a file spells as `"a b"` or as `["a", "b"]`.
fn parts(merge: &Value) -> Option<(&str, &str)> {
    match merge {
        Value::String(pair) => pair.split_once(' '),
        Value::Array(pair) => match pair.as_slice() {
            [left, right] => Some((left.as_str()?, right.as_str()?)),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokenizer(merges: &Value, more: &[&str]) -> Vec<u8> {
        let mut tokens = byte_symbols();
        tokens.extend(["th", "the</w>", "an", BEGIN, END].map(str::to_owned));
        tokens.extend(more.iter().map(|token| (*token).to_owned()));
        let vocabulary: Map<String, Value> =
            tokens.iter().enumerate().map(|(id, token)| (token.clone(), id.into())).collect();
        let added: Vec<Value> = tokens[515..]
            .iter()
            .zip(515..)
            .map(|(token, id)| {
                json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                       "normalized": false, "special": true})
            })
            .collect();
        json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
               "normalizer": {"type": "Lowercase"}, "post_processor": null, "decoder": null,
               "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                                 "use_regex": false},
               "model": {"type": "BPE", "dropout": null, "unk_token": END, "continuing_subword_prefix": "",
                         "end_of_word_suffix": WORD_END, "fuse_unk": false, "byte_fallback": false,
                         "vocab": vocabulary, "merges": merges}})
        .to_string()
        .into_bytes()
    }

    #[test]
    fn byte_symbols_are_those_of_clip() {
        let symbols = byte_symbols();
        let distinct: HashSet<_> = symbols.iter().collect();
        assert_eq!((symbols.len(), distinct.len()), (512, 512));
        assert_eq!([&symbols[0], &symbols[187], &symbols[188], &symbols[255]], ["!", "ÿ", "Ā", "Ń"]);
        assert_eq!([&symbols[256], &symbols[511]], ["!</w>", "Ń</w>"]);
    }

    #[test]
    fn ids_are_contiguous_and_the_end_token_is_last() {
        let full = tokenizer(&json!(["t h", "th e</w>", "a n"]), &["<|image|>"]);
        let reduced = reduce_vocabulary(&full, 1).unwrap();
        let read = Tokenizer::from_bytes(&reduced, Path::new("reduced"), 77).unwrap();
        // 512 byte symbols, `th`, `<|image|>`, begin, end.
        assert_eq!((read.vocab_size(), read.bos(), read.eot()), (516, 514, 515));
        let tokens = read.encode(&["the", "<|image|>"]).unwrap();
        assert_eq!(tokens[0].ids, [514, 512, 256 + 68, 515]);
        assert_eq!(tokens[1].ids, [514, 513, 515]);
        assert_eq!(
            Tokenizer::from_bytes(&reduce_vocabulary(&full, 3).unwrap(), Path::new("r"), 77).unwrap().eot(),
            517
        );
    }

    #[test]
    fn too_many_merges_and_merges_out_of_order_are_refused() {
        let full = tokenizer(&json!(["t h", "th e</w>", "a n"]), &[]);
        assert!(matches!(reduce_vocabulary(&full, 4), Err(Error::Invalid { .. })));
        let turned = tokenizer(&json!(["th e</w>", "t h", "a n"]), &[]);
        let message = reduce_vocabulary(&turned, 1).unwrap_err().to_string();
        assert!(message.contains("`th`"), "{message}");
    }
}
