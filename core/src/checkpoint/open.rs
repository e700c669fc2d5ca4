//! Opening a backbone from a folder or a weights file.

use std::path::{Path, PathBuf};

use burn::tensor::Device;

use super::hf::{self, Checkpoint};
use super::tensors::{find_weights, read_tensors};
use super::{open_clip, openai, openai_resnet};
use crate::backbone::{Backbone, BackboneSpec, ImageStyle, TextAttention, TextPool, Tower, TrunkSpec};
use crate::error::{Error, Result};
use crate::file;
use crate::image::Preprocess;
use crate::text::Tokenizer;

/// Opens a backbone: a folder in the Hugging Face layout (`config.json`, `model.safetensors` or shards,
/// `tokenizer.json`, `preprocessor_config.json`), a folder with an OpenCLIP checkpoint (`open_clip_config.json`), or a
/// weights file of either kind with `tokenizer.json` beside it. A tower alone needs its own files only.
///
/// # Errors
/// Whatever is missing or does not fit, by name: a file, a tensor, a size.
pub fn open_backbone(path: &Path, device: &Device) -> Result<Backbone> {
    let (folder, weights) = locate(path)?;
    let tensors = read_tensors(&weights)?;
    if let Some((name, empty)) = tensors.iter().find(|(_, tensor)| tensor.data.is_empty()) {
        // It could claim any size without a byte of the file.
        return Err(Error::Tensor {
            path: weights,
            name: name.clone(),
            expected: "at least one value".into(),
            found: format!("shape {:?}", empty.shape),
        });
    }
    let config = folder.join("config.json");
    let preprocess = folder.join("preprocessor_config.json");
    let preprocess = preprocess.is_file().then(|| Preprocess::from_hf(&preprocess)).transpose()?;
    let Checkpoint { spec, tensors, head } = if openai::recognises(&tensors) {
        let spec = openai::spec(&tensors, &weights)?;
        let tensors = match spec.image.style.trunk {
            Some(_) => openai_resnet::to_canonical(tensors, &weights)?,
            None => tensors,
        };
        Checkpoint { spec, tensors: openai::to_canonical(tensors), head: None }
    } else if open_clip::recognises(&tensors) {
        let (spec, tensors) = open_clip::read(tensors, &weights)?;
        Checkpoint { spec, tensors, head: None }
    } else if config.is_file() {
        hf::read(&config, tensors, preprocess.as_ref().map(|preprocess| preprocess.crop.height as usize))?
    } else {
        return Err(Error::malformed(
            "checkpoint",
            &weights,
            "its tensors do not carry OpenAI or OpenCLIP names, and there is no `config.json` (Hugging Face layout) beside it",
        ));
    };
    let preprocess = match preprocess {
        Some(preprocess) => preprocess,
        None if !spec.has(Tower::Image) => Preprocess::clip(224),
        None if spec.image.style == ImageStyle::default()
            || matches!(spec.image.style.trunk, Some(TrunkSpec::ResNet(_)))
            || folder.join("open_clip_config.json").is_file() =>
        {
            openai::preprocess(&weights, spec.image.size as u32)?
        }
        None => {
            let reason =
                "`preprocessor_config.json` is missing: it says to which size and statistics images are brought";
            return Err(Error::malformed("backbone folder", &folder, reason));
        }
    };
    let name = name(&folder);
    let tokenizer = tokenizer(&folder, &spec)?;
    let mut spec = spec;
    if spec.text.style.pool == TextPool::Last && spec.text.style.fill.is_none() {
        spec.text.style.fill = Some(tokenizer.padding()?);
    }
    if let Some(crossing) = spec.crossing.as_mut().filter(|crossing| crossing.words && crossing.mask.is_none())
        && spec.text.style.attention == TextAttention::Both
    {
        crossing.mask = Some(tokenizer.mask()?);
    }
    Backbone::new(name, spec, tensors, tokenizer, preprocess, &weights, device)?.with_head(head)
}

/// What a backbone is called: as its folder, or, in the cache of a model hub (`models--ORG--NAME/snapshots/COMMIT`),
/// as its repository.
fn name(folder: &Path) -> String {
    let text = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let repository = folder
        .parent()
        .filter(|snapshots| snapshots.file_name().is_some_and(|name| name == "snapshots"))
        .and_then(|snapshots| text(snapshots.parent()?))
        .and_then(|repository| repository.strip_prefix("models--")?.rsplit("--").next().map(String::from));
    repository.or_else(|| text(folder)).unwrap_or("backbone".into())
}

/// The tokenizer of a folder, by the rules of the text tower.
fn tokenizer(folder: &Path, spec: &BackboneSpec) -> Result<Tokenizer> {
    if !spec.has(Tower::Text) {
        return Tokenizer::of_texts(&[], folder);
    }
    let path = beside(folder, "tokenizer.json", "save it with `tokenizer.save_pretrained(..)` of transformers")?;
    let context = spec.text.context;
    match spec.text.style.attention {
        TextAttention::Causal if spec.crossing.is_none() => Tokenizer::from_file(&path, context),
        TextAttention::Causal | TextAttention::Both => Tokenizer::with_own_rules(&path, context),
    }
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::name;

    #[test]
    fn a_snapshot_of_a_hub_is_called_as_its_repository() {
        for (folder, expected) in [
            ("/models/clip-b32", "clip-b32"),
            ("/hub/models--openai--clip-vit-base-patch32/snapshots/3d74acf9", "clip-vit-base-patch32"),
            ("/hub/models--gpt2/snapshots/3d74acf9", "gpt2"),
            ("/mine/snapshots/3d74acf9", "3d74acf9"),
            ("/", "backbone"),
        ] {
            assert_eq!(name(Path::new(folder)), expected, "{folder}");
        }
    }
}
