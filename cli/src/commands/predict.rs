//! `inarch predict`: classify images.

use std::path::PathBuf;
use std::sync::Arc;

use inarch_core::backbone::{Entry, Frozen, Pass, Tower, normalise, values};
use inarch_core::data::{Dataset, Example, FeatureFile, Source};
use inarch_core::image::{ImageBatch, ImageJob, Loader, View};
use inarch_peft::Classifier;
use inarch_recipes::Error::Stopped;
use inarch_recipes::{Views, encode_images};
use serde::Serialize;

use crate::adapter::Model;
use crate::args::PredictArgs;
use crate::error::CommandError;
use crate::output::{Output, percent};
use crate::progress::Bars;

/// What is printed with `--json`.
#[derive(Serialize)]
struct PredictResult {
    model: String,
    images: Vec<ImagePrediction>,
    skipped: Vec<String>,
}

#[derive(Serialize)]
struct ImagePrediction {
    image: String,
    predictions: Vec<Prediction>,
}

/// A class and its probability; best first.
#[derive(Serialize)]
struct Prediction {
    label: String,
    score: f32,
}

pub(crate) fn run(args: &PredictArgs, bars: &Bars, output: &Output) -> Result<(), CommandError> {
    let model = Model::open(&args.model)?;
    let classifier = model.classifier(&args.classes, &args.templates)?;
    let sites = model.sites();
    let start = classifier.start(sites);
    let shared = (!sites.conditions_text()).then(|| classifier.text(start.clone(), sites, &Pass::evaluate()));

    if let Some(result) = of_features(args, &model, &classifier, bars)? {
        output.result(&result, || text(&result));
        return Ok(());
    }
    let jobs: Vec<ImageJob> = args
        .images
        .iter()
        .enumerate()
        .map(|(index, path)| ImageJob { index, path: path.clone(), view: View::Centre })
        .collect();
    let policy = inarch_recipes::BadImagePolicy::from(args.on_bad_image);
    let loader = Loader::new(model.backbone.preprocess().clone())?.with_on_bad_image(policy.into());
    let mut images = Vec::with_capacity(jobs.len());
    let control = bars.control();
    let progress = control.progress;
    progress.start("predict", jobs.len() as u64);
    let bad = loader.run(&jobs, |batch: ImageBatch| -> Result<(), CommandError> {
        if control.stopped() {
            return Err(Stopped { what: "images", done: images.len(), total: jobs.len() }.into());
        }
        let pixels = model.backbone.pixels(batch.pixels, batch.shape)?;
        let pass = Pass::evaluate();
        let image = model.backbone.encode_image(pixels, sites, &pass);
        let condition = normalise(image.clone());
        let pass = Pass { condition: sites.conditions_text().then_some(&condition), ..pass };
        let text = shared.clone().unwrap_or_else(|| classifier.text(start.clone(), sites, &pass));
        let logits = values(classifier.logits(&image, &text, sites, &pass));
        let classes = classifier.classes();
        for (index, row) in batch.indices.iter().zip(logits.chunks(classes.len())) {
            images.push(ImagePrediction {
                image: args.images[*index].display().to_string(),
                predictions: best(row, classes, args.top_k.get()),
            });
        }
        progress.advance(batch.indices.len() as u64, "");
        Ok(())
    })?;
    progress.finish();
    let skipped = bad.into_iter().map(|bad| bad.path.display().to_string()).collect();
    let result = PredictResult { model: model.name(), images, skipped };
    output.result(&result, || text(&result));
    Ok(())
}

/// Predictions for the rows of features files, where such files are given in place of images.
fn of_features(
    args: &PredictArgs,
    model: &Model,
    classifier: &Classifier<'_>,
    bars: &Bars,
) -> Result<Option<PredictResult>, CommandError> {
    let is_features = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "safetensors");
    match args.images.iter().filter(|path| is_features(path)).count() {
        0 => return Ok(None),
        count if count < args.images.len() => {
            return Err(CommandError::usage("images and features files are mixed", "give the one or the other"));
        }
        _ => {}
    }
    let sites = model.sites();
    if sites.entry(Tower::Image) < Entry::Feature {
        let hint = "give the images themselves, or an adapter that enters at features or scores";
        return Err(CommandError::usage("this adapter changes the image tower and needs images", hint));
    }
    let mut images = Vec::new();
    for path in &args.images {
        let features = FeatureFile::read(path)?;
        let rows = 0..features.rows();
        let example = |row: usize| Example { id: features.ids[row].clone(), source: Source::Row(row), label: 0 };
        let mut dataset = Dataset::unlabelled(path.display().to_string(), rows.map(example).collect());
        let examples: Vec<Example> = dataset.examples().map(|(_, example)| example.clone()).collect();
        dataset.features = Some(Arc::new(features));
        let policy = inarch_recipes::BadImagePolicy::from(args.on_bad_image).into();
        let stored =
            encode_images(&model.backbone, &Frozen, &dataset, &examples, &Views::Centre, policy, bars.control())?;
        let image = stored.through(sites, &model.backbone).all(&model.backbone);
        let condition = normalise(image.clone());
        let pass = Pass { condition: sites.conditions_text().then_some(&condition), ..Pass::evaluate() };
        let text = classifier.text(classifier.start(sites), sites, &pass);
        let logits = values(classifier.logits(&image, &text, sites, &pass));
        let classes = classifier.classes();
        images.extend(examples.iter().zip(logits.chunks(classes.len())).map(|(example, row)| ImagePrediction {
            image: example.id.clone(),
            predictions: best(row, classes, args.top_k.get()),
        }));
    }
    Ok(Some(PredictResult { model: model.name(), images, skipped: Vec::new() }))
}

/// The `count` most probable classes under a softmax.
fn best(logits: &[f32], classes: &[String], count: usize) -> Vec<Prediction> {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f32 = logits.iter().map(|logit| (logit - top).exp()).sum();
    let mut predictions: Vec<Prediction> = logits
        .iter()
        .zip(classes)
        .map(|(logit, label)| Prediction { label: label.clone(), score: (logit - top).exp() / total })
        .collect();
    predictions.sort_by(|left, right| right.score.total_cmp(&left.score));
    predictions.truncate(count);
    predictions
}

fn text(result: &PredictResult) -> String {
    let mut text = String::new();
    for image in &result.images {
        let shown: Vec<String> = image
            .predictions
            .iter()
            .map(|prediction| format!("{} {}", prediction.label, percent(f64::from(prediction.score))))
            .collect();
        text.push_str(&format!("{}: {}\n", image.image, shown.join(", ")));
    }
    for skipped in &result.skipped {
        text.push_str(&format!("{skipped}: could not be read\n"));
    }
    text
}
