//! `inarch encode`: write features of images or texts.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use inarch_core::backbone::{Pass, values};
use inarch_core::checkpoint::LOGIT_SCALE_KEY;
use inarch_core::data::{
    Clip, ClipConfig, DataOptions, Dataset, Example, FeatureFile, FeatureKind, Source, is_animation_name, is_image_name,
};
use inarch_core::file;
use inarch_core::image::ImageAddress;
use inarch_recipes::Error::Stopped;
use inarch_recipes::{BadImagePolicy, Views, encode_images};
use serde::Serialize;

use crate::adapter::Model;
use crate::args::{EncodeArgs, ShownArgs};
use crate::data::open;
use crate::error::CommandError;
use crate::output::Output;
use crate::progress::Bars;

/// Texts in an encoding batch.
const TEXT_BATCH: usize = 1024;

/// What is printed with `--json`.
#[derive(Serialize)]
struct EncodeResult {
    output: PathBuf,
    kind: FeatureKind,
    rows: usize,
    dim: usize,
    skipped: Vec<String>,
}

pub(crate) fn run(args: &EncodeArgs, bars: &Bars, output: &Output) -> Result<(), CommandError> {
    let model = Model::open(&args.model)?;
    let (features, skipped) = match (&args.images, &args.texts) {
        (Some(path), _) => images(args, &model, path, bars)?,
        (None, Some(path)) => (texts(&model, path, bars)?, Vec::new()),
        (None, None) => return Err(CommandError::usage("nothing to encode", "give `--images` or `--texts`")),
    };
    // What a backbone of these texts needs to score as this one does.
    let scale = [(LOGIT_SCALE_KEY, model.backbone.logit_scale().to_string())];
    features.write_with(&args.output, if features.kind == FeatureKind::Text { &scale } else { &[] })?;
    let result = EncodeResult {
        output: args.output.clone(),
        kind: features.kind,
        rows: features.rows(),
        dim: features.dim,
        skipped,
    };
    output.result(&result, || {
        let mut text = format!("{} rows of {} in {}\n", result.rows, result.dim, result.output.display());
        for skipped in &result.skipped {
            text.push_str(&format!("{skipped}: could not be read\n"));
        }
        text
    });
    Ok(())
}

fn texts(model: &Model, path: &Path, bars: &Bars) -> Result<FeatureFile, CommandError> {
    let content = file::read_text(path)?;
    let lines: Vec<String> = content.lines().map(str::to_string).filter(|line| !line.trim().is_empty()).collect();
    if lines.is_empty() {
        return Err(inarch_core::Error::malformed("text list", path, "it holds no text; write one a line").into());
    }
    let mut found = Vec::new();
    let control = bars.control();
    let progress = control.progress;
    progress.start("encode", lines.len() as u64);
    for (batch, texts) in lines.chunks(TEXT_BATCH).enumerate() {
        if control.stopped() {
            return Err(Stopped { what: "texts", done: batch * TEXT_BATCH, total: lines.len() }.into());
        }
        let rows = model.backbone.tokenize(texts)?;
        found.extend(values(model.backbone.encode_text(&rows, model.sites(), &Pass::evaluate())));
        progress.advance(texts.len() as u64, "");
    }
    progress.finish();
    Ok(FeatureFile {
        backbone: model.backbone.maker(),
        kind: FeatureKind::Text,
        ids: lines,
        labels: None,
        classes: None,
        splits: None,
        dim: model.backbone.spec().dim,
        values: found,
    })
}

fn images(
    args: &EncodeArgs,
    model: &Model,
    path: &Path,
    bars: &Bars,
) -> Result<(FeatureFile, Vec<String>), CommandError> {
    let clips = args.clips.over(model.clips());
    let (examples, labelled) = match loose_images(path, &args.shown, clips.is_some())? {
        Some(examples) => (examples, None),
        None => {
            let options =
                DataOptions { root: args.root.clone(), group_by: args.group_by.clone(), ..args.shown.options() };
            let dataset = open(path, options, &args.clips, model.clips(), bars)?;
            let examples: Vec<Example> = dataset.examples().map(|(_, example)| example.clone()).collect();
            (examples, Some(dataset))
        }
    };
    let dataset = labelled.clone().unwrap_or_else(|| {
        let moving = examples.iter().any(|example| matches!(example.source, Source::Clip(_)));
        let clips = clips.or_else(|| moving.then(ClipConfig::default));
        Dataset { clips, ..Dataset::unlabelled(path.display().to_string(), Vec::new()) }
    });
    let policy = BadImagePolicy::from(args.on_bad_image).into();
    let features =
        encode_images(&model.backbone, model.sites(), &dataset, &examples, &Views::Centre, policy, bars.control())?;
    let kept: Vec<&Example> = features.kept.iter().map(|position| &examples[*position]).collect();
    let splits: Option<HashMap<&str, _>> = labelled
        .as_ref()
        .map(|dataset| dataset.examples().map(|(split, example)| (example.id.as_str(), split)).collect());
    let file = FeatureFile {
        backbone: model.backbone.maker(),
        kind: FeatureKind::Image,
        ids: kept.iter().map(|example| example.id.clone()).collect(),
        labels: labelled.as_ref().map(|dataset| kept.iter().map(|example| label_text(dataset, example)).collect()),
        classes: labelled.as_ref().map(|dataset| dataset.classes.clone()),
        splits: splits.map(|splits| kept.iter().map(|example| splits[example.id.as_str()]).collect()),
        dim: features.dim,
        values: features.values,
    };
    Ok((file, features.bad.iter().map(|bad| bad.path.display().to_string()).collect()))
}

/// The label of an example as a features file has it; several are separated by `;`.
fn label_text(dataset: &Dataset, example: &Example) -> String {
    match dataset.multi_label {
        true => example.labels.iter().map(|label| dataset.classes[*label].as_str()).collect::<Vec<_>>().join(";"),
        false => dataset.classes[example.label].clone(),
    }
}

/// The images of a single file or of a folder that holds images directly; `None` for anything else. A GIF that moves is a
/// clip, and where clips are wanted so is a folder of images, which are its frames.
fn loose_images(path: &Path, shown: &ShownArgs, clips: bool) -> Result<Option<Vec<Example>>, CommandError> {
    let examples = |paths: &[PathBuf]| -> Result<Vec<Example>, CommandError> {
        let mut found = Vec::new();
        for path in paths {
            let clip = Clip::open(path)?.filter(|clip| clip.len() > 1).map(Source::Clip);
            let sources = match clip {
                Some(clip) => vec![(path.clone(), clip)],
                None => shown.images(path)?.into_iter().map(|one| (one.clone(), Source::Image(one))).collect(),
            };
            for (one, source) in sources {
                // A window is how it is shown, not what it is.
                let named = ImageAddress { window: None, ..ImageAddress::of(&one) }.path();
                let id = named.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
                found.push(Example::new(id, source, 0));
            }
        }
        Ok(found)
    };
    let file = ImageAddress::of(path).file;
    if file.is_file() && is_image_name(&file) {
        return Ok(Some(examples(&[path.to_path_buf()])?));
    }
    if !path.is_dir() {
        return Ok(None);
    }
    let listed: Vec<PathBuf> =
        file::list(path)?.into_iter().filter(|entry| entry.is_file() && is_image_name(entry)).collect();
    if clips && listed.len() > 1 && !listed.iter().any(|entry| is_animation_name(entry)) {
        return Ok(Some(examples(&[path.to_path_buf()])?));
    }
    let images = examples(&listed)?;
    Ok((!images.is_empty()).then_some(images))
}
