//! What a `tokenizer.json` must say, and what of it is the identity of a tokenizer.

use serde_json::Value;

use super::vocabulary::WORD_END;
use crate::digest::{Digest, DigestBuilder};

/// Refuses models of other families early, with a message about the family instead of about ids.
pub(super) fn check_model(file: &Value) -> Result<(), String> {
    let model = file.get("model").ok_or("it has no `model`")?;
    // Files of the first releases carry no type; merges tell them apart.
    let kind = model.get("type").and_then(Value::as_str);
    if kind.map_or(model.get("merges").is_none(), |kind| kind != "BPE") {
        return Err(format!("expected a `BPE` model, found `{}`", kind.unwrap_or("unknown")));
    }
    if model.get("end_of_word_suffix").and_then(Value::as_str) != Some(WORD_END) {
        return Err(format!("expected words that end in `{WORD_END}`, as CLIP's do"));
    }
    check_merges(file)
}

/// Refuses merges that are drawn.
pub(super) fn check_merges(file: &Value) -> Result<(), String> {
    match file.pointer("/model/dropout").and_then(Value::as_f64).is_some_and(|dropout| dropout > 0.0) {
        true => Err("its merges are dropped at random (`dropout`), so that ids would differ between calls".to_owned()),
        false => Ok(()),
    }
}

/// The digest of what decides ids, in one spelling.
pub(super) fn identity(file: &Value) -> Digest {
    let mut kept = file.clone();
    if let Some(fields) = kept.as_object_mut() {
        for name in ["version", "padding", "truncation"] {
            fields.remove(name);
        }
    }
    // The library writes this default out; files of its older versions leave it away.
    if let Some(model) = kept.get_mut("model").and_then(Value::as_object_mut)
        && model.get("ignore_merges") == Some(&Value::Bool(false))
    {
        model.remove("ignore_merges");
    }
    if let Some(merges) = kept.pointer_mut("/model/merges").and_then(Value::as_array_mut) {
        for merge in merges {
            if let Some([left, right]) = merge.as_array().map(Vec::as_slice)
                && let (Some(left), Some(right)) = (left.as_str(), right.as_str())
            {
                *merge = Value::String(format!("{left} {right}"));
            }
        }
    }
    kept.sort_all_objects();
    let mut builder = DigestBuilder::default();
    builder.piece(kept.to_string().as_bytes());
    builder.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::error::Error;
    use crate::text::tokenizer::tests::{file, read};
    use crate::text::vocabulary::END;

    #[test]
    fn spelling_does_not_change_the_identity_and_a_merge_does() {
        let (plain, mut pairs, mut other) = (file(), file(), file());
        pairs["model"]["merges"] = json!([["a", "t</w>"], ["c", "at</w>"]]);
        pairs["padding"] = Value::Null;
        other["model"]["merges"] = json!(["a t</w>"]);
        let digest = |file: &Value| read(file, 8).unwrap().digest().clone();
        assert_eq!(digest(&plain), digest(&pairs));
        assert_ne!(digest(&plain), digest(&other));
    }

    #[test]
    fn a_wrong_file_is_refused_by_name() {
        let mut word_piece = file();
        word_piece["model"]["type"] = json!("WordPiece");
        let mut no_suffix = file();
        no_suffix["model"]["end_of_word_suffix"] = json!("");
        let mut random = file();
        random["model"]["dropout"] = json!(0.1);
        let mut no_end = file();
        no_end["model"]["vocab"].as_object_mut().unwrap().remove(END);
        no_end["model"]["unk_token"] = Value::Null;
        no_end["added_tokens"] = json!([]);
        let mut no_byte = file();
        no_byte["model"]["vocab"].as_object_mut().unwrap().remove("!");
        for (file, words) in [
            (word_piece, "found `WordPiece`"),
            (no_suffix, "`</w>`"),
            (random, "`dropout`"),
            (no_end, "no token `<|endoftext|>`"),
            (no_byte, "no token `!`"),
            (json!([]), "no `model`"),
        ] {
            let message = read(&file, 8).unwrap_err().to_string();
            assert!(message.contains(words) && message.contains("folder/tokenizer.json"), "{message}");
        }
        assert!(matches!(read(&file(), 2), Err(Error::Invalid { .. })));
    }
}
