//! Hugging Face PEFT folders: `adapter_config.json` and `adapter_model.safetensors` (or `.bin`), for the module names of
//! CLIP, SigLIP, ViT, DeiT, DINOv2, BERT, BLIP and ViLT in `transformers`. LoRA with rank and alpha patterns, rsLoRA, DoRA, VeRA, IA3,
//! LoHa, LoKr, OFT, BOFT and LN tuning are read and written, and whole normalisations, image projections and heads beside them
//! (`modules_to_save`).

mod config;
mod parts;
mod read;
mod whole;
mod write;

pub use read::read_peft;
pub use write::write_peft;

/// The settings.
pub const PEFT_CONFIG_FILE: &str = "adapter_config.json";
/// The tensors.
pub const PEFT_TENSORS_FILE: &str = "adapter_model.safetensors";
/// The same as older versions wrote them.
const PEFT_PICKLE_FILE: &str = "adapter_model.bin";
/// What PEFT puts before a module's name.
const PREFIX: &str = "base_model.model.";
