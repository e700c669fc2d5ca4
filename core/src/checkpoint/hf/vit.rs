//! ViT (Dosovitskiy et al., 2021, arXiv 2010.11929) and DeiT (Touvron et al., 2021, arXiv 2012.12877): an image tower alone, whose
//! feature is the normalised class token.

use super::Checkpoint;
use super::config::{Defaults, Section};
use super::names::{layer, numbered, renamed, squeeze};
use crate::backbone::{BackboneSpec, ClassHead, ImageSpec, ImageStyle, StateDict, TextSpec};
use crate::error::Result;

pub(super) const TOWER: Defaults =
    Defaults { width: 768, depth: 12, heads: 12, mlp: 3072, activation: "gelu", epsilon: 1e-12 };

/// The layers of a block.
pub(super) const BLOCK: [(&str, &str); 8] = [
    ("layernorm_before", "layer_norm1"),
    ("attention.attention.query", "self_attn.q_proj"),
    ("attention.attention.key", "self_attn.k_proj"),
    ("attention.attention.value", "self_attn.v_proj"),
    ("attention.output.dense", "self_attn.out_proj"),
    ("layernorm_after", "layer_norm2"),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
];

pub(super) fn read(config: &Section<'_>, tensors: StateDict) -> Result<Checkpoint> {
    let mut tensors = tensors;
    let head = class_head(config, &mut tensors);
    let mut tensors = renamed(tensors, canonical);
    embeddings(&mut tensors);
    Ok(Checkpoint { head, ..Checkpoint::new(spec(config, &tensors, &TOWER)?, tensors) })
}

/// The shape of a tower alone, in the terms of this family's configs.
pub(super) fn spec(config: &Section<'_>, tensors: &StateDict, defaults: &Defaults) -> Result<BackboneSpec> {
    let mut transformer = config.transformer(defaults)?;
    transformer.plain_qkv = !config.flag("qkv_bias", true)?;
    let distilled = tensors.contains_key("vision_model.embeddings.distillation_embedding");
    let style = ImageStyle {
        channels: config.number("num_channels", 3)?,
        class_tokens: if distilled { 2 } else { 1 },
        patch_bias: true,
        pre_norm: false,
        projection: false,
        ..ImageStyle::default()
    };
    let (width, size) = (transformer.width, config.number("image_size", 224)?);
    let image = ImageSpec { style, ..ImageSpec::new(size, config.number("patch_size", 16)?, transformer) };
    Ok(BackboneSpec::new(width, image, TextSpec::none()))
}

fn canonical(name: &str) -> Option<String> {
    let inner = name.strip_prefix("vit.").or_else(|| name.strip_prefix("deit.")).unwrap_or(name);
    if inner.starts_with("pooler.") {
        return None; // Behind the feature.
    }
    if let Some((block, rest)) = numbered(inner, "encoder.layer.") {
        let known = layer(rest, &BLOCK).map(|rest| format!("vision_model.encoder.layers.{block}.{rest}"));
        return Some(known.unwrap_or_else(|| name.to_string()));
    }
    Some(embedding(inner).unwrap_or_else(|| name.to_string()))
}

/// The tensors outside of blocks, as this family and its kin call them.
pub(super) fn embedding(name: &str) -> Option<String> {
    let vision = "vision_model";
    Some(match name {
        "embeddings.cls_token" => format!("{vision}.embeddings.class_embedding"),
        "embeddings.distillation_token" => format!("{vision}.embeddings.distillation_embedding"),
        "embeddings.position_embeddings" => format!("{vision}.embeddings.position_embedding.weight"),
        "embeddings.patch_embeddings.projection.weight" => format!("{vision}.embeddings.patch_embedding.weight"),
        "embeddings.patch_embeddings.projection.bias" => format!("{vision}.embeddings.patch_embedding.bias"),
        "layernorm.weight" => format!("{vision}.post_layernorm.weight"),
        "layernorm.bias" => format!("{vision}.post_layernorm.bias"),
        _ => return None,
    })
}

/// Brings the embeddings, which are written with axes of length one, to their shapes.
pub(super) fn embeddings(tensors: &mut StateDict) {
    for (name, axes) in [("class_embedding", 1), ("distillation_embedding", 1), ("position_embedding.weight", 2)] {
        squeeze(tensors, &format!("vision_model.embeddings.{name}"), axes);
    }
}

/// Takes the dense layer that tells the checkpoint's own classes apart. DeiT may have two, of which that of the class token
/// is taken.
pub(super) fn class_head(config: &Section<'_>, tensors: &mut StateDict) -> Option<ClassHead> {
    for other in ["distillation_classifier.weight", "distillation_classifier.bias"] {
        tensors.remove(other);
    }
    let mut take = |kind: &str| {
        let names = ["classifier", "cls_classifier"].map(|name| format!("{name}.{kind}"));
        names.iter().find_map(|name| tensors.remove(name))
    };
    let (weight, bias) = (take("weight")?, take("bias"));
    let labels = config.get("id2label").and_then(serde_json::Value::as_object);
    let count = weight.shape.first().copied().unwrap_or(0);
    let label = |index: usize| {
        let name = labels.and_then(|labels| labels.get(&index.to_string())?.as_str());
        name.map_or_else(|| format!("LABEL_{index}"), String::from)
    };
    Some(ClassHead { classes: (0..count).map(label).collect(), weight, bias })
}
