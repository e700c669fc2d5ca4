//! What all importers share: what is given, and how learned tensors become an artifact.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Tensor;
use inarch_core::backbone::Backbone;
use inarch_core::text::Template;
use inarch_core::{Error, Seed};
use serde_json::{Map, Value};

use super::{clip_lora, coop, kohya, maple, peft, promptsrc, tip_adapter};
use crate::adapter::MethodConfig;
use crate::artifact::{Artifact, Provenance};
use crate::error::Result;
use crate::method::Start;
use crate::parameters::Parameters;

/// Programs whose adapters are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportFormat {
    /// A folder of Hugging Face PEFT.
    Peft,
    /// `prompt_learner/model.pth.tar-N` of CoOp, CoCoOp, KgCoOp or ProGrad.
    Coop,
    /// `MultiModalPromptLearner/model.pth.tar-N` of MaPLe.
    Maple,
    /// `VLPromptLearner/model.pth.tar-N` of PromptSRC or IVLP, or the `VPT` of the same code.
    PromptSrc,
    /// `lora_weights.pt` of CLIP-LoRA.
    ClipLora,
    /// `keys_Kshots.pt` or `best_F_Kshots.pt` of Tip-Adapter, with `values_Kshots.pt` beside it.
    TipAdapter,
    /// A `.safetensors` of kohya's scripts or LyCORIS.
    Kohya,
}

/// A file of another program, and what the file itself does not say.
pub struct Import<'a> {
    /// The file or folder.
    pub path: &'a Path,
    /// The backbone that the adapter belongs to.
    pub backbone: &'a Backbone,
    /// Class names in the order of their labels; empty where they are not known.
    pub classes: &'a [String],
    /// The templates that it was trained with, where the method has none of its own.
    pub templates: &'a [Template],
    /// Settings of the method that the file does not hold, by name.
    pub settings: &'a Map<String, Value>,
}

/// Reads an adapter of another program.
///
/// # Errors
/// `Refused` for a file that was trained beside another backbone, or whose meaning would change; `Malformed` for tensors
/// that are missing, superfluous, of another shape or not finite; `Setting` for settings that do not fit the method.
pub fn import(format: ImportFormat, import: &Import<'_>) -> Result<Artifact> {
    if format != ImportFormat::TipAdapter {
        import.backbone.need_towers(&format!("adapter `{}`", import.path.display()))?;
    }
    match format {
        ImportFormat::Peft => {
            if let Some(setting) = import.settings.keys().next() {
                return Err(Error::invalid(format!("setting `{setting}`"), "a PEFT folder holds all of them").into());
            }
            peft::read_peft(import.path, import.backbone)
        }
        ImportFormat::Coop => coop::read(import),
        ImportFormat::Maple => maple::read(import),
        ImportFormat::PromptSrc => promptsrc::read(import),
        ImportFormat::ClipLora => clip_lora::read(import),
        ImportFormat::TipAdapter => tip_adapter::read(import),
        ImportFormat::Kohya => kohya::read(import),
    }
}

impl Import<'_> {
    /// A fault in the file.
    pub(super) fn malformed(&self, reason: impl Into<String>) -> crate::Error {
        Error::malformed("adapter", self.path, reason.into()).into()
    }

    /// Something that the file says and that must not be said.
    pub(super) fn refused(&self, what: &str, expected: impl Into<String>, found: impl ToString) -> crate::Error {
        let what = format!("{what} of adapter `{}`", self.path.display());
        Error::Refused { what, expected: expected.into(), found: found.to_string() }.into()
    }

    /// A method with the settings that were given over those that the file tells.
    pub(super) fn configured(&self, method: MethodConfig) -> Result<MethodConfig> {
        if self.settings.is_empty() {
            return Ok(method);
        }
        let name = method.name();
        let invalid = |error: serde_json::Error| Error::invalid(format!("settings of `{name}`"), error.to_string());
        let mut value = serde_json::to_value(&method).map_err(invalid)?;
        if let Some(fields) = value.as_object_mut() {
            fields.extend(self.settings.clone());
        }
        Ok(serde_json::from_value(value).map_err(invalid)?)
    }

    /// The artifact of some learned tensors.
    pub(super) fn artifact(
        &self,
        method: MethodConfig,
        parameters: Parameters,
        classes: &[String],
    ) -> Result<Artifact> {
        let backbone = self.backbone;
        let device = backbone.device();
        let features = Tensor::zeros([classes.len().max(1), backbone.spec().dim], device);
        let start = Start { saved: Some(&parameters), ..Start::new(backbone, &features, Seed::new(0), device) };
        let adapter = method.init(&start)?;
        let adapter = adapter.with_parameters(parameters, device).map_err(|reason| self.malformed(reason))?;
        let own = method.templates()?;
        let templates = if own.is_empty() { self.templates.to_vec() } else { own };
        let provenance =
            Provenance { classes: classes.to_vec(), templates, data: None, clips: None, metrics: BTreeMap::new() };
        Artifact::new(adapter, method, backbone, provenance)
    }
}
