//! Data sets as commands open them: as images, or as clips where that is meant, and what joins a data set of before.

use std::path::Path;

use inarch_core::data::{ClipConfig, DataOptions, Dataset, HIDDEN_FILES, open_dataset_with};

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
    tell_of_others(path, &dataset, bars);
    if dataset.clips.is_none() && dataset.may_be_clips() {
        bars.control().progress.say(
            "note: every image lies in a folder of numbered images; they are read as single images. If each folder \
             is a clip, say how many of its frames are seen: `--frames 8`",
        );
    }
    Ok(dataset)
}

/// Opens data that joins what is known already, so that one class is enough.
pub(crate) fn open_more(path: &Path, options: DataOptions, bars: &Bars) -> Result<Dataset, CommandError> {
    let dataset = open_dataset_with(path, &DataOptions { one_class: true, ..options })?;
    tell_of_others(path, &dataset, bars);
    Ok(dataset)
}

/// Tells of files that are no images as this program reads them: photos of another format would be missed by nobody.
fn tell_of_others(path: &Path, dataset: &Dataset, bars: &Bars) {
    let others = dataset.ignored_files.iter().filter(|(kind, _)| *kind != HIDDEN_FILES);
    let others: Vec<String> = others.map(|(kind, count)| format!("{count} {kind}")).collect();
    if !others.is_empty() {
        let (path, others) = (path.display(), others.join(", "));
        bars.control().progress.say(&format!("note: files in `{path}` that are no images were passed over: {others}"));
    }
}

/// Refuses an output in the folder of a data set, which would be read as a class or a split from then on.
pub(crate) fn check_apart(output: &Path, data: &Path) -> Result<(), CommandError> {
    let (Ok(place), Ok(data_folder)) = (std::path::absolute(output), data.canonicalize()) else { return Ok(()) };
    // The output need not be there yet; what it will lie in is.
    let lies_in = place.ancestors().find_map(|folder| folder.canonicalize().ok());
    let inside = lies_in.is_some_and(|folder| data_folder.is_dir() && folder.starts_with(&data_folder));
    if !inside {
        return Ok(());
    }
    Err(CommandError::usage(
        format!("the output `{}` lies in the data set `{}`", output.display(), data.display()),
        "it would be read as a part of the data from then on: give a folder elsewhere with `-o`",
    ))
}
