//! Checkpoints in the Hugging Face layout: `config.json` to a specification, and a family's tensor names to the canonical ones.
//!
//! A family is one file that says both. Tensors that a family has and that take no part in features (poolers of other
//! tasks, mask tokens) are left out by name; any other name stays as it is, so that it is reported as unused.

mod align;
mod bert;
mod blip;
mod clip;
mod config;
mod dinov2;
mod names;
mod siglip;
mod vilt;
mod vit;
mod vit_pytorch;

pub(super) use self::bert::{canonical as bert_tensors, text as bert_text};
pub(super) use self::names::{split_qkv, squeeze, thirds};

use std::path::Path;

use serde_json::{Value, json};

use self::config::Section;
use crate::backbone::{BackboneSpec, ClassHead, StateDict};
use crate::error::Result;

/// `model_type` of a backbone that no class of `transformers` describes: `spec` holds its shape, and tensors have canonical names.
const OWN: &str = "inarch";

/// What `model_type` may be beside [`OWN`].
const FAMILIES: [&str; 10] =
    ["clip", "siglip", "align", "vit", "deit", "dinov2", "bert", "blip", "vilt", "vit-pytorch"];

/// A checkpoint in canonical form.
pub(super) struct Checkpoint {
    pub(super) spec: BackboneSpec,
    pub(super) tensors: StateDict,
    /// The classes that the checkpoint itself tells apart.
    pub(super) head: Option<ClassHead>,
}

impl Checkpoint {
    fn new(spec: BackboneSpec, tensors: StateDict) -> Self {
        Self { spec, tensors, head: None }
    }
}

/// Reads a `config.json` for these tensors. `side` is that of images after preprocessing, where that is known: positions are
/// brought to it by families that are run at other sizes than they were trained at.
///
/// # Errors
/// [`Malformed`](crate::Error::Malformed) or [`Mismatch`](crate::Error::Mismatch) naming the key.
pub(super) fn read(path: &Path, tensors: StateDict, side: Option<usize>) -> Result<Checkpoint> {
    let config = Section::read(path)?;
    let checkpoint = match known(&config)? {
        "clip" => clip::read(&config, tensors)?,
        "align" => align::read(&config, tensors, side)?,
        "siglip" => siglip::read(&config, tensors)?,
        "vit" | "deit" => vit::read(&config, tensors)?,
        "dinov2" => dinov2::read(&config, tensors, side)?,
        "bert" => bert::read(&config, tensors)?,
        "blip" => blip::read(&config, tensors)?,
        "vilt" => vilt::read(&config, tensors)?,
        "vit-pytorch" => vit_pytorch::read(&config, tensors)?,
        // [`OWN`]: nothing else is known.
        _ => {
            let spec = config.get("spec").cloned().unwrap_or_default();
            let spec = serde_json::from_value(spec).map_err(|error| config.wrong(format!("`spec`: {error}")))?;
            Checkpoint::new(spec, tensors)
        }
    };
    checkpoint.spec.check()?;
    Ok(checkpoint)
}

/// Checks that a `config.json` is of a family that [`read`] knows.
///
/// # Errors
/// [`Malformed`](crate::Error::Malformed) naming the families.
pub(super) fn check(path: &Path) -> Result<()> {
    let config = Section::read(path)?;
    known(&config)?;
    Ok(())
}

/// The `model_type` of a config, if it is one of those that [`read`] tells apart.
fn known<'a>(config: &'a Section<'_>) -> Result<&'a str> {
    match config.text("model_type").unwrap_or("clip") {
        family if family == OWN || FAMILIES.contains(&family) => Ok(family),
        "siglip2" => {
            let reason = "model_type is `siglip2`, a SigLIP 2 for images of any shape (NaFlex), which is not supported; take one for \
                          images of one size, whose model_type is `siglip`";
            Err(config.wrong(reason))
        }
        other => {
            let families = FAMILIES.join(", ");
            Err(config.wrong(format!("model_type is `{other}`; known are {families}")))
        }
    }
}

/// The `config.json` of a backbone: one that `transformers.CLIPModel` loads where it is a CLIP. `bos` and `eot` are the
/// token ids at the ends of a text.
pub(super) fn config(spec: &BackboneSpec, bos: u32, eot: u32) -> Value {
    clip::config(spec, bos, eot).unwrap_or_else(|| json!({ "model_type": OWN, "spec": spec }))
}
