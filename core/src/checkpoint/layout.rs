//! What lies in the folder of a backbone, for those who bring such folders here.

use std::path::Path;

use super::hf;
use crate::error::Result;

/// Names of weights, in the order in which a folder is searched for them; the first is read, the others are left.
pub const WEIGHT_FILES: [&str; 6] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
    "pytorch_model.bin",
    "model.pt",
];

/// Names of the files that may lie beside weights: what the model is, its tokenizer, how images are prepared.
pub const COMPANION_FILES: [&str; 12] = [
    "config.json",
    "open_clip_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "modules.json",
    "1_Pooling/config.json",
];

/// Checks from its `config.json` that a folder is of a family that [`open_backbone`](super::open_backbone) knows,
/// before its weights are there. A folder in another layout than that of Hugging Face passes: its tensors tell.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io), or [`Error::Malformed`](crate::Error::Malformed) naming the families.
pub fn check_family(folder: &Path) -> Result<()> {
    let config = folder.join("config.json");
    if folder.join("open_clip_config.json").is_file() || !config.is_file() {
        return Ok(());
    }
    hf::check(&config)
}

#[cfg(test)]
mod tests {
    use super::check_family;

    #[test]
    fn a_family_is_known_by_its_config() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(check_family(folder.path()).is_ok(), "no config says nothing");
        let config = folder.path().join("config.json");
        std::fs::write(&config, r#"{"model_type":"dinov2"}"#).expect("writes");
        assert!(check_family(folder.path()).is_ok());
        std::fs::write(&config, r#"{"model_type":"llama"}"#).expect("writes");
        let error = check_family(folder.path()).expect_err("no such family").to_string();
        assert!(error.contains("`llama`") && error.contains("siglip"), "{error}");
        std::fs::write(folder.path().join("open_clip_config.json"), "{}").expect("writes");
        assert!(check_family(folder.path()).is_ok(), "OpenCLIP's own config is what counts then");
    }
}
