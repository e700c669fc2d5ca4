//! What may stand behind `inarch convert`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use inarch_peft::ImportFormat;

use super::DeviceArgs;

#[derive(Debug, Args)]
pub(crate) struct ConvertArgs {
    /// Folder or file of the adapter
    #[arg(value_name = "FROM")]
    pub(crate) source: PathBuf,
    /// Folder to write
    #[arg(value_name = "TO")]
    pub(crate) target: PathBuf,
    /// What it is
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) from: AdapterFormat,
    /// What it shall be
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) to: TargetFormat,
    /// The backbone it belongs to
    #[arg(short = 'b', long, value_name = "BACKBONE")]
    pub(crate) backbone: String,
    /// Class names in the order of their labels, separated by commas, where the file does not say them
    #[arg(long, value_delimiter = ',', value_name = "A,B,C", conflicts_with = "data", value_parser = super::trimmed)]
    pub(crate) classes: Vec<String>,
    /// Data set whose class names these are
    #[arg(short = 'd', long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,
    /// Folder that the paths of a split or manifest are relative to
    #[arg(long, value_name = "FOLDER", requires = "data")]
    pub(crate) root: Option<PathBuf>,
    /// Template set or one template that it was trained with, where the method has no prompt of its own
    #[arg(long, default_value = "single", value_name = "TEMPLATES")]
    pub(crate) templates: String,
    /// A setting of the method that the file does not hold, e.g. `alpha=1.17` (tip-adapter), `class_position=front` (coop)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// What is written.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum TargetFormat {
    /// A folder as `inarch fit` writes it
    Inarch,
    /// A folder of Hugging Face PEFT on `transformers.CLIPModel`
    Peft,
}

/// What is read.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum AdapterFormat {
    /// A folder that `inarch fit` wrote
    Inarch,
    /// A folder of Hugging Face PEFT on `transformers.CLIPModel`
    Peft,
    /// `prompt_learner/model.pth.tar-N` of CoOp, CoCoOp, KgCoOp or ProGrad
    Coop,
    /// `MultiModalPromptLearner/model.pth.tar-N` of MaPLe
    Maple,
    /// `VLPromptLearner/model.pth.tar-N` of PromptSRC or IVLP, or VPT of the same code
    #[value(name = "promptsrc")]
    PromptSrc,
    /// `lora_weights.pt` of CLIP-LoRA
    ClipLora,
    /// `keys_Kshots.pt` or `best_F_Kshots.pt` of Tip-Adapter
    TipAdapter,
    /// LoRA, DoRA, LoHa or LoKr of kohya's scripts or LyCORIS, `.safetensors`
    Kohya,
}

impl AdapterFormat {
    /// The importer of a format that is not our own.
    pub(crate) fn import(self) -> Option<ImportFormat> {
        Some(match self {
            Self::Inarch => return None,
            Self::Peft => ImportFormat::Peft,
            Self::Coop => ImportFormat::Coop,
            Self::Maple => ImportFormat::Maple,
            Self::PromptSrc => ImportFormat::PromptSrc,
            Self::ClipLora => ImportFormat::ClipLora,
            Self::TipAdapter => ImportFormat::TipAdapter,
            Self::Kohya => ImportFormat::Kohya,
        })
    }
}
