//! SigLIP (Zhai et al., 2023, arXiv 2303.15343).
//!
//! Checkpoints of SigLIP 2 (Tschannen et al., 2025, arXiv 2502.14786) for images of one size have the same layout and the same
//! `model_type`; only their tokenizer is another, Gemma's over lower case. Those for images of any shape are another model
//! and are refused.
//!
//! Texts fill the whole context with padding that takes part in attention, and their last token is the feature: so it was
//! trained. Image tokens are pooled by attention. Scores have a trained offset.

use super::Checkpoint;
use super::config::{Defaults, Section};
use super::names::{renamed, split_qkv, squeeze};
use crate::backbone::{
    BackboneSpec, ImagePool, ImageSpec, ImageStyle, StateDict, TextAttention, TextPool, TextProjection, TextSpec,
    TextStyle,
};
use crate::error::Result;

const TOWER: Defaults =
    Defaults { width: 768, depth: 12, heads: 12, mlp: 3072, activation: "gelu_pytorch_tanh", epsilon: 1e-6 };

pub(super) fn read(config: &Section<'_>, tensors: StateDict) -> Result<Checkpoint> {
    let (vision, text) = (config.inner("vision_config"), config.inner("text_config"));
    if vision.number("num_channels", 3)? != 3 || !vision.flag("vision_use_head", true)? {
        return Err(config.wrong("vision_config: 3 channels and `vision_use_head` are supported"));
    }
    let image = vision.transformer(&TOWER)?;
    let (dim, text_transformer) = (image.width, text.transformer(&TOWER)?);
    let projection = text.number("projection_size", text_transformer.width)?;
    if projection != dim {
        let reason = format!("text_config.projection_size is {projection}, and images have features of width {dim}");
        return Err(config.wrong(reason));
    }
    let style = ImageStyle {
        class_tokens: 0,
        patch_bias: true,
        pre_norm: false,
        pool: ImagePool::Attention,
        projection: false,
        ..ImageStyle::default()
    };
    let size = vision.number("image_size", 224)?;
    let image = ImageSpec { style, ..ImageSpec::new(size, vision.number("patch_size", 16)?, image) };
    let style = TextStyle {
        attention: TextAttention::Both,
        pool: TextPool::Last,
        projection: TextProjection::Offset,
        begins: false,
        ..TextStyle::default()
    };
    let context = text.number("max_position_embeddings", 64)?;
    let text = TextSpec { style, ..TextSpec::new(context, text.number("vocab_size", 32000)?, text_transformer) };
    let spec = BackboneSpec { logit_bias: true, ..BackboneSpec::new(dim, image, text) };

    let mut tensors = renamed(tensors, |name| match name.strip_prefix("text_model.head.") {
        Some(kind) => Some(format!("text_projection.{kind}")),
        None => Some(name.to_string()),
    });
    let pool = "vision_model.head.attention";
    for kind in ["weight", "bias"] {
        split_qkv(&mut tensors, &format!("{pool}.in_proj_{kind}"), pool, kind);
    }
    squeeze(&mut tensors, "vision_model.head.probe", 1);
    Ok(Checkpoint::new(spec, tensors))
}
