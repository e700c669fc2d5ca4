//! Where the images of a run come from: a store of what is frozen, or files that are decoded and varied in each step.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::Tensor;
use inarch_core::Seed;
use inarch_core::backbone::{Entry, Partial, Sites as _, Tower};
use inarch_core::data::Purpose;
use inarch_core::image::{ImageBatch, ImageJob, Loader, View};

use super::Fitting;
use crate::clips::{jobs, whole};
use crate::encode::{ImageFeatures, Views};
use crate::error::{Error, Result};
use crate::plan::{stored_views, view_bytes};
use crate::recipe::Recipe;
use crate::saved_run::SavedRun;
use crate::shards::Shards;
use crate::task::views_of;

/// Bytes of decoded training images that are kept in memory.
const CACHE_BYTES: usize = 512 << 20;

/// Where a step's images come from.
pub(super) enum ImageSide<'a> {
    /// Frozen features `[images, dim]`, for an adapter that leaves the tower alone.
    Features(Tensor<2>),
    /// The tower, from where `part` leaves each shard. `frozen` features are computed in the step when they are needed and
    /// not given.
    Towers { part: &'a (dyn Fn(usize) -> Partial + Sync), shards: usize, frozen: Option<Tensor<2>> },
}

impl Fitting<'_> {
    /// Trains on what the image tower gives short of the adapter, computed once; returns the seconds that took.
    pub(super) fn run_stored(&mut self, entry: Entry, run: &SavedRun) -> Result<f64> {
        let started = Instant::now();
        let session = self.session;
        let epochs = self.steps.div_ceil(self.steps_per_epoch);
        let bytes = view_bytes(session.backbone, entry, self.recipe, self.train.len());
        let count = stored_views(self.recipe, epochs, session.dataset.features.is_some(), bytes);
        let views = views_of(self.recipe, count);
        let store = |entry: Entry| session.frozen(entry, &self.train, &views);
        let stored = store(entry)?;
        // The same pooled features serve as frozen ones when the tower is left alone.
        let frozen = (entry < Entry::Feature && self.adapter.learner().needs_frozen_image())
            .then(|| store(Entry::Feature))
            .transpose()?;
        self.leave_out(&stored)?;
        self.encode = started.elapsed().as_secs_f64();
        session.control.progress.start("train", self.steps as u64);
        session.control.progress.resume(self.step as u64);
        while self.step < self.steps {
            let epoch = self.step / self.steps_per_epoch;
            for batch in self.batches(epoch) {
                let places: Vec<usize> =
                    batch.iter().filter_map(|example| self.readable.binary_search(example).ok()).collect();
                let rows = |from: usize, to: usize| places[from..to].iter().map(move |place| (*place, epoch));
                if entry == Entry::Feature && !session.backbone.crosses() {
                    let features = stored.gather(rows(0, batch.len()), session.backbone);
                    self.step(&ImageSide::Features(features), &batch, run)?;
                    continue;
                }
                let frozen = frozen.as_ref().map(|frozen| frozen.gather(rows(0, batch.len()), session.backbone));
                let size = self.shard_size(batch.len());
                let part = |shard: usize| {
                    let from = shard * size;
                    stored.partial(rows(from, (from + size).min(batch.len())), session.backbone)
                };
                let shards = batch.len().div_ceil(size);
                self.step(&ImageSide::Towers { part: &part, shards, frozen }, &batch, run)?;
            }
        }
        session.control.progress.finish();
        Ok(self.encode)
    }

    /// Trains through the image tower; images are decoded, varied and encoded in each step.
    pub(super) fn run_images(&mut self, run: &SavedRun) -> Result<f64> {
        let session = self.session;
        let loader = Loader::new(session.backbone.preprocess().clone())?
            .with_batch_size(
                self.batches(self.step / self.steps_per_epoch).first().map_or(1, Vec::len) * self.frames().count(),
            )
            .with_prefetch(4)
            .with_on_bad_image(session.policy)
            .with_cache_bytes(CACHE_BYTES);
        let augment = Arc::new(self.recipe.augment.clone());
        session.control.progress.start("train", self.steps as u64);
        session.control.progress.resume(self.step as u64);
        while self.step < self.steps {
            let epoch = self.step / self.steps_per_epoch;
            let view = if self.recipe.views == 0 { epoch } else { epoch % self.recipe.views };
            let seed = self.seed.split("augment");
            let batches = self.batches(epoch);
            let jobs: Vec<ImageJob> = batches
                .iter()
                .flatten()
                .flat_map(|index| {
                    let example = &self.train[*index];
                    let seed = seed.split(&example.id).split(view);
                    let view = View::Augmented { augment: augment.clone(), seed };
                    let first = index * self.frames().count();
                    jobs(example, self.recipe.clips.as_ref(), Purpose::Train(seed), &view, first)
                })
                .collect();
            let mut missing: BTreeSet<usize> = batches.iter().flatten().copied().collect();
            let mut planned = batches.iter();
            let bad = loader.run(&jobs, |batch: ImageBatch| -> Result<()> {
                let batch = whole(batch, self.frames());
                let Some(first) = batch.indices.first() else { return Ok(()) };
                for example in &batch.indices {
                    missing.remove(example);
                }
                // A batch of which nothing can be read does not come, and is a step all the same: which images the others show
                // does not depend on where a run goes on.
                while planned.next().is_some_and(|examples| !examples.contains(first)) {
                    self.advance("");
                }
                self.image_step(&batch, run)
            })?;
            self.name_unread(&bad);
            self.unread.extend(missing);
            if self.losses.is_empty() {
                return Err(none_readable());
            }
            planned.for_each(|_| self.advance(""));
        }
        session.control.progress.finish();
        Ok(0.0)
    }

    fn image_step(&mut self, batch: &ImageBatch, run: &SavedRun) -> Result<()> {
        let backbone = self.session.backbone;
        let entry = self.adapter.entry(Tower::Image);
        let frames = self.frames();
        let size = self.shard_size(batch.indices.len()) * frames.count();
        let shards = Shards::new(batch, size, backbone.device());
        let part = |shard: usize| backbone.start_clips(shards.pixels(shard), frames, entry);
        self.step(&ImageSide::Towers { part: &part, shards: shards.count(), frozen: None }, &batch.indices, run)
    }

    /// Makes no batch of examples whose image could not be read. Each keeps its position, by which others know it: its text among
    /// pairs, a companion.
    fn leave_out(&mut self, features: &ImageFeatures) -> Result<()> {
        self.name_unread(&features.bad);
        self.readable.clone_from(&features.kept);
        let read: BTreeSet<usize> = features.kept.iter().copied().collect();
        self.unread = (0..self.train.len()).filter(|position| !read.contains(position)).collect();
        match self.readable_fresh().len() {
            0 => Err(none_readable()),
            images => {
                self.steps_per_epoch = (images / self.recipe.train.batch).max(1);
                Ok(())
            }
        }
    }
}

/// What is said where no training image can be read.
pub(crate) fn none_readable() -> Error {
    inarch_core::Error::invalid("training images", "none of them can be read").into()
}

/// The views in which training images are seen when `count` of them are fixed.
pub(crate) fn training_views(recipe: &Recipe, count: usize) -> Views {
    let seed = Seed::new(recipe.seed).split("augment");
    Views::Augmented { count, augment: Arc::new(recipe.augment.clone()), seed }
}
