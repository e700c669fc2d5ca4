//! CLIP (Radford et al., 2021, arXiv 2103.00020) with a vision transformer.

use serde_json::{Value, json};

use super::Checkpoint;
use super::config::{Defaults, Section};
use crate::backbone::{
    Activation, BackboneSpec, ImageSpec, ImageStyle, StateDict, TextSpec, TextStyle, TransformerSpec,
};
use crate::error::Result;

const VISION: Defaults =
    Defaults { width: 768, depth: 12, heads: 12, mlp: 3072, activation: "quick_gelu", epsilon: 1e-5 };
const TEXT: Defaults = Defaults { width: 512, depth: 12, heads: 8, mlp: 2048, activation: "quick_gelu", epsilon: 1e-5 };

/// Missing keys take the defaults that `transformers` gives them; the names of its tensors are the canonical ones.
pub(super) fn read(config: &Section<'_>, tensors: StateDict) -> Result<Checkpoint> {
    let (vision, text) = (config.inner("vision_config"), config.inner("text_config"));
    if vision.number("num_channels", 3)? != 3 {
        return Err(config.wrong("num_channels must be 3 (RGB)"));
    }
    let image = ImageSpec::new(
        vision.number("image_size", 224)?,
        vision.number("patch_size", 32)?,
        vision.transformer(&VISION)?,
    );
    let text = TextSpec::new(
        text.number("max_position_embeddings", 77)?,
        text.number("vocab_size", 49408)?,
        text.transformer(&TEXT)?,
    );
    Ok(Checkpoint::new(BackboneSpec::new(config.number("projection_dim", 512)?, image, text), tensors))
}

/// The `config.json` that `transformers.CLIPModel` loads; `None` for a backbone that is no CLIP.
pub(super) fn config(spec: &BackboneSpec, bos: u32, eot: u32) -> Option<Value> {
    let plain = |transformer: &TransformerSpec| {
        let TransformerSpec { width, depth, heads, mlp, activation, .. } = *transformer;
        *transformer == TransformerSpec::new(width, depth, heads, mlp, activation, transformer.epsilon())
    };
    let is_clip = spec.image.style == ImageStyle::default()
        && spec.text.style == TextStyle::default()
        && [&spec.image.transformer, &spec.text.transformer].into_iter().all(plain)
        && !spec.logit_bias
        && spec.text.vocabulary > 0
        && spec.image.size > 0;
    if !is_clip {
        return None;
    }
    let transformer = |transformer: &TransformerSpec| {
        json!({
            "hidden_size": transformer.width,
            "num_hidden_layers": transformer.depth,
            "num_attention_heads": transformer.heads,
            "intermediate_size": transformer.mlp,
            "hidden_act": match transformer.activation {
                Activation::QuickGelu => "quick_gelu",
                Activation::Gelu => "gelu",
                Activation::GeluTanh => "gelu_pytorch_tanh",
                Activation::Relu => "relu",
            },
            "layer_norm_eps": transformer.epsilon(),
            "attention_dropout": 0.0,
            "projection_dim": spec.dim,
        })
    };
    let with = |mut value: Value, extra: Value| {
        if let (Some(into), Value::Object(from)) = (value.as_object_mut(), extra) {
            into.extend(from);
        }
        value
    };
    Some(json!({
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": spec.dim,
        "logit_scale_init_value": 2.6592,
        "vision_config": with(transformer(&spec.image.transformer), json!({
            "model_type": "clip_vision_model",
            "image_size": spec.image.size,
            "patch_size": spec.image.patch,
            "num_channels": 3,
        })),
        "text_config": with(transformer(&spec.text.transformer), json!({
            "model_type": "clip_text_model",
            "max_position_embeddings": spec.text.context,
            "vocab_size": spec.text.vocabulary,
            "bos_token_id": bos,
            "eos_token_id": eot,
            "pad_token_id": eot,
        })),
    }))
}
