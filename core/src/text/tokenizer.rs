//! The CLIP tokenizer: lower-cased byte-level byte-pair encoding between a begin and an end token; other families bring
//! [their own rules](Tokenizer::with_own_rules).
//!
//! The reference is `CLIPTokenizerFast` of Hugging Face with the same `tokenizer.json`: token ids are equal. OpenAI's own
//! Python tokenizer first cleans a text (repairs broken encodings, drops control characters, straightens curly quotes,
//! narrows full-width letters, resolves HTML entities such as `&amp;`) and then gives the same ids. Of texts that need no
//! cleaning, it differs on the final form of a capital Greek sigma, on a long s after an apostrophe and on
//! `<|ENDOFTEXT|>` in capitals. `tests/parity/tokenizer` holds both.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::own_rules::{OwnRules, config_beside, lower_case};
use super::tokenizer_json::{check_merges, check_model, identity};
use super::vocabulary::{BEGIN, END, WORD_END, byte_symbols, bytes_in_order};
use crate::digest::{Digest, DigestBuilder};
use crate::error::{Error, Result};
use crate::file;

/// What error messages call the file.
const FORMAT: &str = "CLIP tokenizer";

/// What error messages advise for a file of another model.
const CURE: &str = "use the `tokenizer.json` that was published with this backbone";

/// One text as token ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// The ids from the begin token to the end token, both included; not padded, at most `context_length` of them.
    pub ids: Vec<u32>,
    /// Whether the text was too long and lost its tail.
    pub truncated: bool,
}

/// Turns texts into the token ids of one backbone.
///
/// Padding and truncation written in the file are ignored: rows are cut to the context length given here, the end token
/// stays last, and padding is left to the text tower. A text that spells out `<|endoftext|>` gets the end token at that
/// place, as in the reference, and a text tower then pools there.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: Inner,
    path: PathBuf,
    digest: Digest,
    context_length: usize,
    vocab_size: usize,
    bos: u32,
    eot: u32,
}

/// How a text becomes ids.
#[derive(Debug, Clone)]
enum Inner {
    /// By its pieces.
    Pieces(Box<tokenizers::Tokenizer>),
    /// By the rules of its file.
    Own(Box<OwnRules>),
    /// As one of a list of whole texts: its place.
    Texts(HashMap<String, u32>),
}

impl Tokenizer {
    /// A tokenizer that knows these whole texts and no others: each is one id, its place. `path` is named in errors.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a text that is there twice.
    pub fn of_texts(texts: &[String], path: &Path) -> Result<Self> {
        let mut places = HashMap::new();
        let mut builder = DigestBuilder::default();
        for (place, text) in texts.iter().enumerate() {
            builder.piece(text.as_bytes());
            if places.insert(text.clone(), place as u32).is_some() {
                return Err(Error::malformed("list of texts", path, format!("`{text}` is there twice")));
            }
        }
        Ok(Self {
            inner: Inner::Texts(places),
            path: path.to_path_buf(),
            digest: builder.finish(),
            context_length: 1,
            vocab_size: texts.len(),
            bos: 0,
            eot: 0,
        })
    }

    /// The place of a whole text, for a tokenizer that knows whole texts.
    pub fn place_of(&self, text: &str) -> Option<u32> {
        match &self.inner {
            Inner::Texts(places) => places.get(text).copied(),
            Inner::Pieces(_) | Inner::Own(_) => None,
        }
    }

    /// Reads a `tokenizer.json` of another family than CLIP, with its own special tokens. Where `tokenizer_config.json` beside it
    /// says that it is Gemma's, as that of SigLIP 2 is, texts are made lower case first: so that model was trained.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Malformed`] for a file that the tokenizer library does not read, or that ends no text with a
    /// special token.
    pub fn with_own_rules(path: &Path, context_length: usize) -> Result<Self> {
        let mut bytes = file::read(path)?;
        let malformed = |error: serde_json::Error| Error::malformed(FORMAT, path, error);
        let mut file: Value = serde_json::from_slice(&bytes).map_err(malformed)?;
        check_merges(&file).map_err(|reason| Error::malformed(FORMAT, path, reason))?;
        let config = config_beside(path)?;
        if lower_case(&mut file, &config) {
            bytes = serde_json::to_vec(&file).map_err(malformed)?;
        }
        let rules = OwnRules::read(&bytes, &config, path, context_length)?;
        let vocab_size = rules.pieces().get_vocab(true).values().max().map_or(0, |highest| *highest as usize + 1);
        let [before, behind] = &rules.around;
        let (bos, eot) = (before.first().copied().unwrap_or(0), behind[0]);
        let (path, digest) = (path.to_path_buf(), identity(&file));
        Ok(Self { inner: Inner::Own(Box::new(rules)), path, digest, context_length, vocab_size, bos, eot })
    }

    /// The token with which texts are filled.
    ///
    /// # Errors
    /// [`Error::Malformed`] when its files name none.
    pub fn padding(&self) -> Result<u32> {
        let padding = match &self.inner {
            Inner::Own(rules) => rules.fill,
            Inner::Pieces(_) | Inner::Texts(_) => None,
        };
        padding.ok_or_else(|| {
            let reason = "no padding token is named, with which texts of this backbone are filled: add `pad_token` to \
                          `tokenizer_config.json` beside it";
            Error::malformed("tokenizer", &self.path, reason)
        })
    }

    /// The token that hides a word, `[MASK]`.
    ///
    /// # Errors
    /// [`Error::Malformed`] when there is none.
    pub fn mask(&self) -> Result<u32> {
        let mask = match &self.inner {
            Inner::Own(rules) => rules.pieces().token_to_id("[MASK]"),
            Inner::Pieces(_) | Inner::Texts(_) => None,
        };
        mask.ok_or_else(|| {
            let reason = "it has no `[MASK]` token, which hides the words that this backbone tells";
            Error::malformed("tokenizer", &self.path, reason)
        })
    }

    /// The ids of a text's words, without the tokens around them.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn words(&self, text: &str) -> Result<Vec<u32>> {
        if let Inner::Own(rules) = &self.inner {
            return rules.words(text);
        }
        let ids = self.encode(&[text])?.remove(0).ids;
        Ok(ids.get(1..ids.len().max(2) - 1).unwrap_or_default().to_vec())
    }

    /// Reads a `tokenizer.json`; `context_length` is that of the backbone's text tower (77 for CLIP).
    ///
    /// # Errors
    /// [`Error::Io`], and those of [`Tokenizer::from_bytes`].
    pub fn from_file(path: &Path, context_length: usize) -> Result<Self> {
        Self::from_bytes(&file::read(path)?, path, context_length)
    }

    /// Reads the bytes of a `tokenizer.json`; `path` is where they came from, for messages.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the file is not a CLIP-style tokenizer: not JSON, not byte-pair encoding with
    /// `</w>` word ends, a begin or end token or one of the 512 byte symbols missing.
    /// [`Error::Invalid`] for a context that has no room for a word between begin and end.
    pub fn from_bytes(bytes: &[u8], path: &Path, context_length: usize) -> Result<Self> {
        if context_length < 3 {
            let reason = format!("begin, one token and end need 3 places, the text tower has {context_length}");
            return Err(Error::invalid("context length", reason));
        }
        let malformed = |reason: String| Error::malformed(FORMAT, path, reason);
        let file: Value = serde_json::from_slice(bytes).map_err(|error| malformed(format!("{error}; {CURE}")))?;
        check_model(&file).map_err(|reason| malformed(format!("{reason}; {CURE}")))?;
        let mut inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(|error| malformed(error.to_string()))?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| malformed(error.to_string()))?;

        let vocabulary = inner.get_vocab(true);
        let find = |token: &str| {
            vocabulary.get(token).copied().ok_or_else(|| malformed(format!("it has no token `{token}`; {CURE}")))
        };
        let (bos, eot) = (find(BEGIN)?, find(END)?);
        for symbol in byte_symbols() {
            find(&symbol)?;
        }
        let vocab_size = vocabulary.values().max().map_or(0, |&highest| highest as usize + 1);
        let inner = Inner::Pieces(Box::new(inner));
        Ok(Self { inner, path: path.to_path_buf(), digest: identity(&file), context_length, vocab_size, bos, eot })
    }

    /// This tokenizer as a `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the tokenizer library cannot write what it read.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let inner = match &self.inner {
            Inner::Pieces(inner) => inner,
            Inner::Own(rules) => rules.pieces(),
            Inner::Texts(_) => return Err(Error::invalid(FORMAT, "whole texts have no `tokenizer.json`")),
        };
        let text = inner.to_string(true).map_err(|error| Error::invalid(FORMAT, error.to_string()))?;
        Ok(text.into_bytes())
    }

    /// The token ids of each text, in the order given. An empty text is valid: begin and end alone.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the tokenizer's own rules fail on a text; [`Error::Unknown`] for a text that is none of
    /// those that a tokenizer of whole texts knows.
    pub fn encode(&self, texts: &[impl AsRef<str>]) -> Result<Vec<Tokens>> {
        let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
        let inner = match &self.inner {
            Inner::Pieces(inner) => inner,
            Inner::Own(rules) => return rules.encode(texts),
            Inner::Texts(places) => {
                let place = |text: &str| match places.get(text) {
                    Some(place) => Ok(Tokens { ids: vec![*place], truncated: false }),
                    None => {
                        let mut candidates: Vec<String> = places.keys().cloned().collect();
                        candidates.sort();
                        Err(Error::Unknown { kind: "text of the embeddings", name: text.into(), candidates })
                    }
                };
                return texts.into_iter().map(place).collect();
            }
        };
        let encodings =
            inner.encode_batch_fast(texts, false).map_err(|error| Error::invalid("text", error.to_string()))?;
        let room = self.context_length - 2;
        let row = |encoding: &tokenizers::Encoding| {
            let words = encoding.get_ids();
            let kept = &words[..words.len().min(room)];
            let mut ids = Vec::with_capacity(kept.len() + 2);
            ids.push(self.bos);
            ids.extend_from_slice(kept);
            ids.push(self.eot);
            Tokens { ids, truncated: words.len() > room }
        };
        Ok(encodings.iter().map(row).collect())
    }

    /// The text of some ids: lower case, one space behind every word. Begin, end and unknown ids are left out.
    pub fn decode(&self, ids: &[u32]) -> String {
        let inner = match &self.inner {
            Inner::Pieces(inner) => inner,
            Inner::Own(rules) => return rules.pieces().decode(ids, true).unwrap_or_default(),
            Inner::Texts(_) => return String::new(),
        };
        let symbols = byte_symbols();
        let bytes: HashMap<char, u8> = bytes_in_order()
            .zip(symbols.iter().filter_map(|text| text.chars().next()))
            .map(|(byte, symbol)| (symbol, byte))
            .collect();
        let mut text = Vec::new();
        for token in ids.iter().filter(|id| ![self.bos, self.eot].contains(id)).filter_map(|id| inner.id_to_token(*id))
        {
            let (word, end) = token.strip_suffix(WORD_END).map_or((token.as_str(), false), |word| (word, true));
            text.extend(word.chars().filter_map(|symbol| bytes.get(&symbol)));
            text.extend(end.then_some(b' '));
        }
        String::from_utf8_lossy(&text).trim_end().to_owned()
    }

    /// Refuses a tokenizer that can give ids which the text tower has no row for.
    ///
    /// A smaller vocabulary is accepted: some towers pad their table.
    ///
    /// # Errors
    /// [`Error::Mismatch`] naming the file, both sizes and the cure.
    pub fn check_vocabulary(&self, embedding_rows: usize) -> Result<()> {
        if self.vocab_size <= embedding_rows {
            return Ok(());
        }
        Err(Error::mismatch(
            format!("vocabulary of `{}`", self.path.display()),
            format!("at most {embedding_rows} tokens, the rows of the text tower's embedding ({CURE})"),
            self.vocab_size,
        ))
    }

    /// One more than the highest id, added tokens included.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The symbol of an id, as the vocabulary writes it, or `None` for an id without one.
    pub fn symbol(&self, id: u32) -> Option<String> {
        match &self.inner {
            Inner::Pieces(pieces) => pieces.id_to_token(id),
            Inner::Own(rules) => rules.pieces().id_to_token(id),
            Inner::Texts(places) => places.iter().find(|(_, place)| **place == id).map(|(text, _)| text.clone()),
        }
    }

    /// The most ids that [`Tokenizer::encode`] gives for a text.
    pub fn context_length(&self) -> usize {
        self.context_length
    }

    /// The id of the begin token, `<|startoftext|>` in CLIP; 0 where texts have none.
    pub fn bos(&self) -> u32 {
        self.bos
    }

    /// The id of the end token, `<|endoftext|>` in CLIP, which pools the text there.
    pub fn eot(&self) -> u32 {
        self.eot
    }

    /// The identity of the rules and the vocabulary: files that differ in white space, key order, the spelling of
    /// merges, padding or truncation have the same digest.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// Two merges make `a` + `t</w>` one token and then `c` + `at</w>`.
    pub(in crate::text) fn file() -> Value {
        let mut tokens: Vec<String> = byte_symbols();
        tokens.extend(["at</w>", "cat</w>", BEGIN, END].map(str::to_owned));
        let vocabulary: serde_json::Map<String, Value> =
            tokens.iter().enumerate().map(|(id, token)| (token.clone(), id.into())).collect();
        let special = |id: usize, token: &str| {
            json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": true})
        };
        json!({
            "version": "1.0",
            "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
            "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
                        "pad_type_id": 0, "pad_token": "!"},
            "added_tokens": [special(514, BEGIN), special(515, END)],
            "normalizer": {"type": "Lowercase"},
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
            "post_processor": null,
            "decoder": null,
            "model": {"type": "BPE", "dropout": null, "unk_token": END, "continuing_subword_prefix": "",
                      "end_of_word_suffix": WORD_END, "fuse_unk": false, "byte_fallback": false,
                      "vocab": vocabulary, "merges": ["a t</w>", "c at</w>"]},
        })
    }

    pub(in crate::text) fn read(file: &Value, context_length: usize) -> Result<Tokenizer> {
        Tokenizer::from_bytes(file.to_string().as_bytes(), Path::new("folder/tokenizer.json"), context_length)
    }

    #[test]
    fn merges_are_applied_between_begin_and_end() {
        let tokenizer = read(&file(), 8).unwrap();
        let tokens = tokenizer.encode(&["Cat", "at", "", "ab"]).unwrap();
        let ids: Vec<_> = tokens.iter().map(|tokens| tokens.ids.as_slice()).collect();
        // `a` is the 65th printable byte symbol, `b</w>` the 66th of the second half.
        assert_eq!(ids, [&[514, 513, 515][..], &[514, 512, 515], &[514, 515], &[514, 64, 256 + 65, 515]]);
        assert_eq!((tokenizer.bos(), tokenizer.eot(), tokenizer.vocab_size()), (514, 515, 516));
        assert!(tokens.iter().all(|tokens| !tokens.truncated));
    }

    #[test]
    fn a_long_text_is_cut_and_keeps_its_end() {
        let tokens = read(&file(), 5).unwrap().encode(&["xxxx", "xxx", "xx"]).unwrap();
        let shape: Vec<_> = tokens.iter().map(|tokens| (tokens.ids.len(), tokens.truncated)).collect();
        assert_eq!(shape, [(5, true), (5, false), (4, false)]);
        assert!(tokens.iter().all(|tokens| tokens.ids.last() == Some(&515)));
    }

    #[test]
    fn a_vocabulary_larger_than_the_table_is_refused() {
        let tokenizer = read(&file(), 8).unwrap();
        tokenizer.check_vocabulary(516).unwrap();
        let message = tokenizer.check_vocabulary(515).unwrap_err().to_string();
        assert!(message.contains("folder/tokenizer.json") && message.contains("515") && message.contains("516"));
    }
}
