//! ViLT (Kim et al., 2021, arXiv 2102.03334): `ViltForImageAndTextRetrieval` and `ViltForMaskedLM` of `transformers`.
//!
//! Embedded patches stand behind embedded words in one transformer, whose blocks belong to the text tower; the image tower has
//! none. The embeddings of the two modalities are the same for all tokens of a kind, so that they are added to what is: the positions
//! of an image, and the offset of the normalisation of words.

use super::Checkpoint;
use super::config::{Defaults, Section};
use super::names::{add_row, layer, numbered, renamed, squeeze, word_head};
use super::vit::{BLOCK, TOWER};
use crate::backbone::{
    BackboneSpec, Crossing, ImagePool, ImageSpec, ImageStyle, Meeting, StateDict, TextAttention, TextPool,
    TextProjection, TextSpec, TextStyle, TransformerSpec,
};
use crate::error::Result;

const DEFAULTS: Defaults = TOWER;

/// The canonical places that modalities and segments are added to.
const POSITIONS: [&str; 2] =
    ["text_model.embeddings.position_embedding.weight", "vision_model.embeddings.position_embedding.weight"];

pub(super) fn read(config: &Section<'_>, tensors: StateDict) -> Result<Checkpoint> {
    let (matches, words) =
        (tensors.contains_key("rank_output.weight"), tensors.keys().any(|name| name.starts_with("mlm_score.")));
    if !matches && !words {
        let reason = "its weights have neither `rank_output` nor `mlm_score`: of ViLT, models that match images and texts \
                      (`ViltForImageAndTextRetrieval`) and that tell masked words (`ViltForMaskedLM`) are supported";
        return Err(config.wrong(reason));
    }
    if config.text("position_embedding_type").is_some_and(|kind| kind != "absolute") {
        return Err(config.wrong("`position_embedding_type` must be `absolute`"));
    }
    let transformer = TransformerSpec { plain_qkv: !config.flag("qkv_bias", true)?, ..config.transformer(&DEFAULTS)? };
    let style = ImageStyle {
        channels: config.number("num_channels", 3)?,
        patch_bias: true,
        pre_norm: false,
        pool: ImagePool::Tokens,
        projection: false,
        ..ImageStyle::default()
    };
    let embedded = TransformerSpec { depth: 0, ..transformer.clone() };
    let (size, patch) = (config.number("image_size", 384)?, config.number("patch_size", 32)?);
    let image = ImageSpec { style, ..ImageSpec::new(size, patch, embedded) };
    let style = TextStyle {
        attention: TextAttention::Both,
        embedding_norm: true,
        pool: TextPool::First,
        projection: TextProjection::None,
        ..TextStyle::default()
    };
    let (context, vocabulary) = (config.number("max_position_embeddings", 40)?, config.number("vocab_size", 30522)?);
    let text = TextSpec { style, ..TextSpec::new(context, vocabulary, transformer) };
    let crossing = Crossing { meeting: Meeting::Stream, matches, words, start: None, mask: None };

    let mut tensors = renamed(tensors, |name| canonical(name, matches));
    squeeze(&mut tensors, "vision_model.embeddings.class_embedding", 1);
    squeeze(&mut tensors, POSITIONS[1], 2);
    if let Some(segments) = tensors.remove(SEGMENTS) {
        add_row(&mut tensors, POSITIONS[0], &segments, 0);
    }
    let Some(modalities) = tensors.remove(MODALITIES) else {
        return Err(config.wrong("its weights have no `vilt.embeddings.token_type_embeddings.weight`"));
    };
    add_row(&mut tensors, "text_model.embeddings.layer_norm.bias", &modalities, 0);
    add_row(&mut tensors, POSITIONS[1], &modalities, 1);
    word_head(&mut tensors);
    Ok(Checkpoint::new(BackboneSpec::crossing(image, text, crossing), tensors))
}

/// Names of embeddings until they are added to others.
const SEGMENTS: &str = "segments";
const MODALITIES: &str = "modalities";

fn canonical(name: &str, matches: bool) -> Option<String> {
    let inner = name.strip_prefix("vilt.").unwrap_or(name);
    if inner.ends_with("embeddings.position_ids") || inner.ends_with("embeddings.token_type_ids") {
        return None; // Buffers.
    }
    if let Some((block, rest)) = numbered(inner, "encoder.layer.") {
        let known = layer(rest, &BLOCK);
        return Some(known.map_or_else(|| name.into(), |rest| format!("text_model.encoder.layers.{block}.{rest}")));
    }
    if let Some(rest) = inner.strip_prefix("mlm_score.") {
        return Some(format!("word_head.{rest}"));
    }
    if let Some(kind) = inner.strip_prefix("pooler.dense.") {
        return matches.then(|| format!("match_head.pooler.{kind}"));
    }
    if let Some(kind) = inner.strip_prefix("rank_output.") {
        return Some(format!("match_head.score.{kind}"));
    }
    if let Some(kind) = inner.strip_prefix("layernorm.") {
        return Some(format!("text_model.final_layer_norm.{kind}"));
    }
    let (image, text) = ("vision_model.embeddings", "text_model.embeddings");
    Some(match inner {
        "embeddings.cls_token" => format!("{image}.class_embedding"),
        "embeddings.position_embeddings" => POSITIONS[1].into(),
        "embeddings.patch_embeddings.projection.weight" => format!("{image}.patch_embedding.weight"),
        "embeddings.patch_embeddings.projection.bias" => format!("{image}.patch_embedding.bias"),
        "embeddings.token_type_embeddings.weight" => MODALITIES.into(),
        "embeddings.text_embeddings.token_type_embeddings.weight" => SEGMENTS.into(),
        "embeddings.text_embeddings.word_embeddings.weight" => format!("{text}.token_embedding.weight"),
        "embeddings.text_embeddings.position_embeddings.weight" => POSITIONS[0].into(),
        "embeddings.text_embeddings.LayerNorm.weight" => format!("{text}.layer_norm.weight"),
        "embeddings.text_embeddings.LayerNorm.bias" => format!("{text}.layer_norm.bias"),
        _ => name.to_string(),
    })
}
