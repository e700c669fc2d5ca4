//! Backbones by name, folder or file.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use inarch_core::backbone::Backbone;
use inarch_core::checkpoint::{open_backbone, open_embeddings};
use inarch_core::{Digest, file};
use inarch_recipes::pocket;

use crate::error::CommandError;
use crate::home::home;

/// A backbone known by name.
pub(crate) struct Known {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
}

/// The backbones that need no download.
pub(crate) const KNOWN: [Known; 1] = [Known { name: pocket::NAME, about: pocket::ABOUT }];

/// What stands before the features file of texts that takes the place of a backbone's weights.
const EMBEDDINGS: &str = "embeddings:";

/// Opens a backbone: a name, a folder in the Hugging Face or OpenCLIP layout, a weights file, or `embeddings:` and a
/// features file of texts.
///
/// # Errors
/// An unknown name, or whatever is wrong with the files.
pub(crate) fn open(backbone: &str, device: &Device) -> Result<Backbone, CommandError> {
    let path = locate(backbone)?;
    Ok(if backbone.starts_with(EMBEDDINGS) { open_embeddings(&path, device)? } else { open_backbone(&path, device)? })
}

/// The folder or file of a backbone; one that ships with the program is unpacked once.
pub(crate) fn locate(backbone: &str) -> Result<PathBuf, CommandError> {
    if let Some(path) = backbone.strip_prefix(EMBEDDINGS) {
        return Ok(PathBuf::from(path));
    }
    let path = Path::new(backbone);
    if path.exists() {
        return Ok(path.to_path_buf());
    }
    if backbone == pocket::NAME {
        return unpack();
    }
    if backbone.contains(['/', '\\', '.']) {
        return Err(CommandError::usage(
            format!("backbone `{backbone}` does not exist"),
            "give a folder with `config.json` and `model.safetensors`, a checkpoint file, or a name of `inarch backbone list`",
        ));
    }
    Err(inarch_core::Error::Unknown {
        kind: "backbone",
        name: backbone.into(),
        candidates: KNOWN.iter().map(|known| known.name.to_string()).collect(),
    }
    .into())
}

fn unpack() -> Result<PathBuf, CommandError> {
    let weights = pocket::FILES.iter().find(|(name, _)| *name == "model.safetensors").map_or(&[][..], |file| file.1);
    // The identity is in the folder's name, so another version of the program has its own copy.
    let folder = home()?.join("backbones").join(format!("{}-{}", pocket::NAME, Digest::of(weights).short()));
    let folder = folder.join(pocket::NAME);
    for (name, bytes) in pocket::FILES {
        let path = folder.join(name);
        let present = std::fs::metadata(&path).is_ok_and(|found| found.len() == bytes.len() as u64);
        if !present {
            file::write(&path, bytes)?;
        }
    }
    Ok(folder)
}
