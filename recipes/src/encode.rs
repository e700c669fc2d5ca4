//! Image features of many files, once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use inarch_core::Seed;
use inarch_core::backbone::{Backbone, Entry, Frames, Frozen, Partial, Pass, Sites, Tower, normalise, values};
use inarch_core::data::{ClipConfig, Dataset, Example, Purpose, Source};
use inarch_core::image::{Augment, BadImage, CropPlace, ImageBatch, ImageJob, Loader, OnBadImage, View};

use crate::clips::{check_crops, frames, jobs, whole};
use crate::control::Control;
use crate::error::{Error, Result};
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
    /// Frames of a row that are still apart: those of a clip short of its pool site, else 1.
    pub frames: usize,
    /// Row-major, `[examples * views * frames, tokens, dim]`, example-major, not normalised.
    pub values: Vec<f32>,
    /// The examples that are in, as positions in the list that was given.
    pub kept: Vec<usize>,
    /// Those that could not be read.
    pub bad: Vec<BadImage>,
}

impl ImageFeatures {
    /// The features of some `(kept example, view)` pairs on the backbone's device, `[pairs, dim]`; of clips short of their
    /// pool site those of all frames, `[pairs * frames, dim]`.
    pub fn gather(&self, pairs: impl Iterator<Item = (usize, usize)>, backbone: &Backbone) -> Tensor<2> {
        let (data, rows) = self.rows(pairs);
        Tensor::from_data(TensorData::new(data, [rows, self.tokens * self.dim]), backbone.device())
    }

    /// The image tower of some `(kept example, view)` pairs, as far as it has come.
    pub fn partial(&self, pairs: impl Iterator<Item = (usize, usize)>, backbone: &Backbone) -> Partial {
        match self.entry {
            Entry::Feature | Entry::Never => return Partial::feature(self.gather(pairs, backbone)),
            Entry::Pool => return Partial::frames(self.gather(pairs, backbone)),
            Entry::Trunk(_) | Entry::Tokens | Entry::Block(_) | Entry::Head => {}
        }
        let (data, rows) = self.rows(pairs);
        let stream = Tensor::from_data(TensorData::new(data, [rows, self.tokens, self.dim]), backbone.device());
        Partial::image_stream(self.entry, stream)
    }

    fn rows(&self, pairs: impl Iterator<Item = (usize, usize)>) -> (Vec<f32>, usize) {
        let row = self.frames * self.tokens * self.dim;
        let mut data = Vec::new();
        for (example, view) in pairs {
            let at = (example * self.views + view % self.views) * row;
            data.extend_from_slice(&self.values[at..at + row]);
        }
        let rows = data.len() / (self.tokens * self.dim).max(1);
        (data, rows)
    }

    /// Frozen features through the rest of an adapter: its feature site, and its pool site where frames are apart.
    #[must_use]
    pub fn through(&self, sites: &dyn Sites, backbone: &Backbone) -> Self {
        let rows = (0..self.kept.len()).flat_map(|example| (0..self.views).map(move |view| (example, view)));
        let pass = Pass { frames: Frames::of(self.frames), ..Pass::evaluate() };
        let adapted = match self.entry {
            Entry::Feature | Entry::Never => sites.feature(Tower::Image, self.gather(rows, backbone), &pass),
            _ => backbone.finish(Tower::Image, self.partial(rows, backbone), sites, &pass),
        };
        let (tokens, frames) = (1, 1);
        let [_, dim] = adapted.dims();
        Self { entry: Entry::Feature, tokens, frames, dim, values: values(adapted), ..self.clone() }
    }

    /// One feature for each example: the mean of those of its views, each of length 1.
    fn averaged(self, backbone: &Backbone) -> Self {
        if self.views == 1 || self.kept.is_empty() {
            return self;
        }
        let rows = (0..self.kept.len()).flat_map(|example| (0..self.views).map(move |view| (example, view)));
        let features = self.gather(rows, backbone);
        // The tokens of an image have no common length.
        let features = if backbone.crosses() { features } else { normalise(features) };
        let mean = features.reshape([self.kept.len(), self.views, self.dim]).mean_dim(1).squeeze_dim::<2>(1);
        Self { views: 1, values: values(mean), ..self }
    }

    /// All features of view 0, `[kept, dim]`.
    pub fn all(&self, backbone: &Backbone) -> Tensor<2> {
        self.gather((0..self.kept.len()).map(|example| (example, 0)), backbone)
    }
}

/// Which views of each example are encoded.
#[derive(Debug, Clone)]
pub enum Views {
    /// The centre view of evaluation; of clips as many choices of frames and crops as their settings say, whose features are
    /// averaged.
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

/// Encodes examples through an adapter (its image side). Examples of a features file are read, not encoded, and go through
/// its feature site.
///
/// # Errors
/// A missing or corrupt image under [`OnBadImage::Fail`], features of another backbone or width, features for an adapter that
/// needs images or that another adapter made, or an interruption.
pub fn encode_images(
    backbone: &Backbone,
    sites: &dyn Sites,
    dataset: &Dataset,
    examples: &[Example],
    views: &Views,
    policy: OnBadImage,
    control: Control<'_>,
) -> Result<ImageFeatures> {
    let averaged = |features: ImageFeatures| match views {
        Views::Centre => features.averaged(backbone),
        Views::Augmented { .. } => features,
    };
    let entry = sites.entry(Tower::Image).min(Entry::Feature);
    let changed = sites.entry(Tower::Image) < Entry::Never;
    if let Some(file) = dataset.features.as_ref().filter(|_| changed) {
        file.need_frozen(&dataset.name)?;
        if entry < Entry::Feature {
            let reason = format!("it changes the image tower and needs images; `{}` holds features", dataset.name);
            return Err(inarch_core::Error::invalid("adapter", reason).into());
        }
    }
    if entry >= Entry::Pool && (changed || dataset.features.is_none()) {
        let frozen = encode_frozen(backbone, entry, dataset, examples, views, policy, control)?;
        return Ok(averaged(frozen.through(sites, backbone)));
    }
    let frames = frames(dataset.clips.as_ref());
    let encode = |pixels| Partial::feature(backbone.evaluate_clips(pixels, frames, sites));
    let work = Work { encode: &encode, until: Entry::Feature, shelf: None, frames };
    Ok(averaged(encode_with(work, backbone, dataset, examples, views, policy, control)?))
}

/// Runs examples through the frozen image tower up to `until`, to be gone on from there by
/// [`ImageFeatures::partial`]. Every frame of a clip is run, and stored, by itself.
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
    let until = until.clamp(backbone.beginning(Tower::Image), Entry::Feature);
    let apart = if dataset.clips.is_some() { until.min(Entry::Pool) } else { until };
    let encode = |pixels| backbone.start_image(pixels, apart);
    // What stands behind a borrowed device may be another one tomorrow, which rounds otherwise.
    let own = !inarch_core::is_borrowed(backbone.device());
    let shelf = control.store.filter(|_| own).map(|store| store.shelf(backbone, apart));
    let work = Work { encode: &encode, until: apart, shelf, frames: Frames::STILL };
    let features = encode_with(work, backbone, dataset, examples, views, policy, control)?;
    match (until, apart, views) {
        (Entry::Feature, Entry::Pool, Views::Centre) => Ok(features.through(&Frozen, backbone).averaged(backbone)),
        (Entry::Feature, Entry::Pool, Views::Augmented { .. }) => Ok(features.through(&Frozen, backbone)),
        _ => Ok(features),
    }
}

/// What is done with pixels.
struct Work<'a> {
    encode: &'a dyn Fn(Tensor<4>) -> Partial,
    /// How far that takes them.
    until: Entry,
    shelf: Option<Shelf<'a>>,
    /// How many images make one row: the frames of a clip, or 1 where each has a row of its own.
    frames: Frames,
}

fn encode_with(
    work: Work<'_>,
    backbone: &Backbone,
    dataset: &Dataset,
    examples: &[Example],
    views: &Views,
    policy: OnBadImage,
    control: Control<'_>,
) -> Result<ImageFeatures> {
    let Work { encode, until, shelf, frames: joined } = work;
    let dim = backbone.image_values();
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
            Source::Image(_) | Source::Bytes(..) | Source::Clip(_) => None,
        });
        let values: Vec<f32> = rows.flatten().copied().collect();
        let (kept, bad) = ((0..examples.len()).collect(), Vec::new());
        return Ok(ImageFeatures { entry: Entry::Feature, tokens: 1, dim, views: 1, frames: 1, values, kept, bad });
    }

    backbone.need_towers(&format!("data set `{}`", dataset.name))?;
    check_crops(backbone, dataset)?;
    let clips = dataset.clips.as_ref();
    let count = match views {
        Views::Centre => clips.map_or(1, ClipConfig::test_views),
        Views::Augmented { count, .. } => *count,
    };
    let each = frames(clips).count();
    let one = |(position, example): (usize, &Example)| -> Vec<ImageJob> {
        let of_view = |view: usize| {
            let first = (position * count + view) * each;
            match views {
                Views::Centre => {
                    let still = || (Purpose::Test(view), View::Centre);
                    let (purpose, shown) = clips.map_or_else(still, |clips| clips.test_view(view));
                    jobs(example, clips, purpose, &shown, first)
                }
                Views::Augmented { augment, seed, .. } => {
                    let seed = seed.split(&example.id).split(view);
                    // Where only frames are drawn, one frame is the same in all views that see it.
                    let varied = match clips.is_some() && augment.draws_nothing() {
                        true => View::Centre,
                        false => View::Augmented { augment: augment.clone(), seed },
                    };
                    jobs(example, clips, Purpose::Train(seed), &varied, first)
                }
            }
        };
        (0..count).flat_map(of_view).collect()
    };
    let mut jobs: Vec<ImageJob> = examples.iter().enumerate().flat_map(one).collect();
    let mut copies = Vec::new();
    if clips.is_some() && joined == Frames::STILL {
        let mut first = HashMap::new();
        jobs.retain(|job| {
            let place = match job.view {
                View::Centre => CropPlace::Centre,
                View::Crop(place) => place,
                View::Augmented { .. } => return true,
            };
            let original = *first.entry((job.path.clone(), job.frame, place)).or_insert(job.index);
            if original != job.index {
                copies.push((original, job.index));
            }
            original == job.index
        });
    }
    let loader = Loader::new(backbone.preprocess().clone())?
        .with_batch_size(joined.count() * (BATCH / joined.count()).max(1))
        .with_on_bad_image(policy)
        .with_cache_bytes(if count > 1 { 256 << 20 } else { 0 });
    control.progress.start("encode", jobs.len() as u64);
    let mut rows = Rows::new(examples.len() * count * each / joined.count(), until, dim);
    let mut shelf = shelf.map(|shelf| (feature_store::keys(&jobs), shelf));
    if let Some((keys, shelf)) = &shelf {
        for (job, tensor) in shelf.find(keys) {
            rows.put(job, &[tensor.shape[0], tensor.shape[1]], &tensor.data);
        }
        control.progress.resume(rows.count() as u64);
    }
    let missing: Vec<ImageJob> = jobs.iter().filter(|job| !rows.has(job.index / joined.count())).cloned().collect();
    let bad = loader.run(&missing, |batch: ImageBatch| -> Result<()> {
        if control.stopped() {
            return Err(Error::Stopped { what: "images", done: rows.count(), total: jobs.len() });
        }
        let images = batch.indices.len();
        let batch = whole(batch, joined);
        if batch.indices.is_empty() {
            return Ok(());
        }
        let pixels = backbone.pixels(batch.pixels, batch.shape)?;
        let partial = encode(pixels);
        let (shape, mut data) = match partial.stream() {
            Some(stream) => {
                let [_, tokens, width] = stream.dims();
                ([tokens, width], values(stream))
            }
            None => partial.into_feature().map_or(([1, dim], Vec::new()), |feature| {
                let [_, width] = feature.dims();
                ([1, width], values(feature))
            }),
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
    let mut named = HashSet::new();
    bad.retain(|bad| named.insert(bad.path.clone()));
    copies.into_iter().for_each(|(from, to)| rows.copy(from, to));
    Ok(rows.features(count, each / joined.count(), bad))
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

    /// Puts a row at a second place, if it is there.
    fn copy(&mut self, from: usize, to: usize) {
        if self.there[from] {
            let row = self.shape[0] * self.shape[1];
            self.values.copy_within(from * row..(from + 1) * row, to * row);
            self.there[to] = true;
        }
    }

    /// All rows of those examples that have theirs, for each of their views and frames; one that lacks some is left out.
    fn features(mut self, views: usize, frames: usize, bad: Vec<BadImage>) -> ImageFeatures {
        let [tokens, dim] = self.shape;
        let size = views * frames * tokens * dim;
        let mut kept = Vec::new();
        for (example, there) in self.there.chunks(views * frames).enumerate() {
            if there.iter().all(|there| *there) {
                self.values.copy_within(example * size..(example + 1) * size, kept.len() * size);
                kept.push(example);
            }
        }
        self.values.truncate(kept.len() * size);
        ImageFeatures { entry: self.entry, tokens, dim, views, frames, values: self.values, kept, bad }
    }
}
