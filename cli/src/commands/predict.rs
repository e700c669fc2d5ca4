//! `inarch predict`: classify images.

mod result;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use inarch_core::backbone::{Backbone, Entry, Frozen, Pass, Sites, Tower, normalise, values};
use inarch_core::data::{Clip, ClipConfig, Dataset, Example, FeatureFile, Source, is_video_name};
use inarch_core::image::{ImageAddress, ImageBatch, ImageJob, ImageList, Loader, View};
use inarch_core::metrics::most_probable;
use inarch_peft::Classifier;
use inarch_recipes::Error::Stopped;
use inarch_recipes::test_time::{Model as AdaptedModel, Outcome, TestTime};
use inarch_recipes::{ImageFeatures, Views, encode_images, label_probabilities, score};

use self::result::{Adapted, ImagePrediction, PredictResult, Prediction, text};
use crate::adapter::Model;
use crate::args::{OnBadImageArg, PredictArgs, ShownArgs};
use crate::commands::captions;
use crate::error::CommandError;
use crate::output::{Output, names_of};
use crate::progress::Bars;
use crate::test_time::Adaptation;

pub(crate) fn run(args: &PredictArgs, bars: &Bars, output: &Output) -> Result<(), CommandError> {
    let model = Model::open(&args.model)?;
    let adaptations = args.test_time.open(model.backbone.device())?;
    if adaptations.is_empty() && captions::wanted(args, &model) {
        return captions::run(args, &model, bars, output);
    }
    let classifier = model.classifier(&args.classes, &args.prompts)?;
    let sites = model.sites();
    if !adaptations.is_empty() {
        model.backbone.need_towers("adaptation at test time")?;
    }
    if adaptations.len() > 1 {
        return Err(CommandError::usage("one method can answer", "`inarch eval` compares several"));
    }
    let judge = Judge::new(args, &model, &classifier)?;
    let clips = clips(args, &model, bars)?;
    if !adaptations.is_empty() && clips.is_some() {
        let hint = "leave `--test-time` out";
        return Err(CommandError::usage("adaptation at test time looks at still images, and these are clips", hint));
    }
    if let Some(adaptation) = adaptations.first() {
        if judge.offsets.is_some() {
            let hint = "leave `--test-time` out";
            return Err(CommandError::usage(
                "this adapter gives images several labels; adaptation knows one each",
                hint,
            ));
        }
        let world = AdaptedModel { backbone: &model.backbone, classifier: &classifier, sites };
        let result = adapted(args, adaptation, world, (model.name(), &judge, &args.shown.beside(&model)), bars)?;
        output.result(&result, || text(&result));
        return Ok(());
    }
    let start = classifier.start(sites);
    let shared = (!sites.conditions_text()).then(|| classifier.text(start.clone(), sites, &Pass::evaluate()));

    let found = match clips {
        Some(dataset) => Some(of_clips(args, &model, &classifier, &judge, &dataset, bars)?),
        None => of_features(args, &model, &classifier, &judge, bars)?,
    };
    if let Some(result) = found {
        output.result(&result, || text(&result));
        return Ok(());
    }
    let shown = args.shown.beside(&model);
    let (paths, jobs) = jobs(args, &shown)?;
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
            images.push(judge.answer(shown_name(&shown, &paths[*index]), row, classes));
        }
        progress.advance(batch.indices.len() as u64, "");
        Ok(())
    })?;
    progress.finish();
    let skipped = names_of(&bad);
    let result = PredictResult { model: model.name(), images, skipped, test_time: None };
    output.result(&result, || text(&result));
    Ok(())
}

/// The single images that are named, and the work of reading them.
pub(crate) fn jobs(args: &PredictArgs, shown: &ShownArgs) -> Result<(Vec<PathBuf>, Vec<ImageJob>), CommandError> {
    let paths = single_paths(args, shown)?;
    let one = |(index, path): (usize, &PathBuf)| ImageJob {
        index,
        path: path.clone(),
        frame: None,
        bytes: None,
        view: View::Centre,
    };
    let jobs = paths.iter().enumerate().map(one).collect();
    Ok((paths, jobs))
}

/// The same with adaptation to the images, which are a stream in the order of the arguments.
fn adapted(
    args: &PredictArgs,
    adaptation: &Adaptation<'_>,
    model: AdaptedModel<'_>,
    (name, answers, shown): (String, &Judge, &ShownArgs),
    bars: &Bars,
) -> Result<PredictResult, CommandError> {
    let (config, judge) = (&adaptation.config, adaptation.judge.as_ref());
    let all = single_paths(args, shown)?;
    let mut tester = TestTime::new(model, config, judge, Some(all.len()))?;
    if let Some(state) = &adaptation.state {
        tester.restore(state)?;
    }
    let control = bars.control();
    let progress = control.progress;
    let mut result = PredictResult { model: name, images: Vec::new(), skipped: Vec::new(), test_time: None };
    let (mut audit, mut outcomes) = (Vec::new(), Vec::new());
    progress.start("adapt", all.len() as u64);
    let mut list = ImageList::new(all.iter().map(PathBuf::as_path).collect());
    for paths in all.chunks(config.stream.batch) {
        if control.stopped() {
            return Err(Stopped { what: "images", done: outcomes.len(), total: all.len() }.into());
        }
        let mut images = Vec::with_capacity(paths.len());
        for (path, image) in list.decode(paths.len()) {
            match image {
                Ok(image) => images.push((path, image)),
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
            let answer = answers.answer(shown_name(shown, path), &outcome.scores, model.classifier.classes());
            let abstained = Some(outcome.abstained || answer.abstained == Some(true));
            result.images.push(ImagePrediction { abstained, fell_back: outcome.fell_back, ..answer });
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
        abstained: result.images.iter().filter(|image| image.abstained == Some(true)).count(),
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
    judge: &Judge,
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
        if model.adapter.is_some() {
            features.need_frozen(&path.display().to_string())?;
        }
        let rows = 0..features.rows();
        let example = |row: usize| Example::new(features.ids[row].clone(), Source::Row(row), 0);
        let mut dataset = Dataset::unlabelled(path.display().to_string(), rows.map(example).collect());
        let examples: Vec<Example> = dataset.examples().map(|(_, example)| example.clone()).collect();
        dataset.features = Some(Arc::new(features));
        let policy = inarch_recipes::BadImagePolicy::from(args.on_bad_image).into();
        let stored =
            encode_images(&model.backbone, &Frozen, &dataset, &examples, &Views::Centre, policy, bars.control())?;
        let features = stored.through(sites, &model.backbone);
        images.extend(answers(judge, classifier, sites, &examples, &features, &model.backbone));
    }
    Ok(Some(PredictResult { model: model.name(), images, skipped: Vec::new(), test_time: None }))
}

/// The single images that are named, frame by frame where several are wanted.
fn single_paths(args: &PredictArgs, shown: &ShownArgs) -> Result<Vec<PathBuf>, CommandError> {
    let paths = args.images.iter().map(|path| shown.images(path)).collect::<Result<Vec<_>, _>>()?;
    Ok(paths.into_iter().flatten().collect())
}

/// An image as it was named; the window that `--window` or the adapter adds is no part of that.
pub(crate) fn shown_name(shown: &ShownArgs, path: &Path) -> String {
    let address = ImageAddress::of(path);
    let window = address.window.filter(|window| Some(*window) != shown.window);
    ImageAddress { window, ..address }.path().display().to_string()
}

/// Predictions for features through an adapter.
fn answers(
    judge: &Judge,
    classifier: &Classifier<'_>,
    sites: &dyn Sites,
    examples: &[Example],
    features: &ImageFeatures,
    backbone: &Backbone,
) -> Vec<ImagePrediction> {
    let classes = classifier.classes();
    let logits = score(backbone, classifier, sites, features);
    let rows = features.kept.iter().zip(logits.chunks(classes.len()));
    rows.map(|(position, row)| judge.answer(examples[*position].id.clone(), row, classes)).collect()
}

/// What is asked about as a set of clips, where clips are wanted or one of the paths can be nothing else.
fn clips(args: &PredictArgs, model: &Model, bars: &Bars) -> Result<Option<Dataset>, CommandError> {
    let wanted = args.clips.over(model.clips());
    if args.images.iter().any(|path| is_features(path)) && !args.images.iter().all(|path| is_features(path)) {
        return Err(CommandError::usage("images and features files are mixed", "give the one or the other"));
    }
    let mut examples = Vec::with_capacity(args.images.len());
    for path in &args.images {
        // A file that is no GIF or video will say so where images are read.
        let clip = if path.is_dir() { Clip::open(path)? } else { Clip::open(path).ok().flatten() };
        let certain = path.is_dir() || is_video_name(path);
        let clip = clip.filter(|clip| wanted.is_some() || certain || clip.len() > 1);
        // A folder of photos is easily meant otherwise.
        if wanted.is_none()
            && path.is_dir()
            && let Some(clip) = &clip
        {
            let (path, frames) = (path.display(), clip.len());
            let note =
                format!("`{path}` is taken as one clip of {frames} frames; `{path}/*` are its images one by one");
            bars.control().progress.say(&note);
        }
        let source = clip.map_or_else(|| Source::Image(path.clone()), Source::Clip);
        examples.push(Example::new(path.display().to_string(), source, 0));
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
    judge: &Judge,
    dataset: &Dataset,
    bars: &Bars,
) -> Result<PredictResult, CommandError> {
    let policy = inarch_recipes::BadImagePolicy::from(args.on_bad_image).into();
    let (backbone, sites, examples) = (&model.backbone, model.sites(), &dataset.train);
    let features = encode_images(backbone, sites, dataset, examples, &Views::Centre, policy, bars.control())?;
    let images = answers(judge, classifier, sites, examples, &features, backbone);
    let skipped = names_of(&features.bad);
    Ok(PredictResult { model: model.name(), images, skipped, test_time: None })
}

/// What is made of scores.
struct Judge {
    /// Classes shown.
    top_k: usize,
    /// Answers with a lower probability are withheld.
    abstain: Option<f64>,
    /// Where images have several labels: the score of each class at which it is as likely as not.
    offsets: Option<Vec<f32>>,
}

impl Judge {
    fn new(args: &PredictArgs, model: &Model, classifier: &Classifier<'_>) -> Result<Self, CommandError> {
        let offsets = model.adapter.as_ref().map(|artifact| artifact.offsets(classifier.classes())).transpose()?;
        Ok(Self { top_k: args.top_k.get(), abstain: args.abstain, offsets: offsets.flatten() })
    }

    /// The most probable classes; of an image with several labels all of them, each with a probability of its own.
    fn answer(&self, image: String, logits: &[f32], classes: &[String]) -> ImagePrediction {
        let scored = match &self.offsets {
            None => most_probable(logits, self.top_k),
            Some(offsets) => {
                let all = label_probabilities(logits, classes.len(), Some(offsets));
                let mut scored: Vec<(usize, f32)> = all.into_iter().enumerate().collect();
                scored.sort_by(|left, right| right.1.total_cmp(&left.1));
                scored
            }
        };
        // Of several labels the least sure decision counts: how far it is from even.
        let surety =
            |(_, score): &(usize, f32)| f64::from(if self.offsets.is_some() { score.max(1.0 - score) } else { *score });
        let surety = match &self.offsets {
            None => scored.first().map(surety),
            Some(_) => scored.iter().map(surety).min_by(f64::total_cmp),
        };
        let abstained = self.abstain.map(|least| surety.is_none_or(|surety| surety < least));
        let prediction = |(class, score): (usize, f32)| Prediction { label: classes[class].clone(), score };
        let predictions = scored.into_iter().map(prediction).collect();
        ImagePrediction { image, predictions, abstained, fell_back: None }
    }
}
