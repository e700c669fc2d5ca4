//! A backbone without weights, from a features file of texts.

use std::path::Path;

use burn::tensor::Device;

use super::tensors::read_safetensors;
use crate::backbone::{Backbone, TextFeatures};
use crate::data::{FeatureFile, FeatureKind};
use crate::error::{Error, Result};

/// The key of the logit scale in the metadata of a features file of texts.
pub const LOGIT_SCALE_KEY: &str = "logit_scale";
/// The logit scale of CLIP, for files that do not tell theirs.
const CLIP_SCALE: f32 = 100.0;

/// Opens a features file of kind `text` as a backbone without towers. Its `ids` are class names or whole prompts; its
/// metadata may hold `logit_scale`, by default CLIP's 100.
///
/// # Errors
/// As [`FeatureFile::read`]; [`Error::Malformed`] for features of images or a scale that is no positive number.
pub fn open_embeddings(path: &Path, device: &Device) -> Result<Backbone> {
    let file = FeatureFile::read(path)?;
    let wrong = |reason: String| Error::malformed("features file of texts", path, reason);
    if file.kind != FeatureKind::Text {
        return Err(wrong("its rows are images; images are the data set, the backbone takes features of texts".into()));
    }
    let (_, metadata) = read_safetensors(path)?;
    let logit_scale = match metadata.get(LOGIT_SCALE_KEY) {
        None => CLIP_SCALE,
        Some(text) => match text.parse::<f32>() {
            Ok(scale) if scale.is_finite() && scale > 0.0 => scale,
            _ => return Err(wrong(format!("metadata `{LOGIT_SCALE_KEY}` must be a number above 0, found `{text}`"))),
        },
    };
    let name = path.file_stem().map_or("embeddings".into(), |name| name.to_string_lossy().into_owned());
    let FeatureFile { backbone: maker, ids: texts, values, dim, .. } = file;
    Backbone::from_text_features(name, &TextFeatures { texts, values, dim, maker, logit_scale }, path, device)
}
