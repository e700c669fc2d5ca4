//! `inarch pretrain`: train a backbone from image-text pairs.

use inarch_core::data::{DataOptions, Dataset, Manifest, open_dataset, read_manifest};
use inarch_core::file;
use inarch_recipes::{CaptionConfig, PairSet, PretrainRecipe, Pretrained, RecipeLayers, Session, Subset, pretrain};
use serde::Serialize;
use std::path::{Path, PathBuf};

use crate::args::PretrainArgs;
use crate::backbones;
use crate::error::CommandError;
use crate::output::{Output, percent};
use crate::progress::Bars;

/// What is printed with `--json`.
#[derive(Serialize)]
struct PretrainResult {
    /// `backbone` or `adapter`.
    kind: &'static str,
    output: PathBuf,
    steps: usize,
    loss: f32,
    /// Zero-shot accuracy on the test split of a labelled data set.
    accuracy: Option<f64>,
    seconds: f64,
}

pub(crate) fn run(args: &PretrainArgs, bars: &Bars, output: &Output) -> Result<(), CommandError> {
    let result = match (&args.recipe, &args.tokenizer, &args.backbone) {
        (_, _, Some(backbone)) => adapt(args, backbone, bars)?,
        (Some(recipe), Some(tokenizer), None) => from_scratch(args, recipe, tokenizer, bars)?,
        _ => {
            return Err(CommandError::usage(
                "neither a recipe nor a backbone is given",
                "`inarch pretrain recipe.toml -d DATA --tokenizer tokenizer.json -o FOLDER`, or `-b BACKBONE -m lora`",
            ));
        }
    };
    output.result(&result, || text(&result));
    Ok(())
}

/// A new backbone.
fn from_scratch(
    args: &PretrainArgs,
    recipe: &Path,
    tokenizer: &Path,
    bars: &Bars,
) -> Result<PretrainResult, CommandError> {
    let recipe = PretrainRecipe::parse(&file::read_text(recipe)?, &recipe.display().to_string(), &args.set)?;
    let device = inarch_core::device(&args.device.device)?;
    let (pairs, dataset) = pairs(args, &recipe.captions)?;
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
    let Pretrained { folder, steps, loss, seconds } = done;
    Ok(PretrainResult { kind: "backbone", output: folder, steps, loss, accuracy, seconds })
}

/// An adapter for the towers of a backbone.
fn adapt(args: &PretrainArgs, backbone: &str, bars: &Bars) -> Result<PretrainResult, CommandError> {
    let mut layers = match &args.recipe {
        Some(path) => RecipeLayers::file(&file::read_text(path)?, &path.display().to_string())?,
        None => {
            let mut layers = RecipeLayers::preset(&args.method, false)?;
            // The budgets of presets count shots.
            layers.set("train.budget={ epochs = 10 }")?;
            layers
        }
    };
    for assignment in &args.set {
        layers.set(assignment)?;
    }
    let recipe = layers.finish()?;
    let backbone = backbones::open(backbone, &inarch_core::device(&args.device.device)?)?;
    let captions = CaptionConfig { templates: recipe.templates.resolve()?, ..CaptionConfig::default() };
    let (pairs, labelled) = pairs(args, &captions)?;
    let name = args.data.display().to_string();
    let session =
        Session::new(&backbone, &pairs.dataset(&name), Subset::All, recipe.on_bad_image.into(), bars.control())?;
    let (artifact, report) = session.fit_pairs(&recipe, &pairs, &args.output)?;
    artifact.self_test(&backbone)?;
    let accuracy = match labelled.filter(|dataset| !dataset.test.is_empty()) {
        Some(dataset) => {
            let session = Session::new(&backbone, &dataset, Subset::All, Default::default(), bars.control())?;
            Some(session.evaluate(&artifact)?.metrics.accuracy)
        }
        None => None,
    };
    Ok(PretrainResult {
        kind: "adapter",
        output: args.output.clone(),
        steps: report.steps,
        loss: report.losses.last().copied().unwrap_or(f32::NAN),
        accuracy,
        seconds: report.seconds.total,
    })
}

/// The pairs, and the labelled data set that they were made from, if they were.
fn pairs(args: &PretrainArgs, captions: &CaptionConfig) -> Result<(PairSet, Option<Dataset>), CommandError> {
    let manifest = args.data.extension().is_some_and(|extension| extension == "csv" || extension == "jsonl");
    if manifest && let Manifest::Captioned(set) = read_manifest(&args.data, &DataOptions::at(args.root.as_deref()))? {
        return Ok((PairSet::from_captions(&set)?, None));
    }
    let dataset = open_dataset(&args.data, args.root.as_deref())?;
    Ok((PairSet::from_labels(&dataset, captions)?, Some(dataset)))
}

fn text(result: &PretrainResult) -> String {
    let mut text = format!(
        "{}: {}\n{} steps, loss {:.4}, {:.0} s\n",
        result.kind,
        result.output.display(),
        result.steps,
        result.loss,
        result.seconds
    );
    if let Some(accuracy) = result.accuracy {
        text.push_str(&format!("accuracy on the test images, by class names: {}\n", percent(accuracy)));
    }
    text
}
