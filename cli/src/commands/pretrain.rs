//! `inarch pretrain`: train a backbone from image-text pairs.

use inarch_core::data::{Manifest, open_dataset, read_manifest};
use inarch_core::file;
use inarch_recipes::{PairSet, PretrainRecipe, Session, Subset, pretrain};
use serde::Serialize;
use std::path::PathBuf;

use crate::args::PretrainArgs;
use crate::backbones;
use crate::error::CommandError;
use crate::output::{Output, percent};
use crate::progress::Bars;

/// What is printed with `--json`.
#[derive(Serialize)]
struct PretrainResult {
    backbone: PathBuf,
    steps: usize,
    loss: f32,
    /// Zero-shot accuracy on the test split of a labelled data set.
    accuracy: Option<f64>,
    seconds: f64,
}

pub(crate) fn run(args: &PretrainArgs, bars: &Bars, output: &Output) -> Result<(), CommandError> {
    let (Some(path), Some(tokenizer)) = (&args.recipe, &args.tokenizer) else { unreachable!() };
    let recipe = PretrainRecipe::parse(&file::read_text(path)?, &path.display().to_string(), &args.set)?;
    let device = inarch_core::device(&args.device.device)?;
    let captioned = match path_manifest(args)? {
        Some(Manifest::Captioned(set)) => Some(set),
        _ => None,
    };
    let (pairs, dataset) = match &captioned {
        Some(set) => (PairSet::from_captions(set)?, None),
        None => {
            let dataset = open_dataset(&args.data, args.root.as_deref())?;
            (PairSet::from_labels(&dataset, &recipe.captions)?, Some(dataset))
        }
    };
    let control = bars.control();
    let done = pretrain(&recipe, &pairs, tokenizer, &args.output, &device, control)?;
    // Measured on what was written, in the precision in which it was written.
    let accuracy = match dataset.filter(|dataset| !dataset.test.is_empty()) {
        Some(dataset) => {
            let backbone = backbones::open(&args.output.display().to_string(), &device)?;
            let session = Session::new(&backbone, &dataset, Subset::All, Default::default(), control)?;
            Some(session.zero_shot(&recipe.captions.templates)?.metrics.accuracy)
        }
        None => None,
    };
    let result =
        PretrainResult { backbone: done.folder, steps: done.steps, loss: done.loss, accuracy, seconds: done.seconds };
    output.result(&result, || {
        let mut text = format!(
            "backbone: {}\n{} steps, loss {:.4}, {:.0} s\n",
            result.backbone.display(),
            result.steps,
            result.loss,
            result.seconds
        );
        if let Some(accuracy) = result.accuracy {
            text.push_str(&format!("zero-shot accuracy on the test images: {}\n", percent(accuracy)));
        }
        text
    });
    Ok(())
}

fn path_manifest(args: &PretrainArgs) -> Result<Option<Manifest>, CommandError> {
    let is_manifest = args.data.extension().is_some_and(|extension| extension == "csv" || extension == "jsonl");
    if !is_manifest {
        return Ok(None);
    }
    Ok(Some(read_manifest(&args.data, args.root.as_deref())?))
}
