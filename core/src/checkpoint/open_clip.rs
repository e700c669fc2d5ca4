//! OpenCLIP models whose towers are those of other libraries: a ViT of `timm` and a BERT of `transformers`, as BiomedCLIP (Zhang et
//! al., 2023, arXiv 2303.00915).
//!
//! Known keys: `visual.trunk.*` with `visual.head.proj.weight`, `text.transformer.*` with `text.proj.weight` or, with a hidden
//! layer, `text.proj.{0, 2}.weight`, and `logit_scale`. Neither file of such a folder tells how wide a head of attention is: 64, as
//! in every such model but the largest of `timm`.

use std::path::Path;

use serde_json::Value;

use super::hf::{bert_tensors, bert_text, split_qkv, squeeze};
use crate::backbone::{
    Activation, BackboneSpec, ImageSpec, ImageStyle, StateDict, TextPool, TextProjection, TransformerSpec,
};
use crate::error::{Error, Result};
use crate::file;

const HEAD_WIDTH: usize = 64;

/// Parts of the names of `timm` models whose heads are wider.
const WIDER: [&str; 4] = ["huge", "giant", "gigantic", "so400m"];

/// The layers of a block of a ViT of `timm`.
const BLOCK: [(&str, &str); 5] = [
    ("norm1", "layer_norm1"),
    ("attn.proj", "self_attn.out_proj"),
    ("norm2", "layer_norm2"),
    ("mlp.fc1", "mlp.fc1"),
    ("mlp.fc2", "mlp.fc2"),
];

const POSITIONS: &str = "text_model.embeddings.position_embedding.weight";

/// Whether these tensors are those of such a model.
pub(super) fn recognises(tensors: &StateDict) -> bool {
    tensors.contains_key("visual.trunk.patch_embed.proj.weight")
        && tensors.contains_key("text.transformer.embeddings.word_embeddings.weight")
}

/// The shape and the canonical tensors of a model.
///
/// # Errors
/// [`Error::Malformed`] for a configuration that says something else than is read here, [`Error::Tensor`] for a tensor that is
/// missing.
pub(super) fn read(tensors: StateDict, weights: &Path) -> Result<(BackboneSpec, StateDict)> {
    let config = Config::read(weights)?;
    let pool = config.check()?;
    let mut canonical = StateDict::new();
    let mut text = StateDict::new();
    for (name, tensor) in tensors {
        match name.strip_prefix("text.transformer.") {
            Some(inner) => drop(text.insert(inner.to_string(), tensor)),
            None => drop(canonical.insert(renamed(&name), tensor)),
        }
    }
    canonical.extend(bert_tensors(text));
    for (name, axes) in [("class_embedding", 1), ("position_embedding.weight", 2)] {
        squeeze(&mut canonical, &format!("vision_model.embeddings.{name}"), axes);
    }
    let depth = |tower: &str, part: &str| {
        let layer = |block: &usize| format!("{tower}.encoder.layers.{block}.{part}");
        (0..).take_while(|block| canonical.contains_key(&layer(block))).count()
    };
    let blocks = [depth("vision_model", "attn.qkv.weight"), depth("text_model", "mlp.fc1.weight")];
    for block in 0..blocks[0] {
        let block = format!("vision_model.encoder.layers.{block}");
        for kind in ["weight", "bias"] {
            split_qkv(&mut canonical, &format!("{block}.attn.qkv.{kind}"), &format!("{block}.self_attn"), kind);
        }
    }
    if let (Some(rows), Some(positions)) = (config.context(), canonical.get_mut(POSITIONS))
        && let [all, width] = positions.shape[..]
        && rows < all
    {
        positions.data.truncate(rows * width);
        positions.shape[0] = rows;
    }
    let axis = |name: &str, axis: usize| {
        let found = canonical.get(name).and_then(|tensor| tensor.shape.get(axis)).copied();
        found.ok_or_else(|| Error::Tensor {
            path: weights.to_path_buf(),
            name: name.into(),
            expected: format!("a tensor with at least {} axes", axis + 1),
            found: canonical.get(name).map_or("no such tensor".into(), |tensor| format!("shape {:?}", tensor.shape)),
        })
    };
    let transformer = |tower: &str, depth: usize, width: usize, epsilon: f64| -> Result<TransformerSpec> {
        let mlp = axis(&format!("{tower}.encoder.layers.0.mlp.fc1.weight"), 0)?;
        Ok(TransformerSpec::new(width, depth, (width / HEAD_WIDTH).max(1), mlp, Activation::Gelu, epsilon))
    };
    let patches = "vision_model.embeddings.patch_embedding.weight";
    let (width, patch) = (axis(patches, 0)?, axis(patches, 2)?);
    let grid = axis("vision_model.embeddings.position_embedding.weight", 0)?.saturating_sub(1).isqrt();
    let style = ImageStyle { patch_bias: true, pre_norm: false, ..ImageStyle::default() };
    let tower = transformer("vision_model", blocks[0], width, 1e-6)?;
    let image = ImageSpec { style, ..ImageSpec::new(grid * patch, patch, tower) };

    let tokens = "text_model.embeddings.token_embedding.weight";
    let tower = transformer("text_model", blocks[1], axis(tokens, 1)?, 1e-12)?;
    let mut text = bert_text(axis(POSITIONS, 0)?, axis(tokens, 0)?, tower, pool);
    text.style.projection = match canonical.contains_key("text_projection_hidden.weight") {
        true => TextProjection::Hidden,
        false => TextProjection::Plain,
    };
    let spec = BackboneSpec::new(axis("text_projection.weight", 0)?, image, text);
    spec.check()?;
    Ok((spec, canonical))
}

/// The canonical name of a tensor; one that such models do not have is kept, so that it is reported as unused.
fn renamed(name: &str) -> String {
    let vision = "vision_model";
    let plain = match name {
        "visual.trunk.cls_token" => "vision_model.embeddings.class_embedding",
        "visual.trunk.pos_embed" => "vision_model.embeddings.position_embedding.weight",
        "visual.trunk.patch_embed.proj.weight" => "vision_model.embeddings.patch_embedding.weight",
        "visual.trunk.patch_embed.proj.bias" => "vision_model.embeddings.patch_embedding.bias",
        "visual.trunk.norm.weight" => "vision_model.post_layernorm.weight",
        "visual.trunk.norm.bias" => "vision_model.post_layernorm.bias",
        "visual.head.proj.weight" => "visual_projection.weight",
        "text.proj.weight" | "text.proj.2.weight" => "text_projection.weight",
        "text.proj.0.weight" => "text_projection_hidden.weight",
        _ => {
            let layer = || {
                let (block, rest) = name.strip_prefix("visual.trunk.blocks.")?.split_once('.')?;
                let (layer, kind) = rest.rsplit_once('.')?;
                let layer = BLOCK.iter().find(|(from, _)| *from == layer).map_or(layer, |(_, to)| to);
                Some(format!("{vision}.encoder.layers.{block}.{layer}.{kind}"))
            };
            return layer().unwrap_or_else(|| name.to_string());
        }
    };
    plain.to_string()
}

/// `model_cfg` of `open_clip_config.json`.
struct Config<'a> {
    weights: &'a Path,
    model: Value,
}

impl<'a> Config<'a> {
    fn read(weights: &'a Path) -> Result<Self> {
        let path = weights.with_file_name("open_clip_config.json");
        if !path.is_file() {
            let reason = "`open_clip_config.json` is missing: it says how texts are pooled";
            return Err(Error::malformed("OpenCLIP checkpoint", weights, reason));
        }
        let config: Value = file::read_json(&path, "OpenCLIP config")?;
        Ok(Self { weights, model: config.get("model_cfg").cloned().unwrap_or_default() })
    }

    fn text(&self, section: &str, key: &str) -> &str {
        self.model.get(section).and_then(|section| section.get(key)).and_then(Value::as_str).unwrap_or_default()
    }

    /// Longest text in tokens.
    fn context(&self) -> Option<usize> {
        self.model.get("text_cfg")?.get("context_length")?.as_u64().map(|value| value as usize)
    }

    /// How texts are pooled, after what else would change the features was found to be as it is read.
    fn check(&self) -> Result<TextPool> {
        let pool = match self.text("text_cfg", "hf_pooler_type") {
            "cls_last_hidden_state_pooler" => TextPool::First,
            "mean_pooler" => TextPool::Mean,
            _ => return Err(self.wrong("text_cfg.hf_pooler_type", "`cls_last_hidden_state_pooler` or `mean_pooler`")),
        };
        // Without the key OpenCLIP takes the mean.
        let of_images =
            self.model.pointer("/vision_cfg/timm_pool").map_or("avg", |pool| pool.as_str().unwrap_or_default());
        if !matches!(of_images, "" | "token") {
            let expected = "the class token (`token`, or an empty text; no key is the mean)";
            return Err(self.wrong("vision_cfg.timm_pool", expected));
        }
        let name = self.text("vision_cfg", "timm_model_name");
        if !name.starts_with("vit_") && !name.starts_with("deit_") || WIDER.iter().any(|part| name.contains(part)) {
            return Err(self.wrong("vision_cfg.timm_model_name", "a ViT with heads of 64 channels, up to `vit_large`"));
        }
        Ok(pool)
    }

    fn wrong(&self, key: &str, expected: &str) -> Error {
        let (section, inner) = key.split_once('.').unwrap_or((key, ""));
        let reason = format!("`model_cfg.{key}` must be {expected}, found `{}`", self.text(section, inner));
        Error::malformed("OpenCLIP config", &self.weights.with_file_name("open_clip_config.json"), reason)
    }
}
