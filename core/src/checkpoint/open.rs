//! Opening a backbone from a folder or a weights file.

use std::path::{Path, PathBuf};

use burn::tensor::Device;

use super::openai;
use super::tensors::{find_weights, read_tensors};
use crate::backbone::{Backbone, BackboneSpec};
use crate::error::{Error, Result};
use crate::file;
use crate::image::Preprocess;
use crate::text::Tokenizer;

/// Opens a backbone: a folder in the Hugging Face layout (`config.json`, `model.safetensors` or shards,
/// `tokenizer.json`, `preprocessor_config.json`), a folder with an OpenCLIP checkpoint (`open_clip_config.json`), or a
/// weights file of either kind with `tokenizer.json` beside it.
///
/// # Errors
/// Whatever is missing or does not fit, by name: a file, a tensor, a size.
pub fn open_backbone(path: &Path, device: &Device) -> Result<Backbone> {
    let (folder, weights) = locate(path)?;
    let tensors = read_tensors(&weights)?;
    let config = folder.join("config.json");
    let (spec, tensors) = if openai::recognises(&tensors) {
        (openai::spec(&tensors, &weights)?, openai::to_canonical(tensors))
    } else if config.is_file() {
        (BackboneSpec::from_hf(&config)?, tensors)
    } else {
        return Err(Error::malformed(
            "CLIP checkpoint",
            &weights,
            "its tensors do not carry OpenAI or OpenCLIP names, and there is no `config.json` (Hugging Face layout) beside it",
        ));
    };
    let tokenizer = beside(&folder, "tokenizer.json", "save it with `tokenizer.save_pretrained(..)` of transformers")?;
    let tokenizer = Tokenizer::from_file(&tokenizer, spec.text.context)?;
    let preprocess = folder.join("preprocessor_config.json");
    let preprocess = if preprocess.is_file() {
        Preprocess::from_hf(&preprocess)?
    } else {
        openai::preprocess(&weights, spec.image.size as u32)?
    };
    let name = folder.file_name().map_or("backbone".into(), |name| name.to_string_lossy().into_owned());
    Backbone::new(name, spec, tensors, tokenizer, preprocess, &weights, device)
}

fn locate(path: &Path) -> Result<(PathBuf, PathBuf)> {
    if path.is_dir() {
        let path = path.canonicalize().map_err(Error::io("read", path))?;
        let weights = find_weights(&path).ok_or_else(|| {
            let found: Vec<String> = file::list(&path)
                .unwrap_or_default()
                .iter()
                .filter_map(|entry| entry.file_name().map(|name| name.to_string_lossy().into_owned()))
                .take(12)
                .collect();
            Error::malformed(
                "backbone folder",
                &path,
                format!("no weights: expected `model.safetensors`, its index, `open_clip_model.safetensors` or `pytorch_model.bin`; found {found:?}"),
            )
        })?;
        return Ok((path, weights));
    }
    if !path.exists() {
        let cause = std::io::Error::from(std::io::ErrorKind::NotFound);
        return Err(Error::Io { action: "open backbone", path: path.to_path_buf(), source: cause });
    }
    let path = path.canonicalize().map_err(Error::io("read", path))?;
    let folder = path.parent().unwrap_or(Path::new(".")).to_path_buf();
    Ok((folder, path))
}

fn beside(folder: &Path, name: &str, cure: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(Error::malformed("backbone folder", folder, format!("`{name}` is missing: {cure}")))
}
