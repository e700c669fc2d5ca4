//! Writing backbones in the Hugging Face layout.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use half::f16;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

use super::hf;
use crate::backbone::{Backbone, HostTensor, Tower};
use crate::error::{Error, Result};
use crate::file;
use crate::image::{Preprocess, Resample, Resize};

/// How weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
}

impl Precision {
    /// What is read back of a value that was written.
    pub fn rounded(self, value: f32) -> f32 {
        match self {
            Self::F32 => value,
            Self::F16 => f16::from_f32(value).to_f32(),
        }
    }
}

/// The bytes of a safetensors file; equal input gives equal bytes.
///
/// # Errors
/// [`Error::Invalid`] when a tensor's shape and length disagree.
pub fn encode_safetensors(
    tensors: &BTreeMap<String, HostTensor>,
    metadata: BTreeMap<String, String>,
    precision: Precision,
) -> Result<Vec<u8>> {
    let encoded: Vec<(&str, Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, tensor)| {
            let bytes = match precision {
                Precision::F32 => tensor.data.iter().flat_map(|value| value.to_le_bytes()).collect(),
                Precision::F16 => tensor.data.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect(),
            };
            (name.as_str(), tensor.shape.clone(), bytes)
        })
        .collect();
    let dtype = match precision {
        Precision::F32 => Dtype::F32,
        Precision::F16 => Dtype::F16,
    };
    let fault = |error: safetensors::SafeTensorError| Error::invalid("tensors to be written", error.to_string());
    let views = encoded
        .iter()
        .map(|(name, shape, bytes)| Ok((*name, TensorView::new(dtype, shape.clone(), bytes).map_err(fault)?)))
        .collect::<Result<Vec<_>>>()?;
    // The header keeps metadata in the order of a hash map: one key at most stays reproducible, more would not, so they
    // travel as one JSON text when there are several.
    let metadata: HashMap<String, String> = metadata.into_iter().collect();
    safetensors::serialize(views, if metadata.is_empty() { None } else { Some(metadata) }).map_err(fault)
}

/// Writes a backbone as a folder: of a CLIP one that `transformers.CLIPModel.from_pretrained` loads, of others one that
/// [`open_backbone`](super::open_backbone) loads.
///
/// # Errors
/// [`Error::Io`] naming the file; as [`Backbone::need_towers`].
pub fn write_backbone(backbone: &Backbone, folder: &Path, precision: Precision) -> Result<()> {
    backbone.need_towers("weights to be written")?;
    let (bos, eot) = (backbone.tokenizer().bos(), backbone.tokenizer().eot());
    let mut config = hf::config(backbone.spec(), bos, eot);
    if let Some(config) = config.as_object_mut() {
        let dtype = if precision == Precision::F16 { "float16" } else { "float32" };
        config.insert("torch_dtype".into(), dtype.into());
    }
    let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
    let weights = encode_safetensors(&backbone.state_dict(), metadata, precision)?;
    if backbone.has(Tower::Text) {
        file::write(&folder.join("tokenizer.json"), &backbone.tokenizer().to_bytes()?)?;
    }
    file::write_json(&folder.join("preprocessor_config.json"), &preprocess_to_hf(backbone.preprocess()))?;
    file::write_json(&folder.join("config.json"), &config)?;
    file::write(&folder.join("model.safetensors"), &weights)
}

/// The `preprocessor_config.json` that `transformers.CLIPImageProcessor` reads.
fn preprocess_to_hf(preprocess: &Preprocess) -> Value {
    let (resize, size) = match preprocess.resize {
        Resize::ShortestEdge(side) => (true, json!({ "shortest_edge": side })),
        Resize::Exact(size) => (true, json!({ "height": size.height, "width": size.width })),
        Resize::Keep => (false, json!({ "shortest_edge": preprocess.crop.height.min(preprocess.crop.width) })),
    };
    // Pillow's codes.
    let resample = match preprocess.resample {
        Resample::Nearest => 0,
        Resample::Lanczos => 1,
        Resample::Bilinear => 2,
        Resample::Bicubic => 3,
        Resample::Box => 4,
        Resample::Hamming => 5,
    };
    json!({
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": true,
        "do_resize": resize,
        "size": size,
        "resample": resample,
        "do_center_crop": true,
        "crop_size": { "height": preprocess.crop.height, "width": preprocess.crop.width },
        "do_rescale": true,
        "rescale_factor": preprocess.rescale,
        "do_normalize": true,
        "image_mean": preprocess.mean,
        "image_std": preprocess.std,
    })
}
