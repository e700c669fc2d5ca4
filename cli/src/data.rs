//! Data sets as commands open them: as images, or as clips where that is meant, and what joins a data set of before.

use std::path::Path;

use inarch_core::data::{ClipConfig, DataOptions, Dataset, open_dataset_with};

use crate::args::ClipArgs;
use crate::error::CommandError;
use crate::progress::Bars;

/// Opens a data set: as clips where the arguments say so, or the adapter or recipe behind `base`, or where it can be nothing
/// else.
pub(crate) fn open(
    path: &Path,
    options: DataOptions,
    args: &ClipArgs,
    base: Option<&ClipConfig>,
    bars: &Bars,
) -> Result<Dataset, CommandError> {
    // Features of clips are rows like any other.
    let features = path.extension().is_some_and(|extension| extension == "safetensors");
    let clips = args.over(base).filter(|_| args.given() || !features);
    let dataset = open_dataset_with(path, &DataOptions { clips, ..options })?;
    if dataset.clips.is_none() && dataset.may_be_clips() {
        bars.control().progress.say(
            "note: every image lies in a folder of numbered images; they are read as single images. If each folder \
             is a clip, say how many of its frames are seen: `--frames 8`",
        );
    }
    Ok(dataset)
}

/// Opens data that joins what is known already, so that one class is enough.
pub(crate) fn open_more(path: &Path, root: Option<&Path>) -> Result<Dataset, CommandError> {
    Ok(open_dataset_with(path, &DataOptions { one_class: true, ..DataOptions::at(root) })?)
}
