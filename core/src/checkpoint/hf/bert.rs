//! BERT (Devlin et al., 2019, arXiv 1810.04805) and its kin (MiniLM): a text tower alone.
//!
//! The feature is the first token, or the mean of all when a sentence-transformers folder (`1_Pooling/config.json`) says so.
//! All texts are of one segment, whose embedding is added to the positions.

use std::path::Path;

use serde_json::Value;

use super::Checkpoint;
use super::config::{Defaults, Section};
use super::names::{add_row, layer, numbered, renamed};
use crate::backbone::{
    BackboneSpec, ImageSpec, NormOrder, StateDict, TextAttention, TextPool, TextProjection, TextSpec, TextStyle,
    TransformerSpec,
};
use crate::error::{Error, Result};
use crate::file;

pub(super) const TOWER: Defaults =
    Defaults { width: 768, depth: 12, heads: 12, mlp: 3072, activation: "gelu", epsilon: 1e-12 };

/// The layers of a block.
pub(super) const BLOCK: [(&str, &str); 8] = [
    ("attention.self.query", "self_attn.q_proj"),
    ("attention.self.key", "self_attn.k_proj"),
    ("attention.self.value", "self_attn.v_proj"),
    ("attention.output.dense", "self_attn.out_proj"),
    ("attention.output.LayerNorm", "layer_norm1"),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
    ("output.LayerNorm", "layer_norm2"),
];

pub(super) fn read(config: &Section<'_>, tensors: StateDict) -> Result<Checkpoint> {
    let text = tower(config, pooling(config.folder())?)?;
    let spec = BackboneSpec::new(text.transformer.width, ImageSpec::none(), text);
    Ok(Checkpoint::new(spec, canonical(tensors)))
}

/// The tower of a BERT whose feature is as wide as a token.
pub(super) fn tower(config: &Section<'_>, pool: TextPool) -> Result<TextSpec> {
    if config.text("position_embedding_type").is_some_and(|kind| kind != "absolute") {
        return Err(config.wrong("`position_embedding_type` must be `absolute`"));
    }
    let context = config.number("max_position_embeddings", 512)?;
    Ok(text(context, config.number("vocab_size", 30522)?, config.transformer(&TOWER)?, pool))
}

/// The same, by its sizes.
pub(in crate::checkpoint) fn text(
    context: usize,
    vocabulary: usize,
    transformer: TransformerSpec,
    pool: TextPool,
) -> TextSpec {
    let transformer = TransformerSpec { order: NormOrder::After, ..transformer };
    let style = TextStyle {
        attention: TextAttention::Both,
        embedding_norm: true,
        final_norm: false,
        pool,
        projection: TextProjection::None,
        ..TextStyle::default()
    };
    TextSpec { style, ..TextSpec::new(context, vocabulary, transformer) }
}

/// How a sentence-transformers folder pools.
fn pooling(folder: &Path) -> Result<TextPool> {
    check_modules(&folder.join("modules.json"))?;
    let path = folder.join("1_Pooling").join("config.json");
    if !path.is_file() {
        return Ok(TextPool::First);
    }
    let config: Value = file::read_json(&path, "sentence-transformers pooling")?;
    // Several together are concatenated.
    let on: Vec<&str> = config
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, value)| key.starts_with("pooling_mode_") && **value == Value::Bool(true))
        .map(|(key, _)| key.as_str())
        .collect();
    match on[..] {
        ["pooling_mode_mean_tokens"] => Ok(TextPool::Mean),
        ["pooling_mode_cls_token"] => Ok(TextPool::First),
        _ => Err(Error::malformed(
            "sentence-transformers pooling",
            &path,
            format!("`pooling_mode_mean_tokens` or `pooling_mode_cls_token` alone must be true, found {on:?}"),
        )),
    }
}

/// Refuses a sentence-transformers folder with something behind the pooling that changes the direction of a feature, as a dense layer
/// does.
fn check_modules(path: &Path) -> Result<()> {
    const FORMAT: &str = "list of sentence-transformers modules";
    const KNOWN: [&str; 4] = ["Transformer", "Pooling", "Normalize", "Dropout"];
    if !path.is_file() {
        return Ok(());
    }
    let modules: Vec<Value> = file::read_json(path, FORMAT)?;
    let mut kinds = modules.iter().filter_map(|module| module.get("type")?.as_str());
    match kinds.find(|kind| !KNOWN.iter().any(|known| kind.ends_with(known))) {
        None => Ok(()),
        Some(kind) => Err(Error::malformed(
            FORMAT,
            path,
            format!("module `{kind}` is not supported; known are {}", KNOWN.join(", ")),
        )),
    }
}

/// The canonical names, with the embedding of the first segment added to each position.
pub(in crate::checkpoint) fn canonical(tensors: StateDict) -> StateDict {
    let mut tensors = renamed(tensors, rename);
    let segments = "text_model.embeddings.token_type_embeddings.weight";
    if let Some(segments) = tensors.remove(segments) {
        add_row(&mut tensors, "text_model.embeddings.position_embedding.weight", &segments, 0);
    }
    tensors
}

fn rename(name: &str) -> Option<String> {
    // Old files call the two parts of a normalisation as TensorFlow does.
    let inner = name.strip_prefix("bert.").unwrap_or(name);
    let inner = &inner.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias");
    if inner.starts_with("pooler.") || inner.starts_with("cls.") || inner == "embeddings.position_ids" {
        return None; // Behind the feature, or a buffer.
    }
    if let Some((block, rest)) = numbered(inner, "encoder.layer.") {
        let known = layer(rest, &BLOCK).map(|rest| format!("text_model.encoder.layers.{block}.{rest}"));
        return Some(known.unwrap_or_else(|| name.to_string()));
    }
    let embeddings = "text_model.embeddings";
    Some(match inner.as_str() {
        "embeddings.word_embeddings.weight" => format!("{embeddings}.token_embedding.weight"),
        "embeddings.position_embeddings.weight" => format!("{embeddings}.position_embedding.weight"),
        "embeddings.token_type_embeddings.weight" => format!("{embeddings}.token_type_embeddings.weight"),
        "embeddings.LayerNorm.weight" => format!("{embeddings}.layer_norm.weight"),
        "embeddings.LayerNorm.bias" => format!("{embeddings}.layer_norm.bias"),
        _ => name.to_string(),
    })
}
