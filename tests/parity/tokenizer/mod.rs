//! Token ids equal those of `CLIPTokenizerFast`; `generate.py` beside this file made the expected ones.

use std::path::PathBuf;

use inarch_core::text::{Tokenizer, Tokens, reduce_vocabulary};
use serde::Deserialize;

use crate::support::{data_folder, fixture};

#[derive(Deserialize)]
struct Expected {
    full_context: usize,
    reduced_merges: usize,
    reduced_context: usize,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    text: String,
    /// With the full vocabulary.
    ids: Vec<u32>,
    /// With the vocabulary of `clip_tiny/quick`.
    reduced: Vec<u32>,
    /// By OpenAI's tokenizer, where it differs.
    openai: Option<Vec<u32>>,
    /// The reason.
    why: Option<String>,
}

fn expected() -> Expected {
    let text = std::fs::read_to_string(fixture("parity/tokenizer/expected.json")).expect("the fixture is committed");
    serde_json::from_str(&text).expect("the fixture has the fields of `generate.py`")
}

/// The full tokenizer is test data, not part of the repository.
fn full_tokenizer() -> PathBuf {
    data_folder().join("text/tokenizer.json")
}

/// Fails with every text whose ids differ.
fn compare(expected: &[(&str, &[u32])], found: &[Tokens]) {
    assert_eq!(expected.len(), found.len());
    let wrong: Vec<String> = expected
        .iter()
        .zip(found)
        .filter(|((_, ids), tokens)| *ids != tokens.ids)
        .map(|((text, ids), tokens)| format!("{text:?}: expected {ids:?}, found {:?}", tokens.ids))
        .collect();
    assert!(wrong.is_empty(), "{} of {} texts differ:\n{}", wrong.len(), found.len(), wrong.join("\n"));
}

fn check(tokenizer: &Tokenizer, expected: &[(&str, &[u32])]) {
    let texts: Vec<&str> = expected.iter().map(|(text, _)| *text).collect();
    let found = tokenizer.encode(&texts).expect("every text can be encoded");
    compare(expected, &found);
    // One by one and all at once are the same.
    let single: Vec<Tokens> = texts.iter().flat_map(|text| tokenizer.encode(&[text]).expect("one text")).collect();
    assert_eq!(single, found);
    for tokens in &found {
        assert!(tokens.ids.len() <= tokenizer.context_length());
        assert_eq!((tokens.ids[0], *tokens.ids.last().expect("never empty")), (tokenizer.bos(), tokenizer.eot()));
        assert!(!tokens.truncated || tokens.ids.len() == tokenizer.context_length());
    }
}

#[test]
fn the_full_vocabulary_gives_the_ids_of_the_reference() {
    let expected = expected();
    let tokenizer = Tokenizer::from_file(&full_tokenizer(), expected.full_context).expect("the CLIP tokenizer");
    assert_eq!((tokenizer.vocab_size(), tokenizer.bos(), tokenizer.eot()), (49_408, 49_406, 49_407));
    assert!(expected.cases.len() > 400);
    let cases: Vec<_> = expected.cases.iter().map(|case| (case.text.as_str(), case.ids.as_slice())).collect();
    check(&tokenizer, &cases);
}

#[test]
fn a_reduced_vocabulary_gives_the_ids_of_the_reference() {
    let expected = expected();
    let path = fixture("parity/clip_tiny/quick/tokenizer.json");
    let tokenizer = Tokenizer::from_file(&path, expected.reduced_context).expect("the tokenizer of `clip_tiny`");
    assert_eq!(tokenizer.vocab_size(), 514 + expected.reduced_merges);
    let cases: Vec<_> = expected.cases.iter().map(|case| (case.text.as_str(), case.reduced.as_slice())).collect();
    check(&tokenizer, &cases);
}

#[test]
fn the_vocabulary_is_reduced_as_the_generators_do() {
    let full = std::fs::read(full_tokenizer()).expect("the full tokenizer");
    let expected = expected();
    let made = reduce_vocabulary(&full, expected.reduced_merges).expect("86 merges");
    let fixture = std::fs::read(fixture("parity/clip_tiny/quick/tokenizer.json")).expect("the fixture is committed");
    let read = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).expect("JSON");
    assert_eq!(read(&made), read(&fixture));

    // All merges give the full vocabulary back, which has nothing else.
    let all = reduce_vocabulary(&full, 48_894).expect("all merges");
    assert_eq!(read(&all), read(&full));
    assert!(reduce_vocabulary(&full, 48_895).is_err());
}

#[test]
fn the_differences_to_openai_have_known_reasons() {
    let known = [
        "ftfy repairs the text",
        "HTML entities are resolved",
        "lower case depends on the place (final sigma)",
        "the long s counts as an s after an apostrophe",
        "the names of special tokens",
    ];
    for case in expected().cases {
        assert_eq!(case.openai.is_some(), case.why.is_some());
        assert!(case.why.is_none_or(|why| known.contains(&why.as_str())));
        assert!(case.openai.is_none_or(|ids| ids != case.ids));
    }
}
