//! `inarch predict`: classify images.

use std::path::Path;
use std::sync::Arc;

use inarch_core::backbone::{Backbone, Entry, Frozen, Pass, Sites, Tower, normalise, values};
use inarch_core::data::{Clip, ClipConfig, Dataset, Example, FeatureFile, Source};
use inarch_core::image::{ImageBatch, ImageJob, Loader, View, decode_images};
use inarch_core::metrics::most_probable;
use inarch_peft::Classifier;
use inarch_recipes::Error::Stopped;
use inarch_recipes::test_time::{FallBack, Model as AdaptedModel, Outcome, TestTime};
use inarch_recipes::{ImageFeatures, Views, encode_images, score};
use serde::Serialize;

use crate::adapter::Model;
use crate::args::{OnBadImageArg, PredictArgs};
use crate::error::CommandError;
use crate::output::{Output, percent};
use crate::progress::Bars;
use crate::test_time::Adaptation;

/// What is printed with `--json`.
#[derive(Serialize)]
struct PredictResult {
    model: String,
    images: Vec<ImagePrediction>,
    skipped: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    test_time: Option<Adapted>,
}

#[derive(Serialize)]
struct ImagePrediction {
    image: String,
    predictions: Vec<Prediction>,
    /// With adaptation: whether the answer is too unsure to be given, and why it is the unadapted one.
    #[serde(skip_serializing_if = "Option::is_none")]
    abstained: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fell_back: Option<FallBack>,
}

/// What belongs to adaptation at test time.
#[derive(Serialize)]
struct Adapted {
    method: &'static str,
    seconds_per_image: f64,
    views_share: f64,
    admitted: usize,
    fell_back: usize,
    abstained: usize,
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
    let adaptations = args.test_time.open(model.backbone.device())?;
    if !adaptations.is_empty() {
        model.backbone.need_towers("adaptation at test time")?;
    }
    if adaptations.len() > 1 {
        return Err(CommandError::usage("one method can answer", "`inarch eval` compares several"));
    }
    let clips = clips(args, &model)?;
    if !adaptations.is_empty() && clips.is_some() {
        let hint = "leave `--test-time` out";
        return Err(CommandError::usage("adaptation at test time looks at still images, and these are clips", hint));
    }
    if let Some(adaptation) = adaptations.first() {
        let world = AdaptedModel { backbone: &model.backbone, classifier: &classifier, sites };
        let result = adapted(args, adaptation, world, model.name(), bars)?;
        output.result(&result, || text(&result));
        return Ok(());
    }
    let start = classifier.start(sites);
    let shared = (!sites.conditions_text()).then(|| classifier.text(start.clone(), sites, &Pass::evaluate()));

    let found = match clips {
        Some(dataset) => Some(of_clips(args, &model, &classifier, &dataset, bars)?),
        None => of_features(args, &model, &classifier, bars)?,
    };
    if let Some(result) = found {
        output.result(&result, || text(&result));
        return Ok(());
    }
    let jobs: Vec<ImageJob> = args
        .images
        .iter()
        .enumerate()
        .map(|(index, path)| ImageJob { index, path: path.clone(), frame: None, view: View::Centre })
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
                abstained: None,
                fell_back: None,
            });
        }
        progress.advance(batch.indices.len() as u64, "");
        Ok(())
    })?;
    progress.finish();
    let skipped = bad.into_iter().map(|bad| bad.path.display().to_string()).collect();
    let result = PredictResult { model: model.name(), images, skipped, test_time: None };
    output.result(&result, || text(&result));
    Ok(())
}

/// The same with adaptation to the images, which are a stream in the order of the arguments.
fn adapted(
    args: &PredictArgs,
    adaptation: &Adaptation<'_>,
    model: AdaptedModel<'_>,
    name: String,
    bars: &Bars,
) -> Result<PredictResult, CommandError> {
    let (config, judge) = (&adaptation.config, adaptation.judge.as_ref());
    let mut tester = TestTime::new(model, config, judge, Some(args.images.len()))?;
    if let Some(state) = &adaptation.state {
        tester.restore(state)?;
    }
    let control = bars.control();
    let progress = control.progress;
    let mut result = PredictResult { model: name, images: Vec::new(), skipped: Vec::new(), test_time: None };
    let (mut audit, mut outcomes) = (Vec::new(), Vec::new());
    progress.start("adapt", args.images.len() as u64);
    for paths in args.images.chunks(config.stream.batch) {
        if control.stopped() {
            return Err(Stopped { what: "images", done: outcomes.len(), total: args.images.len() }.into());
        }
        let paths: Vec<&Path> = paths.iter().map(|path| path.as_path()).collect();
        let mut images = Vec::with_capacity(paths.len());
        for (path, image) in paths.iter().zip(decode_images(&paths)) {
            match image {
                Ok(image) => images.push((*path, image)),
                Err(_) if matches!(args.on_bad_image, OnBadImageArg::Skip) => {
                    result.skipped.push(path.display().to_string());
                }
                Err(error) => return Err(error.into()),
            }
        }
        // The file's name alone decides its views, wherever it lies.
        let names: Vec<String> = images
            .iter()
            .map(|(path, _)| path.file_name().unwrap_or_default().to_string_lossy().into_owned())
            .collect();
        let named: Vec<_> = names.iter().map(String::as_str).zip(images.iter().map(|(_, image)| image)).collect();
        let found = tester.classify(&named)?;
        for ((path, _), outcome) in images.iter().zip(&found) {
            result.images.push(ImagePrediction {
                image: path.display().to_string(),
                predictions: best(&outcome.scores, model.classifier.classes(), args.top_k.get()),
                abstained: Some(outcome.abstained),
                fell_back: outcome.fell_back,
            });
        }
        audit.extend(found.iter().flat_map(Outcome::audit));
        outcomes.extend(found);
        progress.advance(paths.len() as u64, "");
    }
    progress.finish();
    adaptation.write(&tester.snapshot(), &audit)?;
    let timing = tester.timing();
    let seconds = (timing.views + timing.encode + timing.adapt).max(f64::MIN_POSITIVE);
    result.test_time = Some(Adapted {
        method: config.method.name(),
        seconds_per_image: seconds / outcomes.len().max(1) as f64,
        views_share: timing.views / seconds,
        admitted: audit.len(),
        fell_back: outcomes.iter().filter(|outcome| outcome.fell_back.is_some()).count(),
        abstained: outcomes.iter().filter(|outcome| outcome.abstained).count(),
    });
    Ok(result)
}

fn is_features(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "safetensors")
}

/// Predictions for the rows of features files, where such files are given in place of images.
fn of_features(
    args: &PredictArgs,
    model: &Model,
    classifier: &Classifier<'_>,
    bars: &Bars,
) -> Result<Option<PredictResult>, CommandError> {
    if !args.images.iter().any(|path| is_features(path)) {
        return Ok(None);
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
        images.extend(answers(
            args,
            classifier,
            sites,
            &examples,
            &stored.through(sites, &model.backbone),
            &model.backbone,
        ));
    }
    Ok(Some(PredictResult { model: model.name(), images, skipped: Vec::new(), test_time: None }))
}

/// Predictions for features through an adapter.
fn answers(
    args: &PredictArgs,
    classifier: &Classifier<'_>,
    sites: &dyn Sites,
    examples: &[Example],
    features: &ImageFeatures,
    backbone: &Backbone,
) -> Vec<ImagePrediction> {
    let classes = classifier.classes();
    let logits = score(backbone, classifier, sites, features);
    let answer = |(position, row): (&usize, &[f32])| ImagePrediction {
        image: examples[*position].id.clone(),
        predictions: best(row, classes, args.top_k.get()),
        abstained: None,
        fell_back: None,
    };
    features.kept.iter().zip(logits.chunks(classes.len())).map(answer).collect()
}

/// What is asked about as a set of clips, where clips are wanted or one of the paths can be nothing else.
fn clips(args: &PredictArgs, model: &Model) -> Result<Option<Dataset>, CommandError> {
    let wanted = args.clips.over(model.clips());
    if args.images.iter().any(|path| is_features(path)) && !args.images.iter().all(|path| is_features(path)) {
        return Err(CommandError::usage("images and features files are mixed", "give the one or the other"));
    }
    let mut examples = Vec::with_capacity(args.images.len());
    for path in &args.images {
        // A file that is no GIF will say so where images are read.
        let clip = if path.is_dir() { Clip::open(path)? } else { Clip::open(path).ok().flatten() };
        let clip = clip.filter(|clip| wanted.is_some() || path.is_dir() || clip.len() > 1);
        let source = clip.map_or_else(|| Source::Image(path.clone()), Source::Clip);
        examples.push(Example { id: path.display().to_string(), source, label: 0 });
    }
    let features = args.images.iter().any(|path| is_features(path));
    let moving = examples.iter().any(|example| matches!(example.source, Source::Clip(_)));
    let clips = wanted.filter(|_| args.clips.given() || !features).or_else(|| moving.then(ClipConfig::default));
    let Some(clips) = clips else { return Ok(None) };
    clips.check()?;
    Ok(Some(Dataset { clips: Some(clips), ..Dataset::unlabelled("clips".into(), examples) }))
}

/// Predictions for clips.
fn of_clips(
    args: &PredictArgs,
    model: &Model,
    classifier: &Classifier<'_>,
    dataset: &Dataset,
    bars: &Bars,
) -> Result<PredictResult, CommandError> {
    let policy = inarch_recipes::BadImagePolicy::from(args.on_bad_image).into();
    let (backbone, sites, examples) = (&model.backbone, model.sites(), &dataset.train);
    let features = encode_images(backbone, sites, dataset, examples, &Views::Centre, policy, bars.control())?;
    let images = answers(args, classifier, sites, examples, &features, backbone);
    let skipped = features.bad.iter().map(|bad| bad.path.display().to_string()).collect();
    Ok(PredictResult { model: model.name(), images, skipped, test_time: None })
}

/// The `count` most probable classes under a softmax.
fn best(logits: &[f32], classes: &[String], count: usize) -> Vec<Prediction> {
    let prediction = |(class, score): (usize, f32)| Prediction { label: classes[class].clone(), score };
    most_probable(logits, count).into_iter().map(prediction).collect()
}

fn text(result: &PredictResult) -> String {
    let mut text = String::new();
    for image in &result.images {
        let shown: Vec<String> = image
            .predictions
            .iter()
            .map(|prediction| format!("{} {}", prediction.label, percent(f64::from(prediction.score))))
            .collect();
        let unsure = if image.abstained == Some(true) { "unsure: " } else { "" };
        text.push_str(&format!("{}: {unsure}{}\n", image.image, shown.join(", ")));
    }
    for skipped in &result.skipped {
        text.push_str(&format!("{skipped}: could not be read\n"));
    }
    if let Some(adapted) = &result.test_time {
        let Adapted { method, seconds_per_image, views_share, admitted, fell_back, abstained } = adapted;
        text.push_str(&format!(
            "{method}: {:.1} ms an image, {} of it for views; admitted {admitted}, fell back {fell_back}, \
             abstained {abstained}\n",
            1000.0 * seconds_per_image,
            percent(*views_share),
        ));
    }
    text
}
