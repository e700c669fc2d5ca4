//! Vision transformers of the `vit-pytorch` package, which saves weights without a config.
//!
//! What the tensors do not tell stands in a `config.json` of `model_type` `vit-pytorch` beside them: `image_size`, and where
//! they differ from that package's defaults `hidden_act` and `head_dim`; `id2label` names the classes.

use super::Checkpoint;
use super::config::Section;
use super::names::{layer, numbered, renamed, split_qkv};
use super::vit;
use crate::backbone::{BackboneSpec, HostTensor, ImageSpec, ImageStyle, StateDict, TextSpec};
use crate::error::Result;

/// The layers of a block: those of the attention are in its half 0, those of the MLP in its half 1.
const LAYERS: [(&str, &str); 8] = [
    ("0.norm", "layer_norm1"),
    ("0.fn.to_qkv", "self_attn.to_qkv"),
    ("0.fn.to_out.0", "self_attn.out_proj"),
    ("1.norm", "layer_norm2"),
    ("1.fn.net.0", "mlp.fc1"),
    ("1.fn.net.3", "mlp.fc2"),
    ("mlp_head.0", "vision_model.post_layernorm"),
    ("mlp_head.1", "classifier"),
];

pub(super) fn read(config: &Section<'_>, tensors: StateDict) -> Result<Checkpoint> {
    let mut tensors = renamed(tensors, |name| Some(canonical(name)));
    let head = vit::class_head(config, &mut tensors);
    vit::embeddings(&mut tensors);
    let rows = |tensors: &StateDict, name: &str| {
        tensors.get(name).and_then(|tensor| tensor.shape.first().copied()).unwrap_or(0)
    };
    let blocks = "vision_model.encoder.layers";
    let depth =
        (0..).take_while(|block| tensors.contains_key(&format!("{blocks}.{block}.self_attn.to_qkv.weight"))).count();
    let attention = rows(&tensors, &format!("{blocks}.0.self_attn.to_qkv.weight")) / 3;
    let mlp = rows(&tensors, &format!("{blocks}.0.mlp.fc1.weight"));
    for block in 0..depth {
        let prefix = format!("{blocks}.{block}.self_attn");
        split_qkv(&mut tensors, &format!("{prefix}.to_qkv.weight"), &prefix, "weight");
    }
    let (size, channels) = (config.number("image_size", 224)?, config.number("num_channels", 3)?);
    let head_width = config.number("head_dim", 64)?;
    let width = rows(&tensors, "vision_model.embeddings.class_embedding");
    let defaults = super::config::Defaults {
        width,
        depth,
        heads: attention.checked_div(head_width).unwrap_or(0),
        mlp,
        activation: "gelu",
        epsilon: 1e-5,
    };
    let mut transformer = config.transformer(&defaults)?;
    transformer.head_width = Some(head_width);
    transformer.plain_qkv = true;
    let weight = "vision_model.embeddings.patch_embedding.weight";
    let values = tensors.get(weight).and_then(|tensor| tensor.shape.last().copied()).unwrap_or(0);
    let patch = values.checked_div(channels).unwrap_or(0).isqrt();
    if let Some(tensor) = tensors.get_mut(weight) {
        unfold(tensor, channels, patch);
    }
    let style = ImageStyle { channels, patch_bias: true, pre_norm: false, projection: false, ..ImageStyle::default() };
    let image = ImageSpec { style, ..ImageSpec::new(size, patch, transformer) };
    Ok(Checkpoint { head, ..Checkpoint::new(BackboneSpec::new(width, image, TextSpec::none()), tensors) })
}

fn canonical(name: &str) -> String {
    let vision = "vision_model";
    if let Some((block, rest)) = numbered(name, "transformer.layers.") {
        return layer(rest, &LAYERS).map_or(name.into(), |rest| format!("{vision}.encoder.layers.{block}.{rest}"));
    }
    match name {
        "cls_token" => format!("{vision}.embeddings.class_embedding"),
        "pos_embedding" => format!("{vision}.embeddings.position_embedding.weight"),
        "to_patch_embedding.1.weight" => format!("{vision}.embeddings.patch_embedding.weight"),
        "to_patch_embedding.1.bias" => format!("{vision}.embeddings.patch_embedding.bias"),
        _ => layer(name, &LAYERS).unwrap_or_else(|| name.into()),
    }
}

/// `[width, row * column * channel]` to `[width, channel, row, column]`.
fn unfold(tensor: &mut HostTensor, channels: usize, patch: usize) {
    let [width, values] = tensor.shape[..] else { return };
    if values != channels * patch * patch {
        return; // Refused by its shape later.
    }
    let area = patch * patch;
    let from = |at: usize| (at / values) * values + (at % area) * channels + at % values / area;
    tensor.data = (0..width * values).map(|at| tensor.data[from(at)]).collect();
    tensor.shape = vec![width, channels, patch, patch];
}

#[cfg(test)]
mod tests {
    use super::{HostTensor, unfold};

    #[test]
    fn channels_come_before_places() {
        // One filter over two channels of a 2 x 2 patch, written place by place.
        let data = vec![1.0, 10.0, 2.0, 20.0, 3.0, 30.0, 4.0, 40.0];
        let mut tensor = HostTensor { shape: vec![1, 8], data, origin: String::new() };
        unfold(&mut tensor, 2, 2);
        assert_eq!(tensor.shape, [1, 2, 2, 2]);
        assert_eq!(tensor.data, [1.0, 2.0, 3.0, 4.0, 10.0, 20.0, 30.0, 40.0]);
    }
}
