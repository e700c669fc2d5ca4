//! What is to be encoded: a list in a fixed order, of which any part can be encoded by itself.

use std::ops::Range;
use std::path::{Path, PathBuf};

use inarch_core::backbone::{Entry, Pass, Tower, values};
use inarch_core::data::{
    Clip, ClipConfig, DataOptions, Dataset, Example, FeatureFile, FeatureKind, Source, Split, is_animation_name,
    is_image_name, is_video_name,
};
use inarch_core::image::ImageAddress;
use inarch_core::{Error, file};
use inarch_peft::Artifact;
use inarch_recipes::Error::Stopped;
use inarch_recipes::{BadImagePolicy, Views, encode_images};

use crate::adapter::Model;
use crate::args::{EncodeArgs, OnBadImageArg, ShownArgs};
use crate::data::open;
use crate::error::CommandError;
use crate::output::names_of;
use crate::progress::Bars;

/// Texts in an encoding batch.
const TEXT_BATCH: usize = 1024;

/// Features of some entries.
pub(super) struct Encoded {
    pub(super) features: FeatureFile,
    /// Files that could not be read.
    pub(super) skipped: Vec<String>,
    /// Entries without a feature for that reason.
    pub(super) unread: usize,
}

/// The whole list.
pub(super) enum Input {
    /// Images or clips, with the split of each where the source tells labels and splits.
    Images { examples: Vec<Example>, splits: Option<Vec<Split>>, dataset: Box<Dataset> },
    /// Texts.
    Texts(Vec<String>),
}

impl Input {
    /// What the arguments name.
    pub(super) fn open(args: &EncodeArgs, model: &Model, bars: &Bars) -> Result<Self, CommandError> {
        match (&args.images, &args.texts) {
            (Some(path), _) => Self::images(args, model, path, bars),
            (None, Some(path)) => Self::texts(path),
            (None, None) => Err(CommandError::usage("nothing to encode", "give `--images` or `--texts`")),
        }
    }

    /// An image, a clip, the images of a folder, or a data set.
    fn images(args: &EncodeArgs, model: &Model, path: &Path, bars: &Bars) -> Result<Self, CommandError> {
        let clips = args.clips.over(model.clips());
        if let Some(examples) = loose_images(path, &args.reading.shown.beside(model), clips.is_some())? {
            let moving = examples.iter().any(|example| matches!(example.source, Source::Clip(_)));
            let clips = clips.or_else(|| moving.then(ClipConfig::default));
            clips.as_ref().map_or(Ok(()), ClipConfig::check)?;
            let dataset = Dataset { clips, ..Dataset::unlabelled(path.display().to_string(), Vec::new()) };
            return Ok(Self::Images { examples, splits: None, dataset: Box::new(dataset) });
        }
        // Features tell no classes apart, so one is enough.
        let options = model.reading(args.reading.options());
        let options = DataOptions { one_class: true, ..options };
        let dataset = open(path, options, &args.clips, model.clips(), bars)?;
        let (splits, examples) = dataset.examples().map(|(split, example)| (split, example.clone())).unzip();
        Ok(Self::Images { examples, splits: Some(splits), dataset: Box::new(dataset) })
    }

    /// One text a line, so that rows are lines. An empty one is refused: left out it would move all rows behind it, and as a
    /// text it says nothing.
    fn texts(path: &Path) -> Result<Self, CommandError> {
        let content = file::read_text(path)?;
        let lines: Vec<String> = content.lines().map(str::to_string).collect();
        let wrong = |reason: String| CommandError::from(Error::malformed("text list", path, reason));
        if lines.iter().all(|line| line.trim().is_empty()) {
            return Err(wrong("it holds no text; write one a line".into()));
        }
        match lines.iter().position(|line| line.trim().is_empty()) {
            Some(at) => Err(wrong(format!("line {} is empty; every line is a text, and a row; remove it", at + 1))),
            None => Ok(Self::Texts(lines)),
        }
    }

    pub(super) fn kind(&self) -> FeatureKind {
        match self {
            Self::Images { .. } => FeatureKind::Image,
            Self::Texts(_) => FeatureKind::Text,
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Images { examples, .. } => examples.len(),
            Self::Texts(lines) => lines.len(),
        }
    }

    /// The adapter that the features are changed by: that of the model, where it changes this tower, or the one that has
    /// changed them before.
    pub(super) fn adapter(&self, model: &Model) -> Option<String> {
        let (tower, before) = match self {
            Self::Images { dataset, .. } => (Tower::Image, dataset.features.as_ref()),
            Self::Texts(_) => (Tower::Text, None),
        };
        let changing = model.adapter.as_ref().filter(|artifact| artifact.adapter.sites().entry(tower) < Entry::Never);
        let name = |artifact: &Artifact| format!("{} {}", artifact.manifest.method.name(), artifact.manifest.tensors);
        changing.map(name).or_else(|| before?.adapter.clone())
    }

    /// The features of some entries.
    pub(super) fn encode(
        &self,
        range: Range<usize>,
        model: &Model,
        on_bad_image: OnBadImageArg,
        bars: &Bars,
    ) -> Result<Encoded, CommandError> {
        match self {
            Self::Texts(lines) => {
                let (ids, values) = (lines[range.clone()].to_vec(), encode_texts(&lines[range], model, bars)?);
                let adapter = self.adapter(model);
                let features = FeatureFile { ids, values, adapter, ..empty(FeatureKind::Text, model) };
                Ok(Encoded { features, skipped: Vec::new(), unread: 0 })
            }
            Self::Images { examples, splits, dataset } => {
                let examples = &examples[range.clone()];
                let policy = BadImagePolicy::from(on_bad_image).into();
                let (backbone, sites) = (&model.backbone, model.sites());
                let found = encode_images(backbone, sites, dataset, examples, &Views::Centre, policy, bars.control())?;
                let kept = || found.kept.iter().map(|position| &examples[*position]);
                let splits = splits.as_ref().map(|splits| &splits[range]);
                let features = FeatureFile {
                    ids: kept().map(|example| example.id.clone()).collect(),
                    labels: splits.map(|_| kept().map(|example| label_text(dataset, example)).collect()),
                    classes: splits.map(|_| dataset.classes.clone()),
                    splits: splits.map(|splits| found.kept.iter().map(|position| splits[*position]).collect()),
                    dim: found.dim,
                    values: found.values,
                    adapter: self.adapter(model),
                    ..empty(FeatureKind::Image, model)
                };
                let skipped = names_of(&found.bad);
                Ok(Encoded { unread: examples.len() - features.rows(), features, skipped })
            }
        }
    }
}

fn empty(kind: FeatureKind, model: &Model) -> FeatureFile {
    FeatureFile {
        backbone: model.backbone.maker(),
        adapter: None,
        kind,
        ids: Vec::new(),
        labels: None,
        classes: None,
        splits: None,
        dim: model.backbone.spec().dim,
        values: Vec::new(),
    }
}

fn encode_texts(lines: &[String], model: &Model, bars: &Bars) -> Result<Vec<f32>, CommandError> {
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
    Ok(found)
}

/// The label of an example as a features file has it; several are separated by `;`.
pub(super) fn label_text(dataset: &Dataset, example: &Example) -> String {
    match dataset.multi_label {
        true => example.labels.iter().map(|label| dataset.classes[*label].as_str()).collect::<Vec<_>>().join(";"),
        false => dataset.classes[example.label].clone(),
    }
}

/// The images of a single file or of a folder that holds images directly; `None` for anything else. A video or a GIF that
/// moves is a clip, and where clips are wanted so is a folder of images, which are its frames.
fn loose_images(path: &Path, shown: &ShownArgs, clips: bool) -> Result<Option<Vec<Example>>, CommandError> {
    let examples = |paths: &[PathBuf]| -> Result<Vec<Example>, CommandError> {
        let mut found = Vec::new();
        for path in paths {
            let clip = Clip::open(path)?.filter(|clip| clip.len() > 1 || is_video_name(path)).map(Source::Clip);
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
    let shows = |path: &Path| path.is_file() && (is_image_name(path) || is_video_name(path));
    // As in class folders: what a Mac leaves beside a photo, `._photo.jpg`, is no photo.
    let hidden = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    if shows(&file) {
        return Ok(Some(examples(&[path.to_path_buf()])?));
    }
    if !path.is_dir() {
        return Ok(None);
    }
    let listed: Vec<PathBuf> = file::list(path)?.into_iter().filter(|entry| shows(entry) && !hidden(entry)).collect();
    if clips && listed.len() > 1 && !listed.iter().any(|entry| is_animation_name(entry)) {
        return Ok(Some(examples(&[path.to_path_buf()])?));
    }
    let images = examples(&listed)?;
    Ok((!images.is_empty()).then_some(images))
}
