//! The image towers of CLIP's ResNets under OpenAI's names.
//!
//! Known keys: `visual.{conv1..3, bn1..3}`, `visual.layer1..4.N.{conv1..3, bn1..3, downsample.0, downsample.1}`,
//! `visual.attnpool.{positional_embedding, q_proj, k_proj, v_proj, c_proj}`.

use std::path::Path;

use super::batch_norm::Normalised;
use crate::backbone::{
    Activation, ImagePool, ImageSpec, ImageStyle, ResNetSpec, StateDict, TransformerSpec, TrunkSpec,
};
use crate::error::Result;

/// Added to the variances, as in PyTorch.
const EPSILON: f64 = 1e-5;

/// Whether the image tower is a ResNet.
pub(super) fn recognises(tensors: &StateDict) -> bool {
    tensors.contains_key("visual.layer1.0.conv1.weight")
}

/// Brings the image tower to the canonical names and leaves all else as it is.
pub(super) fn to_canonical(tensors: StateDict, weights: &Path) -> Result<StateDict> {
    let mut canonical = StateDict::new();
    let mut convolutions = Normalised::default();
    for (name, tensor) in tensors {
        let Some(rest) = name.strip_prefix("visual.") else {
            canonical.insert(name, tensor);
            continue;
        };
        match (place(rest), rest.strip_prefix("attnpool.")) {
            (Some((layer, part)), _) => convolutions.insert(layer, part, tensor),
            (None, Some(pool)) => drop(canonical.insert(pooled(pool), tensor)),
            (None, None) => drop(canonical.insert(name, tensor)),
        }
    }
    canonical.extend(convolutions.folded(EPSILON, weights)?);
    Ok(canonical)
}

/// The canonical layer of a tensor of the trunk, and what the tensor is to it; `None` for other tensors.
fn place(name: &str) -> Option<(String, &str)> {
    let (prefix, rest) = match name.strip_prefix("layer") {
        None => ("vision_model.trunk.stem".to_string(), name),
        Some(rest) => {
            let (stage, rest) = rest.split_once('.')?;
            let (block, rest) = rest.split_once('.')?;
            (format!("vision_model.trunk.stages.{}.{block}", stage.parse::<usize>().ok()?.checked_sub(1)?), rest)
        }
    };
    let stem = !name.starts_with("layer");
    let convolution = |number: &str| -> Option<String> {
        let number = number.parse::<usize>().ok()?.checked_sub(1)?;
        Some(if stem { format!("{prefix}.{number}") } else { format!("{prefix}.convolutions.{number}") })
    };
    let (layer, part) = rest.rsplit_once('.')?;
    Some(match (layer, layer.strip_prefix("conv"), layer.strip_prefix("bn")) {
        (_, Some(number), _) if part == "weight" => (convolution(number)?, "filters"),
        (_, _, Some(number)) => (convolution(number)?, part),
        ("downsample.0", ..) if part == "weight" => (format!("{prefix}.downsample"), "filters"),
        ("downsample.1", ..) => (format!("{prefix}.downsample"), part),
        _ => return None,
    })
}

/// The canonical name of a tensor of the attention pool.
fn pooled(name: &str) -> String {
    match name.split_once('.') {
        None => "vision_model.embeddings.position_embedding.weight".into(),
        Some(("c_proj", kind)) => format!("visual_projection.{kind}"),
        Some((layer, kind)) => format!("vision_model.head.attention.{layer}.{kind}"),
    }
}

/// The shape of the tower, with heads of 64 channels as in OpenAI's releases.
pub(super) fn spec(tensors: &StateDict, head_width: usize, activation: Activation) -> ImageSpec {
    let rows = |name: &str| tensors.get(name).and_then(|tensor| tensor.shape.first().copied()).unwrap_or(0);
    let blocks = |stage: usize| {
        (0..).take_while(|block| tensors.contains_key(&format!("visual.layer{stage}.{block}.conv1.weight"))).count()
    };
    let trunk = ResNetSpec { width: rows("visual.layer1.0.conv1.weight"), stages: [1, 2, 3, 4].map(blocks) };
    let channels = trunk.channels();
    let grid = rows("visual.attnpool.positional_embedding").saturating_sub(1).isqrt();
    let transformer = TransformerSpec::new(channels, 0, channels / head_width.max(1), 0, activation, 1e-5);
    let style = ImageStyle {
        pre_norm: false,
        pool: ImagePool::Query,
        trunk: Some(TrunkSpec::ResNet(trunk)),
        ..ImageStyle::default()
    };
    ImageSpec { style, ..ImageSpec::new(grid * 32, 32, transformer) }
}
