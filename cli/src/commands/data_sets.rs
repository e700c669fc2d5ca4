//! `inarch data`: make data sets.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use inarch_core::data::{ActionConfig, ActionReport, CropConfig, CropReport, DataOptions, TileConfig, TileReport};
use inarch_core::data::{crop_pascal_voc, open_dataset_with, write_actions, write_manifest, write_tiles};
use inarch_recipes::BadImagePolicy;
use serde::Serialize;

use super::encode;
use crate::args::{ActionsArgs, CropArgs, DataSetsArgs, DataSetsCommand, SplitArgs, TilesArgs};
use crate::data::check_apart;
use crate::error::CommandError;
use crate::output::{Output, quoted, table, unread};

/// What is printed with `--json`.
#[derive(Serialize)]
struct CropResult {
    output: PathBuf,
    #[serde(flatten)]
    report: CropReport,
}

pub(crate) fn run(args: &DataSetsArgs, output: &Output) -> Result<(), CommandError> {
    match &args.command {
        DataSetsCommand::Crop(args) => crop(args, output),
        DataSetsCommand::Split(args) => split(args, output),
        DataSetsCommand::Actions(args) => actions(args, output),
        DataSetsCommand::Tiles(args) => tiles(args, output),
        DataSetsCommand::Join(args) => encode::join(args, output),
    }
}

/// What is printed with `--json`.
#[derive(Serialize)]
struct SplitResult {
    output: PathBuf,
    /// Examples by split and class.
    examples: BTreeMap<String, BTreeMap<String, usize>>,
    /// Groups by split; empty where there are none.
    groups: BTreeMap<String, usize>,
}

fn split(args: &SplitArgs, output: &Output) -> Result<(), CommandError> {
    let options = DataOptions { clips: args.clips.over(None), ..args.reading.options() };
    let dataset = open_dataset_with(&args.data, &options)?;
    write_manifest(&dataset, &args.output)?;
    let mut result = SplitResult { output: args.output.clone(), examples: BTreeMap::new(), groups: BTreeMap::new() };
    let mut seen = HashSet::new();
    for (split, example) in dataset.examples() {
        let labels = if dataset.multi_label { &example.labels[..] } else { &[example.label] };
        for label in labels {
            let classes = result.examples.entry(split.to_string()).or_default();
            *classes.entry(dataset.classes[*label].clone()).or_default() += 1;
        }
        if example.group.as_ref().is_some_and(|group| seen.insert(group.clone())) {
            *result.groups.entry(split.to_string()).or_default() += 1;
        }
    }
    output.result(&result, || {
        let mut rows = vec![["split", "class", "examples"].map(String::from).to_vec()];
        for (split, classes) in &result.examples {
            rows.extend(classes.iter().map(|(class, count)| vec![split.clone(), class.clone(), count.to_string()]));
        }
        let groups: Vec<String> = result.groups.iter().map(|(split, count)| format!("{split} {count}")).collect();
        let groups = if groups.is_empty() { String::new() } else { format!("groups: {}\n", groups.join(", ")) };
        format!("{}{groups}{}\n", table(&rows), result.output.display())
    });
    Ok(())
}

fn crop(args: &CropArgs, output: &Output) -> Result<(), CommandError> {
    let config = CropConfig { margin: args.margin, square: args.square, smallest: args.smallest };
    let report = crop_pascal_voc(&args.source, &args.output, config)?;
    let result = CropResult { output: args.output.clone(), report };
    output.result(&result, || text(&result));
    Ok(())
}

/// What is printed with `--json`.
#[derive(Serialize)]
struct ActionsResult {
    output: PathBuf,
    #[serde(flatten)]
    report: ActionReport,
}

fn actions(args: &ActionsArgs, output: &Output) -> Result<(), CommandError> {
    let ActionsArgs { train, test, length, side, gif, seed, .. } = *args;
    let config = ActionConfig { train, test, frames: length, side, gif, seed };
    let sources: Vec<&Path> = args.sources.iter().map(PathBuf::as_path).collect();
    let report = write_actions(&sources, &args.output, &config)?;
    let result = ActionsResult { output: args.output.clone(), report };
    output.result(&result, || {
        let ActionReport { classes, train, test, train_cutouts, test_cutouts } = &result.report;
        format!(
            "{classes} classes, {train} training clips of {train_cutouts} things, {test} test clips of {test_cutouts} others: {}\n",
            result.output.display()
        )
    });
    Ok(())
}

/// What is printed with `--json`.
#[derive(Serialize)]
struct TilesResult {
    output: PathBuf,
    #[serde(flatten)]
    report: TileReport,
}

fn tiles(args: &TilesArgs, output: &Output) -> Result<(), CommandError> {
    let TilesArgs { side, shrink, tissue, .. } = *args;
    check_apart(&args.output, &args.data)?;
    let dataset = open_dataset_with(&args.data, &args.source.over(DataOptions::default()))?;
    let policy = args.on_bad_image.map(BadImagePolicy::from).unwrap_or_default();
    let report = write_tiles(&dataset, &args.output, &TileConfig { side, shrink, tissue }, policy.into())?;
    let result = TilesResult { output: args.output.clone(), report };
    output.result(&result, || {
        let TileReport { slides, tiles, empty, skipped } = &result.report;
        let mut rows = vec![["split", "class", "slides"].map(String::from).to_vec()];
        for (split, classes) in slides {
            rows.extend(classes.iter().map(|(class, count)| vec![split.clone(), class.clone(), count.to_string()]));
        }
        let output = result.output.display().to_string();
        let data = quoted(&output);
        let unread = unread(skipped);
        format!("{}{unread}{tiles} tiles, {empty} without tissue left out: {output}\nnext: inarch fit -b BACKBONE -d {data} -m gated-pool --frames 32\n", table(&rows))
    });
    Ok(())
}

fn text(CropResult { output, report }: &CropResult) -> String {
    let mut rows = vec![["split", "class", "crops"].map(String::from).to_vec()];
    for (split, classes) in &report.crops {
        rows.extend(classes.iter().map(|(class, count)| vec![split.clone(), class.clone(), count.to_string()]));
    }
    let CropReport { images, left_out, .. } = report;
    let left_out = if *left_out == 0 { String::new() } else { format!(", {left_out} boxes left out") };
    format!("{}{images} images{left_out}: {}\n", table(&rows), output.display())
}
