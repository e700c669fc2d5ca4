//! Image features of many files, once.

use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use inarch_core::Seed;
use inarch_core::backbone::{Backbone, Pass, Sites, values};
use inarch_core::data::{Dataset, Example, Source};
use inarch_core::image::{Augment, BadImage, ImageBatch, ImageJob, Loader, OnBadImage, View};

use crate::control::Control;
use crate::error::{Error, Result};

/// Images in an encoding batch: large enough for the matrix products, small enough for the caches.
const BATCH: usize = 32;

/// Features of some examples, one row for each example and view.
#[derive(Debug, Clone)]
pub struct ImageFeatures {
    /// Width of a row.
    pub dim: usize,
    /// Rows of one example.
    pub views: usize,
    /// Row-major, `[examples * views, dim]`, example-major, not normalised.
    pub values: Vec<f32>,
    /// The examples that are in, as positions in the list that was given.
    pub kept: Vec<usize>,
    /// Those that could not be read.
    pub bad: Vec<BadImage>,
}

impl ImageFeatures {
    /// The rows of some `(kept example, view)` pairs on the backbone's device, `[pairs, dim]`.
    pub fn gather(&self, pairs: impl Iterator<Item = (usize, usize)>, backbone: &Backbone) -> Tensor<2> {
        let mut data = Vec::new();
        for (example, view) in pairs {
            let at = (example * self.views + view % self.views) * self.dim;
            data.extend_from_slice(&self.values[at..at + self.dim]);
        }
        let rows = data.len() / self.dim.max(1);
        Tensor::from_data(TensorData::new(data, [rows, self.dim]), backbone.device())
    }

    /// All rows of view 0, `[kept, dim]`.
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
    let dim = backbone.spec().dim;
    if let Some(file) = &dataset.features {
        // Features from elsewhere may name their maker by any text; a digest that is not this one is a mistake.
        let own = backbone.digest().to_string();
        if file.backbone.starts_with("sha256:") && file.backbone != own {
            return Err(inarch_core::Error::Refused {
                what: format!("backbone of the features of `{}`", dataset.name),
                expected: format!("{own} ({})", backbone.name()),
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
        return Ok(ImageFeatures { dim, views: 1, values, kept: (0..examples.len()).collect(), bad: Vec::new() });
    }

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
    let mut values_found = Vec::with_capacity(jobs.len() * dim);
    let mut found = Vec::with_capacity(jobs.len());
    control.progress.start("encode", jobs.len() as u64);
    let bad = loader.run(&jobs, |batch: ImageBatch| -> Result<()> {
        if control.stopped() {
            return Err(Error::Stopped { what: "images", done: found.len(), total: jobs.len() });
        }
        let images = batch.indices.len();
        let pixels = backbone.pixels(batch.pixels, batch.shape)?;
        values_found.extend(values(backbone.encode_image(pixels, sites, &Pass::evaluate())));
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
    Ok(ImageFeatures { dim, views: count, values: values_found, kept, bad })
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
