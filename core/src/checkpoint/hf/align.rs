//! ALIGN (Jia et al., 2021, arXiv 2102.05918): an EfficientNet beside a BERT.
//!
//! The image's feature is the pooled last map as it is, the text's its first token through a projection with an offset; their width is
//! the same. What is written as a temperature `T` is the logit scale `1 / T` here.

use super::Checkpoint;
use super::bert;
use super::config::Section;
use super::names::numbered;
use crate::backbone::{
    Activation, BackboneSpec, EfficientNetSpec, ImageSpec, ImageStyle, InvertedSpec, MapPool, StateDict, TextPool,
    TextProjection, TransformerSpec, TrunkSpec,
};
use crate::checkpoint::batch_norm::Normalised;
use crate::error::Result;

/// Channels behind the stem, before they are scaled.
const STEM: usize = 32;
/// What a list of stages may say at most, so that a wrong number is found before anything is built of it.
const MOST: usize = 1 << 12;

/// The convolutions of a block with a normalisation: of which layer, what both are called, and the canonical name.
const NORMALISED: [(&str, &str, &str, &str); 3] = [
    ("expansion", "expand_conv", "expand_bn", "expand"),
    ("depthwise_conv", "depthwise_conv", "depthwise_norm", "depthwise"),
    ("projection", "project_conv", "project_bn", "project"),
];

pub(super) fn read(config: &Section<'_>, tensors: StateDict, side: Option<usize>) -> Result<Checkpoint> {
    let (vision, text) = (config.inner("vision_config"), config.inner("text_config"));
    let trunk = trunk(&vision)?;
    let dim = config.number("projection_dim", 640)?;
    if trunk.channels() != dim {
        let reason = format!("projection_dim is {dim}, and images have features of width {}", trunk.channels());
        return Err(config.wrong(reason));
    }
    let mut text = bert::tower(&text, TextPool::First)?;
    text.style.projection = TextProjection::Offset;
    // Run at the size that images have after preprocessing, which is another one than that of the config.
    let size = side.map_or_else(|| vision.number("image_size", 600), Ok)?;
    let transformer = TransformerSpec::new(dim, 0, 1, 0, Activation::Gelu, 1e-5);
    let (stride, trunk) = (trunk.stride(), Some(TrunkSpec::EfficientNet(trunk)));
    let style = ImageStyle { pre_norm: false, trunk, projection: false, ..ImageStyle::default() };
    let image = ImageSpec { style, ..ImageSpec::new(size, stride, transformer) };
    let epsilon = vision.decimal("batch_norm_eps", 1e-3)?;
    Ok(Checkpoint::new(BackboneSpec::new(dim, image, text), canonical(config, tensors, epsilon)?))
}

/// The sizes of the image tower.
fn trunk(vision: &Section<'_>) -> Result<EfficientNetSpec> {
    let activation = vision.text("hidden_act").unwrap_or("swish");
    if vision.number("num_channels", 3)? != 3 || !["swish", "silu"].contains(&activation) {
        return Err(vision.wrong("vision_config: 3 channels and the activation `swish` are supported"));
    }
    let pool = match vision.text("pooling_type").unwrap_or("mean") {
        "mean" => MapPool::Mean,
        "max" => MapPool::Max,
        other => return Err(vision.wrong(format!("pooling_type is `{other}`; known are `mean` and `max`"))),
    };
    let inputs = vision.numbers("in_channels", &[32, 16, 24, 40, 80, 112, 192])?;
    let outputs = vision.numbers("out_channels", &[16, 24, 40, 80, 112, 192, 320])?;
    let sides = vision.numbers("kernel_sizes", &[3, 3, 5, 3, 5, 5, 3])?;
    let strides = vision.numbers("strides", &[1, 2, 2, 2, 1, 2, 1])?;
    let repeats = vision.numbers("num_block_repeats", &[1, 2, 2, 3, 3, 4, 1])?;
    let factors = vision.numbers("expand_ratios", &[1, 6, 6, 6, 6, 6, 6])?;
    let centred = vision.numbers("depthwise_padding", &[])?;
    let lists = [&inputs, &outputs, &sides, &strides, &repeats, &factors];
    if lists.iter().any(|list| list.len() != inputs.len() || list.iter().any(|value| *value > MOST)) {
        return Err(vision.wrong(format!("the lists of the stages must be equally long and hold numbers up to {MOST}")));
    }
    let (deep, squeeze) = (vision.decimal("depth_coefficient", 3.1)?, vision.decimal("squeeze_expansion_ratio", 0.25)?);
    let wide = vision.decimal("width_coefficient", 2.0)?;
    let divisor = vision.number("depth_divisor", 8)?;
    if !(deep * repeats.iter().sum::<usize>() as f64 <= MOST as f64
        && wide <= MOST as f64
        && (1..=MOST).contains(&divisor))
    {
        return Err(vision.wrong(format!(
            "depth_coefficient {deep}, width_coefficient {wide} and depth_divisor {divisor} make no tower of at most {MOST} blocks"
        )));
    }
    let scaled = |channels: usize| scaled(channels, wide, divisor);
    let stem = scaled(STEM);
    let mut spec = EfficientNetSpec { stem, blocks: Vec::new(), pool };
    for (stage, from) in inputs.into_iter().enumerate() {
        let (from, outer) = (scaled(from), scaled(outputs[stage]));
        if from != spec.channels() {
            return Err(vision
                .wrong(format!("in_channels has {from} channels for stage {stage}, and {} come in", spec.channels())));
        }
        for repeat in 0..(deep * repeats[stage] as f64).ceil() as usize {
            let from = spec.channels();
            spec.blocks.push(InvertedSpec {
                inner: from * factors[stage],
                outer,
                squeezed: ((from as f64 * squeeze) as usize).max(1),
                side: sides[stage],
                stride: if repeat == 0 { strides[stage] } else { 1 },
                centred: centred.contains(&spec.blocks.len()),
                residual: repeat > 0,
            });
        }
    }
    Ok(spec)
}

/// Channels times the width, as a multiple of the divisor that is not below by more than a tenth.
fn scaled(channels: usize, width: f64, divisor: usize) -> usize {
    let wanted = channels as f64 * width;
    let near = ((wanted + divisor as f64 / 2.0) as usize / divisor * divisor).max(divisor);
    if (near as f64) < 0.9 * wanted { near + divisor } else { near }
}

/// Brings all tensors to the canonical names.
fn canonical(config: &Section<'_>, tensors: StateDict, epsilon: f64) -> Result<StateDict> {
    let (mut image, mut text, mut canonical) = (Normalised::default(), StateDict::new(), StateDict::new());
    for (name, tensor) in tensors {
        if name == "temperature" {
            let mut tensor = tensor;
            if tensor.data.iter().any(|value| !(value.is_finite() && *value > 0.0)) {
                return Err(config.wrong(format!("`temperature` must be above 0, found {:?}", tensor.data)));
            }
            tensor.data.iter_mut().for_each(|value| *value = -value.ln());
            canonical.insert("logit_scale".into(), tensor);
        } else if let Some(inner) = name.strip_prefix("text_model.") {
            text.insert(inner.into(), tensor);
        } else if let Some((layer, part)) = name.strip_prefix("vision_model.").and_then(normalised) {
            image.insert(layer, part, tensor);
        } else {
            let known = name.strip_prefix("vision_model.").and_then(squeezed);
            canonical.insert(known.unwrap_or(name), tensor);
        }
    }
    canonical.extend(bert::canonical(text));
    canonical.extend(image.folded(epsilon, config.path())?);
    Ok(canonical)
}

/// The canonical convolution of a tensor, where a normalisation is behind it, and what the tensor is to it.
fn normalised(name: &str) -> Option<(String, &str)> {
    let (layer, kind) = name.rsplit_once('.')?;
    if let Some((block, rest)) = numbered(layer, "encoder.blocks.") {
        let (part, own) = rest.split_once('.')?;
        let (_, convolution, _, name) = NORMALISED
            .iter()
            .find(|(at, convolution, norm, _)| *at == part && (own == *convolution || own == *norm))?;
        let kind = match (own == *convolution, kind) {
            (true, "weight") => "filters",
            (true, _) => return None,
            (false, kind) => kind,
        };
        return Some((format!("vision_model.trunk.blocks.{block}.{name}"), kind));
    }
    match layer {
        "embeddings.convolution" if kind == "weight" => Some(("vision_model.trunk.stem".into(), "filters")),
        "embeddings.batchnorm" => Some(("vision_model.trunk.stem".into(), kind)),
        _ => None,
    }
}

/// The canonical name of a tensor of squeeze and excitation.
fn squeezed(name: &str) -> Option<String> {
    let (block, rest) = numbered(name, "encoder.blocks.")?;
    let (layer, kind) = rest.strip_prefix("squeeze_excite.")?.split_once('.')?;
    let layer = match layer {
        "reduce" => "reduce",
        "expand" => "excite",
        _ => return None,
    };
    Some(format!("vision_model.trunk.blocks.{block}.{layer}.{kind}"))
}

#[cfg(test)]
mod tests {
    use super::scaled;

    #[test]
    fn channels_of_b7_and_b2_are_those_of_the_paper() {
        let of = |width: f64| [32, 16, 24, 40, 80, 112, 192, 320].map(|channels| scaled(channels, width, 8));
        assert_eq!(of(2.0), [64, 32, 48, 80, 160, 224, 384, 640]);
        assert_eq!(of(1.1), [32, 16, 24, 48, 88, 120, 208, 352]);
        // Rounded down by more than a tenth otherwise.
        assert_eq!(scaled(11, 1.0, 8), 16);
    }
}
