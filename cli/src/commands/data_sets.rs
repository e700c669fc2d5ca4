//! `inarch data`: make data sets.

use std::path::{Path, PathBuf};

use inarch_core::data::{ActionConfig, ActionReport, CropConfig, CropReport, crop_pascal_voc, write_actions};
use serde::Serialize;

use crate::args::{ActionsArgs, CropArgs, DataSetsArgs, DataSetsCommand};
use crate::error::CommandError;
use crate::output::{Output, table};

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
        DataSetsCommand::Actions(args) => actions(args, output),
    }
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

fn text(CropResult { output, report }: &CropResult) -> String {
    let mut rows = vec![["split", "class", "crops"].map(String::from).to_vec()];
    for (split, classes) in &report.crops {
        rows.extend(classes.iter().map(|(class, count)| vec![split.clone(), class.clone(), count.to_string()]));
    }
    let CropReport { images, left_out, .. } = report;
    let left_out = if *left_out == 0 { String::new() } else { format!(", {left_out} boxes left out") };
    format!("{}{images} images{left_out}: {}\n", table(&rows), output.display())
}
