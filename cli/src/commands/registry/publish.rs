//! `registry publish`, and `fit --publish`.

use std::path::Path;

use inarch_registry::{Digest, PublishRequest, Published, Version};
use serde::Serialize;

use super::list::title;
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
    if let Some(backbone) = &args.backbone {
        let backbone = backbones::open(backbone, &inarch_core::device(&args.device.device)?)?;
        published::self_test(&args.folder, &backbone)?;
    }
    let Published { version, is_new } =
        publish_folder(&args.folder, &args.name, parents, args.label.iter().cloned().collect())?;
    let result = PublishResult { version, is_new };
    output.result(&result, || match result.is_new {
        true => format!("published {} {}", title(&result.version), result.version.digest.short()),
        false => format!("{} is equal already", title(&result.version)),
    });
    Ok(())
}

/// Publishes a folder with an adapter.
pub(crate) fn publish_folder(
    folder: &Path,
    name: &str,
    parents: Vec<Digest>,
    labels: std::collections::BTreeMap<String, String>,
) -> Result<Published, CommandError> {
    let (name, release) = published::name_and_release(name)?;
    if folder.join(inarch_peft::PEFT_CONFIG_FILE).is_file() && !folder.join(inarch_peft::MANIFEST_FILE).is_file() {
        return Err(CommandError::usage(
            format!("`{}` is a folder of Hugging Face PEFT", folder.display()),
            "convert it first: `inarch convert FOLDER MINE --from peft --to inarch -b BACKBONE`",
        ));
    }
    let request = PublishRequest { release, parents, labels, ..PublishRequest::folder(name, folder)? };
    Ok(published::open()?.publish(request)?)
}
