//! `registry publish`, and `fit --publish`.

use std::path::{Path, PathBuf};

use inarch_continual::{FolderVersions, Versions as _};
use inarch_registry::{Digest, PublishRequest, Published, Source, Version};
use serde::Serialize;

use super::list::title;
use super::places::without_places;
use crate::args::PublishArgs;
use crate::backbones;
use crate::error::CommandError;
use crate::output::Output;
use crate::published;

/// What is printed with `--json`.
#[derive(Serialize)]
struct PublishResult {
    #[serde(flatten)]
    version: Version,
    /// False when the newest version was equal already.
    is_new: bool,
}

pub(super) fn run(args: &PublishArgs, output: &Output) -> Result<(), CommandError> {
    let registry = published::open()?;
    let parents = args.parent.iter().map(|parent| Ok(registry.resolve(parent)?.digest));
    let parents = parents.collect::<Result<Vec<Digest>, CommandError>>()?;
    let folder = in_force(&args.folder)?;
    if let Some(backbone) = &args.backbone {
        let backbone = backbones::open(backbone, &inarch_core::device(&args.device.device)?)?;
        published::self_test(&folder, &backbone)?;
    }
    let request = request(&folder, &args.name)?;
    let request = if args.for_devices { request.for_devices() } else { request };
    let labels = args.label.iter().cloned().collect();
    let Published { version, is_new } = registry.publish(PublishRequest { parents, labels, ..request })?;
    let result = PublishResult { version, is_new };
    output.result(&result, || match result.is_new {
        true => format!("published {} {}", title(&result.version), result.version.digest.short()),
        false => format!("{} is equal already", title(&result.version)),
    });
    Ok(())
}

/// The version in force of a folder of versions; any other folder is what it is.
fn in_force(folder: &Path) -> Result<PathBuf, CommandError> {
    match folder.join(inarch_peft::MANIFEST_FILE).is_file() {
        false if FolderVersions.exists(&folder.to_string_lossy()) => {
            Ok(FolderVersions.open(&folder.to_string_lossy())?.folder)
        }
        _ => Ok(folder.to_path_buf()),
    }
}

/// Publishes a folder with an adapter.
pub(crate) fn publish_folder(folder: &Path, name: &str) -> Result<Published, CommandError> {
    Ok(published::open()?.publish(request(folder, name)?)?)
}

fn request(folder: &Path, name: &str) -> Result<PublishRequest, CommandError> {
    let (name, release) = published::name_and_release(name)?;
    if folder.join(inarch_peft::PEFT_CONFIG_FILE).is_file() && !folder.join(inarch_peft::MANIFEST_FILE).is_file() {
        return Err(CommandError::usage(
            format!("`{}` is a folder of Hugging Face PEFT", folder.display()),
            "convert it first: `inarch convert FOLDER MINE --from peft --to inarch -b BACKBONE`",
        ));
    }
    inarch_peft::Artifact::settle(folder)?;
    let mut request = PublishRequest { release, ..PublishRequest::folder(name, folder)? };
    for (title, source) in &mut request.files {
        if let Some(bytes) = without_places(title, &folder.join(&*title))? {
            *source = Source::Bytes(bytes);
        }
    }
    Ok(request)
}
