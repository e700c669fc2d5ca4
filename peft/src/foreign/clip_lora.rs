//! `lora_weights.pt` of CLIP-LoRA (Zanella and Ben Ayed, 2024).
//!
//! `weights.layer_N.{q_proj, k_proj, v_proj, proj}.{w_lora_A, w_lora_B}`, the adapted blocks of the text tower first, then
//! those of the image tower; `metadata.{r, alpha, encoder, params, position}` says which blocks these are. The scale is
//! `alpha / sqrt(r)`.

use std::ops::Range;

use inarch_core::backbone::{BlockSite, LinearSite, Projection, Tower};
use inarch_core::checkpoint::{TorchValue, read_torch};

use super::import::Import;
use super::tensors::{Unused, transposed};
use crate::adapter::MethodConfig;
use crate::artifact::Artifact;
use crate::error::Result;
use crate::linear::LoraConfig;
use crate::parameters::Parameters;

/// The projections, by their names in `params`, in the file, and here.
const PARTS: [(&str, &str, Projection); 4] = [
    ("q", "q_proj", Projection::Query),
    ("k", "k_proj", Projection::Key),
    ("v", "v_proj", Projection::Value),
    ("o", "proj", Projection::Output),
];

pub(super) fn read(import: &Import<'_>) -> Result<Artifact> {
    let TorchValue::Dict(mut file) = read_torch(import.path)? else {
        return Err(import.malformed("expected `weights` and `metadata`"));
    };
    let (Some(weights), Some(metadata)) = (file.remove("weights"), file.remove("metadata")) else {
        return Err(import.malformed("expected `weights` and `metadata`"));
    };
    let number = |key: &str| {
        metadata
            .get(key)
            .and_then(TorchValue::number)
            .ok_or_else(|| import.malformed(format!("`metadata.{key}` is no number")))
    };
    let text = |key: &str| match metadata.get(key) {
        Some(TorchValue::Text(text)) => Ok(text.as_str()),
        _ => Err(import.malformed(format!("`metadata.{key}` is no text"))),
    };
    let (rank, alpha) = (number("r")? as usize, number("alpha")?);
    let towers: &[Tower] = match text("encoder")? {
        "text" => &[Tower::Text],
        "vision" => &[Tower::Image],
        "both" => &[Tower::Text, Tower::Image],
        other => {
            return Err(import.malformed(format!("`metadata.encoder` is `{other}`; known are text, vision and both")));
        }
    };
    let Some(TorchValue::List(params)) = metadata.get("params") else {
        return Err(import.malformed("`metadata.params` is no list"));
    };
    let adapted: Vec<_> =
        PARTS.iter().filter(|(param, ..)| params.contains(&TorchValue::Text((*param).into()))).collect();
    let position = text("position")?;
    let mut blocks = Vec::new();
    for tower in towers {
        let depth = import.backbone.depth(*tower);
        let range = adapted_blocks(position, depth).ok_or_else(|| {
            import
                .malformed(format!("`metadata.position` is `{position}`, which names no blocks of a tower of {depth}"))
        })?;
        blocks.extend(range.map(|block| BlockSite { tower: *tower, block }));
    }
    let mut unused = Unused::new(import, weights.into_tensors());
    let (mut parameters, mut targets) = (Parameters::new(), Vec::new());
    for (layer, at) in blocks.into_iter().enumerate() {
        for (_, theirs, projection) in &adapted {
            let site = LinearSite::Block(at, *projection);
            for (factor, ours) in [("w_lora_A", "a"), ("w_lora_B", "b")] {
                let tensor = unused.need(&format!("layer_{layer}.{theirs}.{factor}"), 2)?;
                let tensor = transposed(tensor).map_err(|reason| import.malformed(reason))?;
                parameters.insert(format!("sites.{site}.{ours}"), tensor);
            }
            targets.push(site.to_string());
        }
    }
    unused.finish("block that `metadata` names")?;
    let method =
        MethodConfig::Lora(LoraConfig { rank, alpha, rank_stabilised: true, targets, ..LoraConfig::default() });
    import.artifact(import.configured(method)?, parameters, import.classes)
}

/// The blocks that a position names, in towers of the depths that the authors list it for.
fn adapted_blocks(position: &str, depth: usize) -> Option<Range<usize>> {
    let known = match position {
        "all" => 0..depth,
        "half-up" => depth / 2..depth,
        "half-bottom" => 0..depth / 2,
        "bottom" if depth == 12 => 0..4,
        "mid" if depth == 12 => 4..8,
        "up" if depth == 12 => 8..12,
        "top" | "top1" if depth == 12 => 11..12,
        "top2" if depth == 12 => 10..12,
        "top3" if depth == 12 => 9..12,
        _ => return None,
    };
    Some(known)
}
