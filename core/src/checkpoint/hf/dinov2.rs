//! DINOv2 (Oquab et al., 2023, arXiv 2304.07193): an image tower alone, with scaled branches.
//!
//! It was trained on large images and is used at smaller ones, so its positions are brought to the size that images have after
//! preprocessing, by bicubic interpolation as in `transformers`.

use super::Checkpoint;
use super::config::{Defaults, Section};
use super::names::{layer, numbered, renamed};
use super::vit;
use crate::backbone::{HostTensor, StateDict};
use crate::error::Result;

const TOWER: Defaults = Defaults { width: 768, depth: 12, heads: 12, mlp: 3072, activation: "gelu", epsilon: 1e-6 };

/// The layers of a block.
const LAYERS: [(&str, &str); 8] = [
    ("norm1", "layer_norm1"),
    ("attention.attention.query", "self_attn.q_proj"),
    ("attention.attention.key", "self_attn.k_proj"),
    ("attention.attention.value", "self_attn.v_proj"),
    ("attention.output.dense", "self_attn.out_proj"),
    ("norm2", "layer_norm2"),
    ("mlp.fc1", "mlp.fc1"),
    ("mlp.fc2", "mlp.fc2"),
];

pub(super) fn read(config: &Section<'_>, tensors: StateDict, side: Option<usize>) -> Result<Checkpoint> {
    if config.flag("use_swiglu_ffn", false)? {
        return Err(config.wrong("`use_swiglu_ffn` (the giant model) is not supported"));
    }
    let mut tensors = renamed(tensors, canonical);
    vit::embeddings(&mut tensors);
    let mut spec = vit::spec(config, &tensors, &TOWER)?;
    let transformer = &mut spec.image.transformer;
    transformer.layer_scale = true;
    transformer.mlp = transformer.width * config.number("mlp_ratio", 4)?;
    let (trained, patch) = (spec.image.size, spec.image.patch);
    let side = side.unwrap_or(trained);
    if side != trained && patch > 0 && side.is_multiple_of(patch) && trained.is_multiple_of(patch) {
        let name = "vision_model.embeddings.position_embedding.weight";
        if let Some(positions) = tensors.get_mut(name) {
            resample(positions, trained / patch, side / patch);
        }
        spec.image.size = side;
    }
    Ok(Checkpoint::new(spec, tensors))
}

fn canonical(name: &str) -> Option<String> {
    let inner = name.strip_prefix("dinov2.").unwrap_or(name);
    if inner == "embeddings.mask_token" || inner.starts_with("classifier.") {
        return None; // For training, and for a feature of twice the width.
    }
    if let Some((block, rest)) = numbered(inner, "encoder.layer.") {
        let prefix = format!("vision_model.encoder.layers.{block}");
        return Some(match rest {
            "layer_scale1.lambda1" => format!("{prefix}.layer_scale1"),
            "layer_scale2.lambda1" => format!("{prefix}.layer_scale2"),
            rest => layer(rest, &LAYERS).map_or_else(|| name.to_string(), |rest| format!("{prefix}.{rest}")),
        });
    }
    Some(vit::embedding(inner).unwrap_or_else(|| name.to_string()))
}

/// Brings positions `[1 + from * from, width]` to another grid: bicubic with `a = -0.75` and edges repeated, as
/// `torch.nn.functional.interpolate(mode="bicubic", align_corners=False)`.
fn resample(positions: &mut HostTensor, from: usize, to: usize) {
    let [tokens, width] = positions.shape[..] else { return };
    if tokens != from * from + 1 || positions.data.len() != tokens * width {
        return; // Refused by its shape later.
    }
    let taps: Vec<[(usize, f32); 4]> = (0..to).map(|at| taps(at, from, to)).collect();
    let mut data = positions.data[..width].to_vec();
    for rows in &taps {
        for columns in &taps {
            let mut token = vec![0.0f32; width];
            for (row, vertical) in rows {
                for (column, horizontal) in columns {
                    let at = (1 + row * from + column) * width;
                    let source = &positions.data[at..at + width];
                    token.iter_mut().zip(source).for_each(|(sum, value)| *sum += vertical * horizontal * value);
                }
            }
            data.extend(token);
        }
    }
    positions.shape[0] = to * to + 1;
    positions.data = data;
}

/// The four source places of an output place, and their weights.
fn taps(at: usize, from: usize, to: usize) -> [(usize, f32); 4] {
    const A: f64 = -0.75;
    let source = (at as f64 + 0.5) * from as f64 / to as f64 - 0.5;
    let (base, t) = (source.floor(), source - source.floor());
    let near = |x: f64| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f64| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    let weights = [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)];
    let place = |offset: usize| (base + offset as f64 - 1.0).clamp(0.0, from as f64 - 1.0) as usize;
    [0, 1, 2, 3].map(|offset| (place(offset), weights[offset] as f32))
}
