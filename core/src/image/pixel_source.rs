//! From jobs to normalised pixels: files are opened once for the jobs that can share what is in them.

use std::path::Path;
use std::sync::Arc;

use ::image::RgbImage;
use rayon::prelude::*;

use super::address::ImageAddress;
use super::animation::decode_frames;
use super::cache::ImageCache;
use super::decode::{decode_image, decode_image_bytes};
use super::job::{ImageJob, View};
use super::preprocess::Preprocess;
use super::read_ahead::{Group, ReadAhead};
use super::volume::{Volume, slice_address};
use crate::error::{Error, Result};

/// Whether the next job is best loaded with the one before it: frames of one animation file, because to find the last means
/// to go through all before it.
pub(super) fn together(left: &ImageJob, right: &ImageJob) -> bool {
    left.frame.is_some() && right.frame.is_some() && left.path == right.path
}

/// The slice of a volume that a job shows; `None` for other images.
pub(super) fn slice(job: &ImageJob) -> Option<ImageAddress> {
    if job.frame.is_none() && job.bytes.is_none() { slice_address(&job.path) } else { None }
}

/// Where pixels come from: files, or the cache.
#[derive(Debug, Clone)]
pub(super) struct PixelSource {
    pub(super) preprocess: Preprocess,
    pub(super) cache: Option<Arc<ImageCache>>,
}

impl PixelSource {
    /// The centre view of a file that is one image.
    pub(super) fn centre(&self, path: &Path) -> Result<Vec<f32>> {
        self.preprocess.pixels(self.image(path, None)?.as_ref())
    }

    /// Loads those of `jobs` that are a group; each with its place.
    pub(super) fn load(&self, jobs: &[ImageJob], group: &Group, ahead: &ReadAhead) -> Vec<(usize, Result<Vec<f32>>)> {
        match group {
            Group::Slices(slices) => self.slices(jobs, slices, ahead),
            Group::Run(run) => run.clone().zip(self.follow(&jobs[run.clone()])).collect(),
        }
    }

    /// Loads a job, or frames of one animation file.
    fn follow(&self, group: &[ImageJob]) -> Vec<Result<Vec<f32>>> {
        match group {
            [job] if job.frame.is_none() => {
                vec![self.image(&job.path, job.bytes.as_deref()).and_then(|image| self.view(job, &image))]
            }
            _ => match self.frames(group) {
                Ok(frames) => group.iter().zip(frames).map(|(job, image)| self.view(job, &image)).collect(),
                Err(fault) => {
                    // One fault for all of them; an error cannot be copied.
                    let reason = fault.to_string();
                    let bad = |job: &ImageJob| Error::BadImage { path: job.path.clone(), reason: reason.clone() };
                    let rest: Vec<_> = group.iter().skip(1).map(|job| Err(bad(job))).collect();
                    std::iter::once(Err(fault)).chain(rest).collect()
                }
            },
        }
    }

    fn view(&self, job: &ImageJob, image: &RgbImage) -> Result<Vec<f32>> {
        match &job.view {
            View::Centre => self.preprocess.pixels(image),
            View::Crop(place) => Ok(self.preprocess.normalise(&self.preprocess.resize_and_crop_at(image, *place)?)),
            View::Augmented { augment, seed } => {
                Ok(self.preprocess.normalise(&augment.apply(image, &self.preprocess, *seed)?))
            }
        }
    }

    fn held(&self, path: &Path, frame: Option<usize>) -> Option<Arc<RgbImage>> {
        self.cache.as_ref().and_then(|cache| cache.get(path, frame))
    }

    fn offer(&self, path: &Path, frame: Option<usize>, image: &Arc<RgbImage>) {
        if let Some(cache) = &self.cache {
            cache.offer(path, frame, image);
        }
    }

    fn image(&self, path: &Path, bytes: Option<&[u8]>) -> Result<Arc<RgbImage>> {
        if let Some(image) = self.held(path, None) {
            return Ok(image);
        }
        let image = Arc::new(match bytes {
            Some(bytes) => decode_image_bytes(bytes, path)?,
            None => decode_image(path)?,
        });
        self.offer(path, None, &image);
        Ok(image)
    }

    /// Frames of one animation file.
    fn frames(&self, jobs: &[ImageJob]) -> Result<Vec<Arc<RgbImage>>> {
        let held: Option<Vec<_>> = jobs.iter().map(|job| self.held(&job.path, job.frame)).collect();
        if let Some(held) = held {
            return Ok(held);
        }
        // A short clip repeats frames, which then share their pixels.
        let mut wanted: Vec<usize> = jobs.iter().filter_map(|job| job.frame).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let frames: Vec<_> = decode_frames(&jobs[0].path, &wanted)?.into_iter().map(Arc::new).collect();
        let shown = |job: &ImageJob| {
            let place = wanted.binary_search(&job.frame?).ok()?;
            self.offer(&job.path, job.frame, &frames[place]);
            Some(frames[place].clone())
        };
        Ok(jobs.iter().filter_map(shown).collect())
    }

    /// Slices of one volume, each with its place among the jobs.
    fn slices(
        &self,
        jobs: &[ImageJob],
        slices: &[(usize, ImageAddress)],
        ahead: &ReadAhead,
    ) -> Vec<(usize, Result<Vec<f32>>)> {
        let (mut held, mut unread) = (Vec::new(), Vec::new());
        for (at, address) in slices {
            match self.held(&jobs[*at].path, None) {
                Some(image) => held.push((*at, image)),
                None => unread.push((*at, address.clone())),
            }
        }
        let mut shown: Vec<(usize, Result<Vec<f32>>)> =
            held.par_iter().map(|(at, image)| (*at, self.view(&jobs[*at], image))).collect();
        let show = |at: usize, volume: &Volume, address: &ImageAddress| {
            let pixels = volume.picture(&jobs[at].path, address).and_then(|image| {
                let image = Arc::new(image);
                self.offer(&jobs[at].path, None, &image);
                self.view(&jobs[at], &image)
            });
            (at, pixels)
        };
        shown.extend(ahead.each_slice(&unread, |at| self.held(&jobs[at].path, None).is_none(), show));
        shown
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ::image::codecs::gif::GifEncoder;
    use ::image::{Frame, Rgba, RgbaImage};

    use super::{ImageJob, PixelSource};
    use crate::image::{Preprocess, View};

    #[test]
    fn frames_that_a_clip_repeats_share_their_pixels() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("clip.gif");
        let mut encoder = GifEncoder::new(std::fs::File::create(&path).expect("created"));
        let frame = |level: u8| Frame::new(RgbaImage::from_pixel(3, 3, Rgba([level, 0, 0, 255])));
        encoder.encode_frames([frame(10), frame(200)]).expect("encoded");
        drop(encoder);
        let job = |(index, frame)| ImageJob {
            index,
            path: path.clone(),
            frame: Some(frame),
            bytes: None,
            view: View::Centre,
        };
        let jobs: Vec<ImageJob> = [1, 0, 0, 1].into_iter().enumerate().map(job).collect();
        let frames = PixelSource { preprocess: Preprocess::clip(4), cache: None }.frames(&jobs).expect("frames");
        let levels: Vec<bool> = frames.iter().map(|frame| frame.get_pixel(1, 1).0[0] > 100).collect();
        assert_eq!(levels, [true, false, false, true]);
        assert!(Arc::ptr_eq(&frames[0], &frames[3]) && Arc::ptr_eq(&frames[1], &frames[2]));
    }
}
