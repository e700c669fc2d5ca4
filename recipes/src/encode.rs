//! Image features of many files, once.

use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use inarch_core::Seed;
use inarch_core::backbone::{Backbone, Entry, Partial, Pass, Sites, Tower, values};
use inarch_core::data::{Dataset, Example, Source};
use inarch_core::image::{Augment, BadImage, ImageBatch, ImageJob, Loader, OnBadImage, View};

use crate::control::Control;
use crate::error::{Error, Result};
use crate::evaluate::shares_image_features;
use crate::feature_store::{self, Shelf};

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
    if shares_image_features(sites) && dataset.features.is_none() {
        let frozen = encode_frozen(backbone, Entry::Feature, dataset, examples, views, policy, control)?;
        return Ok(frozen.through(sites, backbone));
    }
    let encode = |pixels| Partial::feature(backbone.evaluate_image(pixels, sites));
    encode_with(&encode, Entry::Feature, None, backbone, dataset, examples, views, policy, control)
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
    let until = until.min(Entry::Feature);
    let encode = |pixels| backbone.start_image(pixels, until);
    let shelf = control.store.map(|store| store.shelf(backbone, until));
    encode_with(&encode, until, shelf, backbone, dataset, examples, views, policy, control)
}

#[expect(clippy::too_many_arguments, reason = "those of the two functions above, and what they differ in")]
fn encode_with(
    encode: &dyn Fn(Tensor<4>) -> Partial,
    until: Entry,
    shelf: Option<Shelf<'_>>,
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
    control.progress.start("encode", jobs.len() as u64);
    let mut rows = Rows::new(examples.len() * count, until, dim);
    let mut shelf = shelf.map(|shelf| (feature_store::keys(&jobs), shelf));
    if let Some((keys, shelf)) = &shelf {
        for (job, tensor) in shelf.find(keys) {
            rows.put(job, &[tensor.shape[0], tensor.shape[1]], &tensor.data);
        }
        control.progress.advance(rows.count() as u64, "");
    }
    let missing: Vec<ImageJob> = jobs.iter().filter(|job| !rows.has(job.index)).cloned().collect();
    let bad = loader.run(&missing, |batch: ImageBatch| -> Result<()> {
        if control.stopped() {
            return Err(Error::Stopped { what: "images", done: rows.count(), total: jobs.len() });
        }
        let images = batch.indices.len();
        let pixels = backbone.pixels(batch.pixels, batch.shape)?;
        let partial = encode(pixels);
        let (shape, mut data) = match partial.stream() {
            Some(stream) => {
                let [_, tokens, width] = stream.dims();
                ([tokens, width], values(stream))
            }
            None => ([1, dim], partial.into_feature().map(values).unwrap_or_default()),
        };
        for (job, row) in batch.indices.iter().zip(data.chunks_mut(shape[0] * shape[1])) {
            if let Some((keys, shelf)) = &mut shelf {
                shelf.add(keys.get(job), shape, row);
            }
            rows.put(*job, &shape, row);
        }
        control.progress.advance(images as u64, "");
        Ok(())
    });
    if let Some((_, shelf)) = shelf
        && let Err(fault) = shelf.close()
    {
        control.progress.say(&format!("warning: features are not kept for later runs: {fault}"));
    }
    // A bad image is bad in every view, but it is one image.
    let mut bad: Vec<BadImage> = bad?;
    control.progress.finish();
    bad.dedup_by(|left, right| left.path == right.path);
    rows.features(count, bad)
}

/// Rows as they come, each at its place.
struct Rows {
    entry: Entry,
    /// Tokens and width.
    shape: [usize; 2],
    values: Vec<f32>,
    there: Vec<bool>,
}

impl Rows {
    /// Room for `total` rows of an image tower at `entry`.
    fn new(total: usize, entry: Entry, dim: usize) -> Self {
        Self { entry, shape: [1, dim], values: Vec::new(), there: vec![false; total] }
    }

    fn has(&self, at: usize) -> bool {
        self.there[at]
    }

    fn count(&self) -> usize {
        self.there.iter().filter(|there| **there).count()
    }

    fn put(&mut self, at: usize, shape: &[usize; 2], row: &[f32]) {
        if self.values.is_empty() {
            self.shape = *shape;
            self.values.resize(self.there.len() * row.len(), 0.0);
        }
        self.values[at * row.len()..(at + 1) * row.len()].copy_from_slice(row);
        self.there[at] = true;
    }

    /// All rows of those examples that have theirs.
    fn features(mut self, views: usize, bad: Vec<BadImage>) -> Result<ImageFeatures> {
        let [tokens, dim] = self.shape;
        let size = views * tokens * dim;
        let mut kept = Vec::new();
        for (example, there) in self.there.chunks(views).enumerate() {
            match there.iter().filter(|there| **there).count() {
                0 => {}
                all if all == views => {
                    self.values.copy_within(example * size..(example + 1) * size, kept.len() * size);
                    kept.push(example);
                }
                _ => {
                    let reason = "an image could be read in some views only";
                    return Err(inarch_core::Error::invalid("images", reason).into());
                }
            }
        }
        self.values.truncate(kept.len() * size);
        Ok(ImageFeatures { entry: self.entry, tokens, dim, views, values: self.values, kept, bad })
    }
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
