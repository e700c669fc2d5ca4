//! State dicts under the names of OpenAI's CLIP and of OpenCLIP, brought to the canonical names.
//!
//! Known keys: `visual.{class_embedding, positional_embedding, conv1.weight, ln_pre, ln_post, proj}`,
//! `[visual.]transformer.resblocks.N.{ln_1, ln_2, attn.in_proj_weight, attn.in_proj_bias, attn.out_proj, mlp.c_fc,
//! mlp.c_proj}`, `token_embedding.weight`, `positional_embedding`, `ln_final`, `text_projection`, `logit_scale`.
//! `proj` and `text_projection` are `[width, dim]` there, the transpose of the canonical layout; `in_proj` holds query,
//! key and value in this order.

use std::path::Path;

use serde::Deserialize as _;
use serde_json::{Value, json};

use super::hf::thirds;
use super::openai_resnet;
use crate::backbone::{Activation, BackboneSpec, HostTensor, ImageSpec, StateDict, TextSpec, TransformerSpec};
use crate::error::{Error, Result};
use crate::file;
use crate::image::{Preprocess, Resample, Resize, Size};

/// Whether these tensors carry OpenAI names.
pub(super) fn recognises(tensors: &StateDict) -> bool {
    tensors.contains_key("visual.conv1.weight") && tensors.contains_key("text_projection")
}

/// Scalars that OpenAI's archives carry beside the weights.
const IGNORED: [&str; 4] = ["input_resolution", "context_length", "vocab_size", "attn_mask"];

/// Brings tensors under OpenAI's names to the canonical names and layout. A name that OpenAI's models do not have is kept.
pub fn to_canonical(tensors: StateDict) -> StateDict {
    let mut canonical = StateDict::new();
    for (name, tensor) in tensors {
        if IGNORED.contains(&name.as_str()) {
            continue;
        }
        let (tower, rest) = match name.strip_prefix("visual.") {
            Some(rest) => ("vision_model", rest),
            None => ("text_model", name.as_str()),
        };
        let plain = match (tower, rest) {
            ("vision_model", "class_embedding") => "vision_model.embeddings.class_embedding".into(),
            ("vision_model", "positional_embedding") => "vision_model.embeddings.position_embedding.weight".into(),
            ("vision_model", "conv1.weight") => "vision_model.embeddings.patch_embedding.weight".into(),
            ("vision_model", "ln_pre.weight") => "vision_model.pre_layrnorm.weight".into(),
            ("vision_model", "ln_pre.bias") => "vision_model.pre_layrnorm.bias".into(),
            ("vision_model", "ln_post.weight") => "vision_model.post_layernorm.weight".into(),
            ("vision_model", "ln_post.bias") => "vision_model.post_layernorm.bias".into(),
            ("vision_model", "proj") => {
                canonical.insert("visual_projection.weight".into(), transposed(tensor));
                continue;
            }
            ("text_model", "text_projection") => {
                canonical.insert("text_projection.weight".into(), transposed(tensor));
                continue;
            }
            ("text_model", "token_embedding.weight") => "text_model.embeddings.token_embedding.weight".into(),
            ("text_model", "positional_embedding") => "text_model.embeddings.position_embedding.weight".into(),
            ("text_model", "ln_final.weight") => "text_model.final_layer_norm.weight".into(),
            ("text_model", "ln_final.bias") => "text_model.final_layer_norm.bias".into(),
            ("text_model", "logit_scale") => "logit_scale".into(),
            _ => match block(tower, rest) {
                Some(Block::Plain(name)) => name,
                Some(Block::Fused(prefix, suffix)) => {
                    for (part, tensor) in ["q_proj", "k_proj", "v_proj"].into_iter().zip(thirds(tensor)) {
                        canonical.insert(format!("{prefix}.self_attn.{part}.{suffix}"), tensor);
                    }
                    continue;
                }
                // Not a name of this format: kept, so that it is reported as unused.
                None => name,
            },
        };
        canonical.insert(plain, tensor);
    }
    canonical
}

enum Block {
    Plain(String),
    Fused(String, &'static str),
}

fn block(tower: &str, rest: &str) -> Option<Block> {
    let rest = rest.strip_prefix("transformer.resblocks.")?;
    let (index, rest) = rest.split_once('.')?;
    let prefix = format!("{tower}.encoder.layers.{index}");
    let plain = |name: &str| Some(Block::Plain(format!("{prefix}.{name}")));
    match rest {
        "attn.in_proj_weight" => Some(Block::Fused(prefix, "weight")),
        "attn.in_proj_bias" => Some(Block::Fused(prefix, "bias")),
        "attn.out_proj.weight" => plain("self_attn.out_proj.weight"),
        "attn.out_proj.bias" => plain("self_attn.out_proj.bias"),
        "ln_1.weight" => plain("layer_norm1.weight"),
        "ln_1.bias" => plain("layer_norm1.bias"),
        "ln_2.weight" => plain("layer_norm2.weight"),
        "ln_2.bias" => plain("layer_norm2.bias"),
        "mlp.c_fc.weight" => plain("mlp.fc1.weight"),
        "mlp.c_fc.bias" => plain("mlp.fc1.bias"),
        "mlp.c_proj.weight" => plain("mlp.fc2.weight"),
        "mlp.c_proj.bias" => plain("mlp.fc2.bias"),
        _ => None,
    }
}

fn transposed(tensor: HostTensor) -> HostTensor {
    let HostTensor { shape, data, origin } = tensor;
    let [rows, columns] = shape[..] else { return HostTensor { shape, data, origin } };
    let data = (0..columns).flat_map(|column| (0..rows).map(move |row| row * columns + column)).map(|at| data[at]);
    HostTensor { shape: vec![columns, rows], data: data.collect(), origin }
}

/// The shape of the model: from `open_clip_config.json` beside the weights, else from the tensors, with heads of 64
/// channels and quick-GELU as in OpenAI's releases.
pub(super) fn spec(tensors: &StateDict, weights: &Path) -> Result<BackboneSpec> {
    let config = config(weights)?;
    let config = config.as_ref().and_then(|config| config.get("model_cfg"));
    config.map_or(Ok(()), |config| check(config, weights))?;
    let axis = |name: &str, axis: usize| -> Result<usize> {
        tensors.get(name).and_then(|tensor| tensor.shape.get(axis)).copied().ok_or_else(|| Error::Tensor {
            path: weights.to_path_buf(),
            name: name.into(),
            expected: format!("a tensor with at least {} axes", axis + 1),
            found: tensors.get(name).map_or("no such tensor".into(), |tensor| format!("shape {:?}", tensor.shape)),
        })
    };
    let number = |section: &str, key: &str| -> Option<usize> {
        config?.get(section)?.get(key)?.as_u64().map(|value| value as usize)
    };
    let depth =
        |prefix: &str| (0..).take_while(|block| tensors.contains_key(&format!("{prefix}.{block}.ln_1.weight"))).count();
    let quick = config.is_none_or(|config| config.get("quick_gelu").and_then(Value::as_bool).unwrap_or(false));
    let activation = if quick { Activation::QuickGelu } else { Activation::Gelu };

    let text_width = axis("token_embedding.weight", 1)?;
    let head_width = number("vision_cfg", "head_width").unwrap_or(64).max(1);
    let transformer = |width: usize, blocks: &str, heads: usize| -> Result<TransformerSpec> {
        let mlp = axis(&format!("{blocks}.0.mlp.c_fc.weight"), 0)?;
        Ok(TransformerSpec::new(width, depth(blocks), heads, mlp, activation, 1e-5))
    };
    let image = if openai_resnet::recognises(tensors) {
        openai_resnet::spec(tensors, head_width, activation)
    } else {
        let (width, patch) = (axis("visual.conv1.weight", 0)?, axis("visual.conv1.weight", 2)?);
        let grid = axis("visual.positional_embedding", 0)?.saturating_sub(1).isqrt();
        let tower = transformer(width, "visual.transformer.resblocks", width / head_width)?;
        ImageSpec::new(grid * patch, patch, tower)
    };
    let text =
        transformer(text_width, "transformer.resblocks", number("text_cfg", "heads").unwrap_or(text_width / 64))?;
    let spec = BackboneSpec::new(
        axis("text_projection", 1)?,
        image,
        TextSpec::new(axis("positional_embedding", 0)?, axis("token_embedding.weight", 0)?, text),
    );
    spec.check()?;
    Ok(spec)
}

/// Refuses a `model_cfg` that asks for what would change the features and shows in no tensor.
fn check(model: &Value, weights: &Path) -> Result<()> {
    for (section, key, known) in [
        ("vision_cfg", "pool_type", json!(["tok"])),
        ("vision_cfg", "global_average_pool", json!([false])),
        ("vision_cfg", "act_kwargs", json!([{}])),
        ("vision_cfg", "norm_kwargs", json!([{}])),
        ("text_cfg", "pool_type", json!(["argmax", "eos"])),
        ("text_cfg", "no_causal_mask", json!([false])),
        ("text_cfg", "act_kwargs", json!([{}])),
        ("text_cfg", "norm_kwargs", json!([{}])),
    ] {
        let found = &model[section][key];
        if !found.is_null() && !known.as_array().is_some_and(|known| known.contains(found)) {
            let reason = format!("`model_cfg.{section}.{key}` must be one of {known}, found {found}");
            return Err(Error::malformed("OpenCLIP config", &weights.with_file_name("open_clip_config.json"), reason));
        }
    }
    Ok(())
}

/// `open_clip_config.json` beside the weights, if there is one.
fn config(weights: &Path) -> Result<Option<Value>> {
    let path = weights.with_file_name("open_clip_config.json");
    if path.is_file() { file::read_json(&path, "OpenCLIP config").map(Some) } else { Ok(None) }
}

/// The preprocessing for images of one size: CLIP's, changed by `preprocess_cfg` of `open_clip_config.json`.
pub(super) fn preprocess(weights: &Path, size: u32) -> Result<Preprocess> {
    let mut preprocess = Preprocess::clip(size);
    let config = config(weights)?;
    let Some(config) = config.as_ref().and_then(|config| config.get("preprocess_cfg")) else { return Ok(preprocess) };
    let path = weights.with_file_name("open_clip_config.json");
    let wrong = |key: &str, known: &str| {
        let reason = format!("`preprocess_cfg.{key}` must be {known}, found {}", config[key]);
        Error::malformed("OpenCLIP config", &path, reason)
    };
    for (key, channels) in [("mean", &mut preprocess.mean), ("std", &mut preprocess.std)] {
        if let Some(value) = config.get(key) {
            *channels = <[f32; 3]>::deserialize(value).map_err(|_| wrong(key, "three numbers"))?;
        }
    }
    match config.get("interpolation").map(Value::as_str) {
        // `random` varies the filter in training alone.
        None | Some(Some("bicubic" | "random")) => {}
        Some(Some("bilinear")) => preprocess.resample = Resample::Bilinear,
        Some(_) => return Err(wrong("interpolation", "`bicubic`, `bilinear` or `random`")),
    }
    match config.get("resize_mode").map(Value::as_str) {
        None | Some(Some("shortest")) => {}
        Some(Some("squash")) => preprocess.resize = Resize::Exact(Size::square(size)),
        Some(_) => return Err(wrong("resize_mode", "`shortest` or `squash`")),
    }
    preprocess.validate().map_err(|error| Error::malformed("OpenCLIP config", &path, error))?;
    Ok(preprocess)
}
