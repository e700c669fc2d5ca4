//! Backbones by name, folder, file or hub id.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use inarch_core::backbone::Backbone;
use inarch_core::checkpoint::{open_backbone, open_embeddings};
use inarch_core::{Digest, file};
use inarch_recipes::pocket;
use inarch_registry::HubId;

use crate::error::CommandError;
use crate::home::home;
use crate::hub;

/// A backbone known by name.
pub(crate) struct Known {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
}

/// The backbones that need no download.
pub(crate) const KNOWN: [Known; 1] = [Known { name: pocket::NAME, about: pocket::ABOUT }];

/// What `-b` takes.
const TAKEN: &str = "`-b` takes a folder, a checkpoint, a hub id (ORG/NAME or ORG/NAME@REVISION) or a name of \
                     `inarch backbone list`";

/// How files of weights end: what ends so was meant as a path.
const FILE_ENDINGS: [&str; 6] = [".safetensors", ".bin", ".pt", ".pth", ".json", ".tar"];

/// What stands before the features file of texts that takes the place of a backbone's weights.
const EMBEDDINGS: &str = "embeddings:";

/// Opens a backbone: a name, a folder in the Hugging Face or OpenCLIP layout, a weights file, a hub id, or
/// `embeddings:` and a features file of texts.
///
/// # Errors
/// An unknown name, or whatever is wrong with the files.
pub(crate) fn open(backbone: &str, device: &Device) -> Result<Backbone, CommandError> {
    let path = locate(backbone)?;
    if backbone.starts_with(EMBEDDINGS) {
        return Ok(open_embeddings(&path, device)?);
    }
    open_backbone(&path, device).map_err(|error| match hub_id(backbone) {
        // Other programs may have fetched other files of it.
        Some(id) => CommandError::from(error)
            .with_hint(format!("`inarch backbone pull {id}` fetches what is missing or damaged")),
        None => error.into(),
    })
}

/// The folder or file of a backbone; one that ships with the program is unpacked once, one of the hub is downloaded
/// once.
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
    if let Some(id) = hub_id(backbone) {
        return match is_likely_path(&id) {
            false => hub::locate(&id),
            true => hub::cached(&id)?.ok_or_else(|| {
                let hint = format!("if the hub's repository is meant: `inarch backbone pull {id}` downloads it");
                missing(backbone).with_hint(hint)
            }),
        };
    }
    if backbone.contains(['/', '\\', '.', '@']) {
        return Err(missing(backbone));
    }
    let unknown = inarch_core::Error::Unknown {
        kind: "backbone",
        name: backbone.into(),
        candidates: KNOWN.iter().map(|known| known.name.to_string()).collect(),
    };
    Err(CommandError::from(unknown).with_hint(TAKEN))
}

/// What a backbone is called on the hub; none when it is a path or a name.
fn hub_id(backbone: &str) -> Option<HubId> {
    if backbone.starts_with(EMBEDDINGS) || Path::new(backbone).exists() {
        return None;
    }
    backbone.parse().ok()
}

/// Whether an id looks more like a path with a slip in it, which nobody else need hear of: a file of weights, or
/// something in a folder that is here.
fn is_likely_path(id: &HubId) -> bool {
    FILE_ENDINGS.iter().any(|ending| id.name().ends_with(ending)) || Path::new(id.organisation()).is_dir()
}

fn missing(backbone: &str) -> CommandError {
    CommandError::usage(format!("backbone `{backbone}` does not exist"), TAKEN)
        .with_hint("a folder has `config.json`, `model.safetensors` and what else `docs/backbones.md` names")
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
