//! BLIP as a captioner (Li et al., 2022, arXiv 2201.12086): `BlipForConditionalGeneration` of `transformers`.
//!
//! A ViT, all of whose tokens a causal BERT looks at in each of its blocks; the BERT's head tells the next word. A caption begins
//! with a token of its own in place of the tokenizer's.

use super::Checkpoint;
use super::bert::BLOCK;
use super::config::{Defaults, Section};
use super::names::{layer, numbered, renamed, split_qkv, squeeze, word_head};
use crate::backbone::{
    BackboneSpec, Crossing, ImagePool, ImageSpec, ImageStyle, Meeting, NormOrder, StateDict, TextProjection, TextSpec,
    TextStyle, TransformerSpec,
};
use crate::error::Result;

const VISION: Defaults = Defaults { width: 768, depth: 12, heads: 12, mlp: 3072, activation: "gelu", epsilon: 1e-5 };
const TEXT: Defaults = Defaults { width: 768, depth: 12, heads: 8, mlp: 3072, activation: "gelu", epsilon: 1e-12 };

/// The layers of the attention to an image.
const CROSS: [(&str, &str); 5] = [
    ("crossattention.self.query", "cross_attn.q_proj"),
    ("crossattention.self.key", "cross_attn.k_proj"),
    ("crossattention.self.value", "cross_attn.v_proj"),
    ("crossattention.output.dense", "cross_attn.out_proj"),
    ("crossattention.output.LayerNorm", "layer_norm_cross"),
];

pub(super) fn read(config: &Section<'_>, tensors: StateDict) -> Result<Checkpoint> {
    if !tensors.keys().any(|name| name.starts_with("text_decoder.")) {
        let reason =
            "its weights have no `text_decoder`: of BLIP, captioners are supported (`BlipForConditionalGeneration`)";
        return Err(config.wrong(reason));
    }
    let (vision, text) = (config.inner("vision_config"), config.inner("text_config"));
    if text.text("position_embedding_type").is_some_and(|kind| kind != "absolute") {
        return Err(config.wrong("text_config: `position_embedding_type` must be `absolute`"));
    }
    let style = ImageStyle {
        patch_bias: true,
        pre_norm: false,
        pool: ImagePool::Tokens,
        projection: false,
        channels: vision.number("num_channels", 3)?,
        ..ImageStyle::default()
    };
    let (size, patch) = (vision.number("image_size", 384)?, vision.number("patch_size", 16)?);
    let image = ImageSpec { style, ..ImageSpec::new(size, patch, vision.transformer(&VISION)?) };
    let transformer = TransformerSpec { order: NormOrder::After, ..text.transformer(&TEXT)? };
    let style =
        TextStyle { embedding_norm: true, final_norm: false, projection: TextProjection::None, ..TextStyle::default() };
    let (context, vocabulary) = (text.number("max_position_embeddings", 512)?, text.number("vocab_size", 30524)?);
    let start = text.number("bos_token_id", 30522)?;
    let text = TextSpec { style, ..TextSpec::new(context, vocabulary, transformer) };
    let crossing = Crossing {
        meeting: Meeting::Attention,
        matches: false,
        words: true,
        start: Some(u32::try_from(start).unwrap_or(u32::MAX)),
        mask: None,
    };
    let mut tensors = renamed(tensors, canonical);
    squeeze(&mut tensors, "vision_model.embeddings.class_embedding", 1);
    squeeze(&mut tensors, "vision_model.embeddings.position_embedding.weight", 2);
    for block in 0..image.transformer.depth {
        let prefix = format!("vision_model.encoder.layers.{block}.self_attn");
        for kind in ["weight", "bias"] {
            split_qkv(&mut tensors, &format!("{prefix}.qkv.{kind}"), &prefix, kind);
        }
    }
    word_head(&mut tensors);
    Ok(Checkpoint::new(BackboneSpec::crossing(image, text, crossing), tensors))
}

fn canonical(name: &str) -> Option<String> {
    if name.ends_with("embeddings.position_ids") {
        return None; // A buffer.
    }
    if let Some((block, rest)) = numbered(name, "text_decoder.bert.encoder.layer.") {
        let known = layer(rest, &BLOCK).or_else(|| layer(rest, &CROSS));
        return Some(known.map_or_else(|| name.into(), |rest| format!("text_model.encoder.layers.{block}.{rest}")));
    }
    if let Some((block, rest)) = numbered(name, "vision_model.encoder.layers.") {
        let rest = rest.replace("self_attn.projection.", "self_attn.out_proj.");
        return Some(format!("vision_model.encoder.layers.{block}.{rest}"));
    }
    if let Some(rest) = name.strip_prefix("text_decoder.cls.predictions.") {
        return Some(format!("word_head.{rest}"));
    }
    let embeddings = "text_model.embeddings";
    Some(match name {
        "vision_model.embeddings.position_embedding" => format!("{name}.weight"),
        "text_decoder.bert.embeddings.word_embeddings.weight" => format!("{embeddings}.token_embedding.weight"),
        "text_decoder.bert.embeddings.position_embeddings.weight" => format!("{embeddings}.position_embedding.weight"),
        "text_decoder.bert.embeddings.LayerNorm.weight" => format!("{embeddings}.layer_norm.weight"),
        "text_decoder.bert.embeddings.LayerNorm.bias" => format!("{embeddings}.layer_norm.bias"),
        _ => name.to_string(),
    })
}
