//! Image features of many files, once.

use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use inarch_core::Seed;
use inarch_core::backbone::{Backbone, Entry, Partial, Pass, Sites, Tower, values};
use inarch_core::data::{Dataset, Example, Source};
use inarch_core::image::{Augment, BadImage, ImageBatch, ImageJob, Loader, OnBadImage, View};

use crate::control::Control;
use crate::error::{Error, Result};

/// Images in an encoding batch: large enough for the matrix products, small enough for the caches.
const BATCH: usize = 32;

/// What is stored of some examples' images, one row for each example and view.
#[derive(Debug, Clone)]
pub struct ImageFeatures {
    /// How far the image tower has come: [`Entry::Feature`] for pooled features.
    pub entry: Entry,
    /// Tokens of a row; 1 for features.
    pub tokens: usize,
    /// Width of a token or of a feature.
    pub dim: usize,
    /// Rows of one example.
    pub views: usize,
    /// Row-major, `[examples * views, tokens, dim]`, example-major, not normalised.
    pub values: Vec<f32>,
    /// The examples that are in, as positions in the list that was given.
    pub kept: Vec<usize>,
    /// Those that could not be read.
    pub bad: Vec<BadImage>,
}

impl ImageFeatures {
    /// The features of some `(kept example, view)` pairs on the backbone's device, `[pairs, dim]`.
    pub fn gather(&self, pairs: impl Iterator<Item = (usize, usize)>, backbone: &Backbone) -> Tensor<2> {
        let (data, rows) = self.rows(pairs);
        Tensor::from_data(TensorData::new(data, [rows, self.tokens * self.dim]), backbone.device())
    }

    /// The image tower of some `(kept example, view)` pairs, as far as it has come.
    pub fn partial(&self, pairs: impl Iterator<Item = (usize, usize)>, backbone: &Backbone) -> Partial {
        if self.entry == Entry::Feature {
            return Partial::feature(self.gather(pairs, backbone));
        }
        let (data, rows) = self.rows(pairs);
        let stream = Tensor::from_data(TensorData::new(data, [rows, self.tokens, self.dim]), backbone.device());
        Partial::image_stream(self.entry, stream)
    }

    fn rows(&self, pairs: impl Iterator<Item = (usize, usize)>) -> (Vec<f32>, usize) {
        let row = self.tokens * self.dim;
        let mut data = Vec::new();
        for (example, view) in pairs {
            let at = (example * self.views + view % self.views) * row;
            data.extend_from_slice(&self.values[at..at + row]);
        }
        let rows = data.len() / row.max(1);
        (data, rows)
    }

    /// Frozen features through the feature site of an adapter.
    #[must_use]
    pub fn through(&self, sites: &dyn Sites, backbone: &Backbone) -> Self {
        let rows = (0..self.kept.len()).flat_map(|example| (0..self.views).map(move |view| (example, view)));
        let adapted = sites.feature(Tower::Image, self.gather(rows, backbone), &Pass::evaluate());
        Self { values: values(adapted), ..self.clone() }
    }

    /// All features of view 0, `[kept, dim]`.
    pub fn all(&self, backbone: &Backbone) -> Tensor<2> {
        self.gather((0..self.kept.len()).map(|example| (example, 0)), backbone)
    }
}

/// Which views of each example are encoded.
#[derive(Debug, Clone)]
pub enum Views {
    /// The centre view of evaluation.
    Centre,
    /// Some random views, drawn by seed and example id.
    Augmented {
        /// How many.
        count: usize,
        /// The kinds of changes.
        augment: Arc<Augment>,
        /// Decides the changes.
        seed: Seed,
    },
}

/// Encodes examples through an adapter (its image side). Examples of a features file are read, not encoded.
///
/// # Errors
/// A missing or corrupt image under [`OnBadImage::Fail`], features of another backbone or width, or an interruption.
pub fn encode_images(
    backbone: &Backbone,
    sites: &dyn Sites,
    dataset: &Dataset,
    examples: &[Example],
    views: &Views,
    policy: OnBadImage,
    control: Control<'_>,
) -> Result<ImageFeatures> {
    let encode = |pixels| Partial::feature(backbone.evaluate_image(pixels, sites));
    encode_with(&encode, backbone, dataset, examples, views, policy, control)
}

/// Runs examples through the frozen image tower up to `until`, to be gone on from there by
/// [`ImageFeatures::partial`].
///
/// # Errors
/// As [`encode_images`].
pub fn encode_frozen(
    backbone: &Backbone,
    until: Entry,
    dataset: &Dataset,
    examples: &[Example],
    views: &Views,
    policy: OnBadImage,
    control: Control<'_>,
) -> Result<ImageFeatures> {
    let encode = |pixels| backbone.start_image(pixels, until.min(Entry::Feature));
    encode_with(&encode, backbone, dataset, examples, views, policy, control)
}

fn encode_with(
    encode: &dyn Fn(Tensor<4>) -> Partial,
    backbone: &Backbone,
    dataset: &Dataset,
    examples: &[Example],
    views: &Views,
    policy: OnBadImage,
    control: Control<'_>,
) -> Result<ImageFeatures> {
    let dim = backbone.spec().dim;
    if let Some(file) = &dataset.features {
        if !backbone.made(&file.backbone) {
            return Err(inarch_core::Error::Refused {
                what: format!("backbone of the features of `{}`", dataset.name),
                expected: format!("{} ({})", backbone.maker(), backbone.name()),
                found: file.backbone.clone(),
            }
            .into());
        }
        if file.dim != dim {
            return Err(inarch_core::Error::mismatch(
                format!("width of the features of `{}`", dataset.name),
                format!("{dim} (backbone {})", backbone.name()),
                file.dim,
            )
            .into());
        }
        let rows = examples.iter().filter_map(|example| match example.source {
            Source::Row(row) => file.row(row),
            Source::Image(_) => None,
        });
        let values: Vec<f32> = rows.flatten().copied().collect();
        let kept = (0..examples.len()).collect();
        return Ok(ImageFeatures { entry: Entry::Feature, tokens: 1, dim, views: 1, values, kept, bad: Vec::new() });
    }

    backbone.need_towers(&format!("data set `{}`", dataset.name))?;
    let count = match views {
        Views::Centre => 1,
        Views::Augmented { count, .. } => *count,
    };
    let jobs = image_jobs(examples, count, |example, view| match views {
        Views::Centre => View::Centre,
        Views::Augmented { augment, seed, .. } => {
            View::Augmented { augment: augment.clone(), seed: seed.split(&example.id).split(view) }
        }
    });
    let loader = Loader::new(backbone.preprocess().clone())?
        .with_batch_size(BATCH)
        .with_on_bad_image(policy)
        .with_cache_bytes(if count > 1 { 256 << 20 } else { 0 });
    let mut values_found = Vec::new();
    let (mut entry, mut row) = (Entry::Feature, [1, dim]);
    let mut found = Vec::with_capacity(jobs.len());
    control.progress.start("encode", jobs.len() as u64);
    let bad = loader.run(&jobs, |batch: ImageBatch| -> Result<()> {
        if control.stopped() {
            return Err(Error::Stopped { what: "images", done: found.len(), total: jobs.len() });
        }
        let images = batch.indices.len();
        let pixels = backbone.pixels(batch.pixels, batch.shape)?;
        let partial = encode(pixels);
        entry = partial.entry;
        match partial.stream() {
            Some(stream) => {
                let [_, tokens, width] = stream.dims();
                row = [tokens, width];
                values_found.extend(values(stream));
            }
            None => values_found.extend(partial.into_feature().map(values).unwrap_or_default()),
        }
        found.extend(batch.indices);
        control.progress.advance(images as u64, "");
        Ok(())
    })?;
    control.progress.finish();
    // A bad image is bad in every view, but it is one image.
    let mut bad: Vec<BadImage> = bad;
    bad.dedup_by(|left, right| left.path == right.path);
    let kept: Vec<usize> = found.iter().filter(|job| *job % count == 0).map(|job| job / count).collect();
    if kept.len() * count != found.len() {
        return Err(inarch_core::Error::invalid("images", "an image could be read in some views only").into());
    }
    let [tokens, dim] = row;
    Ok(ImageFeatures { entry, tokens, dim, views: count, values: values_found, kept, bad })
}

fn image_jobs(examples: &[Example], count: usize, view: impl Fn(&Example, usize) -> View) -> Vec<ImageJob> {
    let mut jobs = Vec::with_capacity(examples.len() * count);
    for (position, example) in examples.iter().enumerate() {
        let Source::Image(path) = &example.source else { continue };
        for index in 0..count {
            jobs.push(ImageJob { index: position * count + index, path: path.clone(), view: view(example, index) });
        }
    }
    jobs
}
