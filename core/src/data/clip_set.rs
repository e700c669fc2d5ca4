//! When a data set holds clips.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use super::clip::{Clip, is_animation_name, numbered};
use super::clip_config::ClipConfig;
use super::dataset::{Dataset, Source};
use crate::error::{Error, Result};
use crate::image::{animation_frames, is_image_name, is_video_name};

impl Dataset {
    /// Whether it can hold nothing but clips: paths that are folders, or nothing but videos and GIFs some of which move.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a video among still images, [`Error::BadImage`] for one that cannot be decoded.
    pub(super) fn holds_clips(&self, origin: &Path) -> Result<bool> {
        let paths = || {
            self.examples().filter_map(|(_, example)| match &example.source {
                Source::Image(path) => Some(path),
                Source::Bytes(..) | Source::Clip(_) | Source::Row(_) => None,
            })
        };
        if paths().any(|path| !is_image_name(path) && path.is_dir()) {
            return Ok(true);
        }
        let video = paths().find(|path| is_video_name(path));
        if !paths().all(|path| is_animation_name(path)) {
            let Some(video) = video else { return Ok(false) };
            // Where none can be decoded that is what to say.
            animation_frames(video)?;
            let reason = format!(
                "`{}` is a video among images; to read all as clips say `--frames T` (`clips.frames` in a recipe), or \
                 take it out",
                video.display()
            );
            return Err(Error::malformed("data set", origin, reason));
        }
        if video.is_some() {
            return Ok(true);
        }
        // The first that moves decides; a file that is no GIF is an error of its own, later.
        Ok(paths().any(|path| animation_frames(path).is_ok_and(|frames| frames > 1)))
    }

    /// The same data read as clips: folders, GIFs and videos become clips, other images stand still.
    pub(super) fn into_clips(mut self, config: ClipConfig) -> Result<Self> {
        for split in [&mut self.train, &mut self.val, &mut self.test] {
            for example in split {
                if let Source::Image(path) = &example.source
                    && let Some(clip) = Clip::open(path)?
                {
                    example.source = Source::Clip(clip);
                }
            }
        }
        self.clips = Some(config);
        Ok(self)
    }

    /// Whether any example has more than one frame.
    pub(super) fn moves(&self) -> bool {
        self.examples().any(|(_, example)| matches!(&example.source, Source::Clip(clip) if clip.len() > 1))
    }

    /// Whether still images may be meant as clips: every one lies in a folder of its own below its class folder, beside others
    /// whose names differ by consecutive numbers only. Whether they are nobody but the user knows.
    pub fn may_be_clips(&self) -> bool {
        let mut folders: HashMap<&Path, (BTreeSet<u64>, String, usize)> = HashMap::new();
        for (_, example) in self.examples() {
            let Source::Image(path) = &example.source else { return false };
            let class = self.classes.get(example.label).map_or("", String::as_str);
            // Split and class aside, a folder and a file are left.
            let below = example.id.split('/').skip_while(|part| *part != class).count();
            let (Some(folder), Some((stem, number)), true) = (path.parent(), numbered(path), below > 2) else {
                return false;
            };
            let (numbers, first, count) = folders.entry(folder).or_insert_with(|| (BTreeSet::new(), stem.clone(), 0));
            if *first != stem || !numbers.insert(number) {
                return false;
            }
            *count += 1;
        }
        let consecutive = |(numbers, _, count): &(BTreeSet<u64>, String, usize)| {
            let span = numbers.last().zip(numbers.first()).map_or(0, |(last, first)| last - first);
            *count > 1 && span + 1 == *count as u64
        };
        !folders.is_empty() && folders.values().all(consecutive)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ::image::codecs::gif::GifEncoder;
    use ::image::{Frame, Rgba, RgbaImage};

    use crate::data::{ClipConfig, DataOptions, Dataset, Source, open_dataset, open_dataset_with};

    fn write(path: &Path, bytes: &[u8]) {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, bytes).expect("written");
    }

    fn gif(path: &Path, frames: u8) {
        let mut bytes = Vec::new();
        let mut encoder = GifEncoder::new(&mut bytes);
        let frame = |level: u8| Frame::new(RgbaImage::from_pixel(3, 3, Rgba([level, 0, 0, 255])));
        encoder.encode_frames((0..frames).map(|at| frame(50 * at))).expect("encoded");
        drop(encoder);
        write(path, &bytes);
    }

    fn lengths(dataset: &Dataset) -> Vec<usize> {
        let length = |source: &Source| match source {
            Source::Clip(clip) => clip.len(),
            Source::Image(_) | Source::Bytes(..) | Source::Row(_) => 0,
        };
        dataset.examples().map(|(_, example)| length(&example.source)).collect()
    }

    #[test]
    fn what_can_only_be_clips_needs_no_setting() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        for name in ["a/1", "b/2"] {
            for frame in 0..3 {
                write(&root.join(format!("frames/{name}/{frame}.png")), b"x");
            }
        }
        write(&root.join("frames/list.csv"), b"path,label,split\na/1,a,train\nb/2,b,train\n");
        let listed = open_dataset(&root.join("frames/list.csv"), None).expect("clips");
        assert_eq!((lengths(&listed), listed.clips), (vec![3, 3], Some(ClipConfig::default())));
        // A window is nothing that a folder is called by.
        let window = DataOptions { window: "full".parse().ok(), ..DataOptions::default() };
        let listed = open_dataset_with(&root.join("frames/list.csv"), &window).expect("clips");
        assert_eq!(lengths(&listed), [3, 3]);

        // The same folders could be images in folders of their own.
        let images = open_dataset(&root.join("frames"), None).expect("images");
        assert_eq!((images.clips.is_some(), images.examples().count(), images.may_be_clips()), (false, 6, true));
        let config = ClipConfig { frames: 2, ..ClipConfig::default() };
        let wanted = DataOptions { clips: Some(config.clone()), ..DataOptions::default() };
        let clips = open_dataset_with(&root.join("frames"), &wanted).expect("clips");
        assert_eq!((lengths(&clips), &clips.clips), (vec![3, 3], &Some(config)));

        gif(&root.join("gifs/a/1.gif"), 1);
        gif(&root.join("gifs/b/2.gif"), 1);
        assert_eq!(open_dataset(&root.join("gifs"), None).expect("images").clips, None);
        let error = open_dataset_with(&root.join("gifs"), &wanted).expect_err("still").to_string();
        assert!(error.contains("nothing in it has more than one frame"), "{error}");
        gif(&root.join("gifs/b/3.gif"), 4);
        let moving = open_dataset(&root.join("gifs"), None).expect("clips");
        assert_eq!((lengths(&moving).iter().sum::<usize>(), moving.clips.is_some()), (6, true));
    }

    #[test]
    fn only_consecutive_numbers_in_folders_of_their_own_may_be_clips() {
        for (files, expected) in [
            (&["a/1/f1.png", "a/1/f2.png", "b/1/f7.png", "b/1/f8.png"][..], true),
            (&["a/f1.png", "a/f2.png", "b/f1.png", "b/f2.png"], false),
            (&["a/1/f1.png", "a/1/f3.png", "b/1/f1.png", "b/1/f2.png"], false),
            (&["a/1/f1.png", "a/1/g2.png", "b/1/f1.png", "b/1/f2.png"], false),
            (&["a/1/f1.png", "a/1/f2.png", "b/f1.png", "b/1/f2.png"], false),
        ] {
            let folder = tempfile::tempdir().expect("a folder");
            files.iter().for_each(|file| write(&folder.path().join(file), b"x"));
            let dataset = open_dataset(folder.path(), None).expect("images");
            assert_eq!(dataset.may_be_clips(), expected, "{files:?}");
        }
    }
}
