//! A stream of pixel batches: files are decoded by all cores ahead of the consumer, and arrive in order.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;

use rayon::prelude::*;

use super::cache::ImageCache;
use super::job::{BadImage, ImageBatch, ImageJob, OnBadImage};
use super::pixel_source::{PixelSource, slice, together};
use super::preprocess::Preprocess;
use super::read_ahead::{ReadAhead, groups};
use crate::error::{Error, Result};

/// Loads images in batches, decoding ahead.
///
/// # Memory
/// At most `prefetch` finished batches wait, besides the one with the consumer and those being decoded. A volume is unpacked once for
/// its slices among the jobs, in whatever order they come, as far ahead as slices have 512 MiB of voxels. No more of them wait to
/// be shown, besides one slice of each volume that is being read.
#[derive(Debug, Clone)]
pub struct Loader {
    source: PixelSource,
    batch_size: usize,
    prefetch: usize,
    on_bad_image: OnBadImage,
}

impl Loader {
    /// A loader with batches of 32, two of them ahead, that stops at the first bad image and keeps nothing.
    ///
    /// # Errors
    /// [`Error::Invalid`] for impossible preprocessing.
    pub fn new(preprocess: Preprocess) -> Result<Self> {
        preprocess.validate()?;
        let source = PixelSource { preprocess, cache: None };
        Ok(Self { source, batch_size: 32, prefetch: 2, on_bad_image: OnBadImage::Fail })
    }

    /// Sets the number of images of a batch, at least 1; the last batch may be smaller.
    pub fn with_batch_size(mut self, images: usize) -> Self {
        self.batch_size = images.max(1);
        self
    }

    /// Sets how many batches wait for the consumer, at least 1.
    pub fn with_prefetch(mut self, batches: usize) -> Self {
        self.prefetch = batches.max(1);
        self
    }

    /// Sets what happens to images that cannot be decoded.
    pub fn with_on_bad_image(mut self, policy: OnBadImage) -> Self {
        self.on_bad_image = policy;
        self
    }

    /// Keeps decoded images up to so many bytes for later runs of this loader and its clones; 0 keeps none.
    pub fn with_cache_bytes(mut self, bytes: usize) -> Self {
        self.source.cache = (bytes > 0).then(|| Arc::new(ImageCache::new(bytes)));
        self
    }

    /// The preprocessing of the centre view.
    pub fn preprocess(&self) -> &Preprocess {
        &self.source.preprocess
    }

    /// The cache, where there is one.
    pub fn cache(&self) -> Option<&ImageCache> {
        self.source.cache.as_deref()
    }

    /// Loads the centre view of one image as a batch of one, its index being 0.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::BadImage`], whatever the policy.
    pub fn load_one(&self, path: &Path) -> Result<ImageBatch> {
        let pixels = self.source.centre(path)?;
        Ok(ImageBatch { indices: vec![0], pixels, shape: self.shape(1) })
    }

    /// Loads all jobs and calls `consumer` with batch after batch in the order of the jobs, on the calling thread.
    ///
    /// Returns the images left out, in that order; under [`OnBadImage::Fail`] there are none. A batch from which
    /// images were left out is smaller than the others; an empty one is not handed over.
    ///
    /// # Errors
    /// The consumer's first error, or that of the first bad image in the order of the jobs, after the batches before
    /// it. Decoding stops in both cases.
    pub fn run<E, F>(&self, jobs: &[ImageJob], consumer: F) -> Result<Vec<BadImage>, E>
    where
        E: From<Error>,
        F: FnMut(ImageBatch) -> Result<(), E>,
    {
        self.run_with(&ReadAhead::of(jobs.iter().map(slice)), jobs, consumer)
    }

    /// As [`run`](Self::run), with what is read of volumes ahead of the jobs.
    pub(super) fn run_with<E, F>(
        &self,
        ahead: &ReadAhead,
        jobs: &[ImageJob],
        mut consumer: F,
    ) -> Result<Vec<BadImage>, E>
    where
        E: From<Error>,
        F: FnMut(ImageBatch) -> Result<(), E>,
    {
        let stop = AtomicBool::new(false);
        if rayon::current_thread_index().is_some() {
            // Waiting inside a pool's own thread could block the very decoding that is waited for.
            let mut left_out = Vec::new();
            for part in parts(jobs.len(), self.batch_size) {
                for delivery in self.decode(jobs, part, ahead, &stop) {
                    consumer_step(delivery?, &mut consumer, &mut left_out)?;
                }
            }
            return Ok(left_out);
        }
        thread::scope(|scope| {
            let (sender, receiver) = sync_channel(self.prefetch);
            let stop = &stop;
            scope.spawn(move || self.produce(jobs, ahead, &sender, stop));
            // Whatever ends this scope, a panic of the consumer included, ends the producer as well: its next send
            // fails once the receiver is gone.
            let _stop_at_the_end = StopOnDrop(stop);
            let mut left_out = Vec::new();
            for delivery in receiver {
                consumer_step(delivery?, &mut consumer, &mut left_out)?;
            }
            Ok(left_out)
        })
    }

    /// Decodes part after part until all are sent or nobody listens.
    fn produce(&self, jobs: &[ImageJob], ahead: &ReadAhead, sender: &SyncSender<Result<Delivery>>, stop: &AtomicBool) {
        // Small batches are decoded several at a time, so that every core has work.
        let batches = (2 * rayon::current_num_threads()).div_ceil(self.batch_size);
        for part in parts(jobs.len(), batches * self.batch_size) {
            for delivery in self.decode(jobs, part, ahead, stop) {
                let failed = delivery.is_err();
                if sender.send(delivery).is_err() || failed {
                    return;
                }
            }
        }
    }

    /// Decodes a part of the jobs in parallel into batches; after an error nothing follows.
    fn decode(
        &self,
        jobs: &[ImageJob],
        part: Range<usize>,
        ahead: &ReadAhead,
        stop: &AtomicBool,
    ) -> Vec<Result<Delivery>> {
        let first_failure = Mutex::new(usize::MAX);
        let groups = groups(part.clone(), |at| slice(&jobs[at]), |left, right| together(&jobs[left], &jobs[right]));
        let outcomes: Vec<(usize, Result<Vec<f32>>)> = groups
            .par_iter()
            .flat_map(|group| {
                let past_failure = || first_failure.lock().is_ok_and(|first| group.first() > *first);
                if stop.load(Ordering::Relaxed) || past_failure() {
                    return Vec::new();
                }
                let outcomes = self.source.load(jobs, group, ahead);
                let failed = outcomes.iter().filter(|(_, outcome)| outcome.is_err()).map(|(place, _)| *place).min();
                if let Some(failed) = failed
                    && self.on_bad_image == OnBadImage::Fail
                    && let Ok(mut first) = first_failure.lock()
                {
                    *first = failed.min(*first);
                }
                outcomes
            })
            .collect();
        let mut loaded: Vec<Option<Result<Vec<f32>>>> = part.clone().map(|_| None).collect();
        for (place, outcome) in outcomes {
            loaded[place - part.start] = Some(outcome);
        }
        let mut deliveries = Vec::new();
        let mut loaded = loaded.into_iter();
        for batch in jobs[part].chunks(self.batch_size) {
            let mut pixels = Vec::with_capacity(batch.len() * self.source.preprocess.values_per_image());
            let (mut indices, mut left_out) = (Vec::with_capacity(batch.len()), Vec::new());
            for (job, outcome) in batch.iter().zip(loaded.by_ref().take(batch.len())) {
                match outcome {
                    None => return deliveries,
                    Some(Ok(values)) => {
                        indices.push(job.index);
                        pixels.extend_from_slice(&values);
                    }
                    Some(Err(error)) if self.on_bad_image == OnBadImage::Skip => {
                        let reason = match error {
                            Error::BadImage { reason, .. } => reason,
                            other => other.to_string(),
                        };
                        left_out.push(BadImage { path: job.path.clone(), reason });
                    }
                    Some(Err(error)) => {
                        deliveries.push(Err(error));
                        return deliveries;
                    }
                }
            }
            let shape = self.shape(indices.len());
            deliveries.push(Ok(Delivery { batch: ImageBatch { indices, pixels, shape }, left_out }));
        }
        deliveries
    }

    fn shape(&self, images: usize) -> [usize; 4] {
        let crop = self.source.preprocess.crop;
        [images, 3, crop.height as usize, crop.width as usize]
    }
}

/// `0..count` in parts of a size.
fn parts(count: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
    (0..count).step_by(size).map(move |start| start..count.min(start + size))
}

/// What the decoding thread sends: a batch and what is missing from it.
struct Delivery {
    batch: ImageBatch,
    left_out: Vec<BadImage>,
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn consumer_step<E>(
    delivery: Delivery,
    consumer: &mut impl FnMut(ImageBatch) -> Result<(), E>,
    left_out: &mut Vec<BadImage>,
) -> Result<(), E> {
    left_out.extend(delivery.left_out);
    if delivery.batch.indices.is_empty() { Ok(()) } else { consumer(delivery.batch) }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    use ::image::{Rgb, RgbImage};

    use super::{ImageBatch, ImageJob, Loader, OnBadImage};
    use crate::error::{Error, Result};
    use crate::image::{Augment, Preprocess, View};
    use crate::seed::Seed;

    /// Eleven grey images, the level being ten times the index; those of `broken` are no images.
    fn jobs(folder: &Path, broken: &[usize]) -> Vec<ImageJob> {
        let job = |index: usize| {
            let path: PathBuf = folder.join(format!("{index}.png"));
            if broken.contains(&index) {
                std::fs::write(&path, b"no image").unwrap();
            } else {
                RgbImage::from_pixel(9, 7, Rgb([10 * index as u8; 3])).save(&path).unwrap();
            }
            ImageJob { index, path, frame: None, bytes: None, view: View::Centre }
        };
        (0..11).map(job).collect()
    }

    fn loader() -> Loader {
        let plain = Preprocess { rescale: 1.0, mean: [0.0; 3], std: [1.0; 3], ..Preprocess::clip(4) };
        Loader::new(plain).unwrap().with_batch_size(3)
    }

    #[test]
    fn batches_come_in_order_with_the_right_pixels() {
        let folder = tempfile::tempdir().unwrap();
        let jobs = jobs(folder.path(), &[]);
        let consume = || {
            let mut seen = Vec::new();
            let left_out = loader().run(&jobs, |batch| -> Result<()> {
                assert_eq!(batch.shape, [batch.indices.len(), 3, 4, 4]);
                for (index, pixels) in batch.indices.iter().zip(batch.pixels.chunks(48)) {
                    assert!(pixels.iter().all(|&value| value == 10.0 * *index as f32));
                    seen.push(*index);
                }
                Ok(())
            });
            assert_eq!((left_out.unwrap(), seen), (vec![], (0..11).collect::<Vec<_>>()));
        };
        consume();
        rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(consume);
    }

    #[test]
    fn fail_names_the_first_bad_file_and_skip_lists_all() {
        let folder = tempfile::tempdir().unwrap();
        let jobs = jobs(folder.path(), &[4, 6, 7, 8]);
        let mut seen = Vec::new();
        let error = loader().run(&jobs, |batch| -> Result<()> {
            seen.extend(batch.indices);
            Ok(())
        });
        assert!(matches!(error, Err(Error::BadImage { path, .. }) if path.ends_with("4.png")));
        assert_eq!(seen, [0, 1, 2]);
        seen.clear();
        let left_out = loader().with_on_bad_image(OnBadImage::Skip).run(&jobs, |batch| -> Result<()> {
            seen.extend(batch.indices);
            Ok(())
        });
        let names: Vec<PathBuf> = left_out.unwrap().into_iter().map(|bad| bad.path).collect();
        assert_eq!(names, [4, 6, 7, 8].map(|index| jobs[index].path.clone()));
        assert_eq!(seen, [0, 1, 2, 3, 5, 9, 10]);
    }

    #[test]
    fn a_failing_or_panicking_consumer_ends_the_run() {
        let folder = tempfile::tempdir().unwrap();
        let jobs = jobs(folder.path(), &[]);
        let mut calls = 0;
        let error = loader().with_batch_size(1).with_prefetch(1).run(&jobs, |_| {
            calls += 1;
            Err(Error::invalid("consumer", "stop"))
        });
        assert!(matches!(error, Err(Error::Invalid { .. })) && calls == 1);
        let run = || loader().with_batch_size(1).run(&jobs, |_| -> Result<()> { panic!("consumer") });
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
    }

    #[test]
    fn cached_images_outlive_their_files_and_views_differ_by_seed() {
        let folder = tempfile::tempdir().unwrap();
        let mut jobs = jobs(folder.path(), &[]);
        let photo = RgbImage::from_fn(40, 30, |x, y| Rgb([(x * 6) as u8, (y * 8) as u8, (x * y % 256) as u8]));
        photo.save(&jobs[0].path).unwrap();
        let loader = loader().with_cache_bytes(1 << 20);
        let augment = Arc::new(Augment::clip());
        let mut views = Vec::new();
        for seed in [1, 2, 1] {
            jobs[0].view = View::Augmented { augment: Arc::clone(&augment), seed: Seed::new(seed) };
            let keep = |batch: ImageBatch| -> Result<()> {
                views.push(batch.pixels);
                Ok(())
            };
            loader.run(&jobs[..1], keep).unwrap();
            let _ = std::fs::remove_file(&jobs[0].path);
        }
        assert_eq!(views[0], views[2]);
        assert_ne!(views[0], views[1]);
        assert_eq!(loader.cache().map(|cache| cache.len()), Some(1));
        assert_eq!(loader.load_one(&jobs[1].path).unwrap().shape, [1, 3, 4, 4]);
    }

    #[test]
    fn bytes_at_hand_are_read_as_the_file_would_be_and_damaged_ones_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let files = jobs(folder.path(), &[]);
        let pixels = |jobs: &[ImageJob]| -> Result<Vec<f32>> {
            let mut pixels = Vec::new();
            loader().with_cache_bytes(1 << 20).run(jobs, |batch: ImageBatch| -> Result<()> {
                pixels.extend(batch.pixels);
                Ok(())
            })?;
            Ok(pixels)
        };
        let expected = pixels(&files).unwrap();
        let mut held = files.clone();
        for job in &mut held {
            job.bytes = Some(std::fs::read(&job.path).unwrap().into());
            // A frame of a file of this name would be another thing; a name is only a name.
            job.path = format!("nowhere/{}.dcm#3", job.index).into();
        }
        assert_eq!(pixels(&held).unwrap(), expected);
        held[4].bytes = Some((*b"no image").into());
        match pixels(&held) {
            Err(Error::BadImage { path, .. }) => assert_eq!(path, held[4].path),
            other => panic!("{other:?}"),
        }
    }
}
