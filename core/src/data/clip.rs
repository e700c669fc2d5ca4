//! Clips: where their frames are, in the order of time.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::file;
use crate::image::{animation_frames, is_image_name, is_video_name};

/// One frame: an image file, or a frame of an animation file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// The file.
    pub path: PathBuf,
    /// Which frame of an animation; `None` for a file that is read as one image.
    pub frame: Option<usize>,
    /// The file's content where it is at hand; the path is a name then.
    pub bytes: Option<Arc<[u8]>>,
}

/// The frames of a clip; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Clip {
    /// One file for each frame, in the order of time.
    Files(Arc<[PathBuf]>),
    /// An animated GIF, or a video.
    Animation {
        /// The file.
        path: PathBuf,
        /// How many frames it has.
        frames: usize,
    },
}

impl Clip {
    /// The clip of image files, whose names are put in order; numbers in them count as numbers, so that `frame10` follows
    /// `frame9`. `None` when there is no file.
    pub fn of_files(mut files: Vec<PathBuf>) -> Option<Self> {
        let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        files.sort_by(|left, right| by_number(&name(left), &name(right)));
        (!files.is_empty()).then(|| Self::Files(files.into()))
    }

    /// The clip of a path: a folder of frames, a GIF, or a video. `None` for any other file.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Malformed`] for a folder without images; [`Error::BadImage`] for a GIF or a video that is none,
    /// and for a video without the cargo feature `video`.
    pub fn open(path: &Path) -> Result<Option<Self>> {
        if path.is_dir() {
            let images = file::list(path)?.into_iter().filter(|entry| is_image_name(entry) && !is_hidden(entry));
            let clip = Self::of_files(images.collect());
            let none =
                || Error::malformed("clip", path, "the folder holds no images; a clip is a folder of its frames");
            return clip.ok_or_else(none).map(Some);
        }
        if !is_animation_name(path) {
            return Ok(None);
        }
        Ok(Some(Self::Animation { frames: animation_frames(path)?, path: path.to_path_buf() }))
    }

    /// How many frames it has.
    pub fn len(&self) -> usize {
        match self {
            Self::Files(files) => files.len(),
            Self::Animation { frames, .. } => *frames,
        }
    }

    /// Whether it has no frame, which none that was opened is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Frame `index`, which there must be.
    ///
    /// # Panics
    /// Past the end.
    pub fn picture(&self, index: usize) -> Picture {
        match self {
            Self::Files(files) => Picture { path: files[index].clone(), frame: None, bytes: None },
            Self::Animation { path, .. } => Picture { path: path.clone(), frame: Some(index), bytes: None },
        }
    }

    /// The file of the first frame.
    pub fn path(&self) -> &Path {
        match self {
            Self::Files(files) => &files[0],
            Self::Animation { path, .. } => path,
        }
    }
}

/// Whether a file's name says that it may hold several frames.
pub fn is_animation_name(path: &Path) -> bool {
    is_video_name(path) || path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gif"))
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
}

/// Compares names piece by piece, runs of digits by their value; equal names but for leading zeros by their text.
fn by_number(left: &str, right: &str) -> Ordering {
    let (lefts, rights) = (pieces(left), pieces(right));
    let piece = |(left, right): (&&str, &&str)| {
        let digits = |text: &str| text.starts_with(|first: char| first.is_ascii_digit());
        if digits(left) && digits(right) {
            let (left, right) = (left.trim_start_matches('0'), right.trim_start_matches('0'));
            return left.len().cmp(&right.len()).then_with(|| left.cmp(right));
        }
        left.cmp(right)
    };
    let first = lefts.iter().zip(&rights).map(piece).find(|order| order.is_ne());
    first.unwrap_or_else(|| lefts.len().cmp(&rights.len()).then_with(|| left.cmp(right)))
}

/// Runs of digits and of what is between them.
fn pieces(name: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = name;
    while let Some(first) = rest.chars().next() {
        let digits = first.is_ascii_digit();
        let end = rest.find(|letter: char| letter.is_ascii_digit() != digits).unwrap_or(rest.len());
        let (piece, after) = rest.split_at(end);
        pieces.push(piece);
        rest = after;
    }
    pieces
}

/// The number at the end of a file's name, its extension aside, and what stands before it.
pub(super) fn numbered(path: &Path) -> Option<(String, u64)> {
    let stem = path.file_stem()?.to_str()?;
    let start = stem
        .rfind(|letter: char| !letter.is_ascii_digit())
        .map_or(0, |at| at + stem[at..].chars().next().map_or(1, char::len_utf8));
    Some((stem[..start].to_string(), stem[start..].parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::{Clip, Picture, numbered};

    #[test]
    fn frames_come_in_the_order_of_their_numbers() {
        let names = ["f10.png", "f9.png", "f1.png", "f01.png", "e3b2.png", "e3b10.png"];
        let clip = Clip::of_files(names.iter().map(PathBuf::from).collect()).expect("frames");
        let found: Vec<String> = (0..clip.len()).map(|at| clip.picture(at).path.display().to_string()).collect();
        assert_eq!(found, ["e3b2.png", "e3b10.png", "f01.png", "f1.png", "f9.png", "f10.png"]);
        assert_eq!(clip.path(), Path::new("e3b2.png"));
        assert!(Clip::of_files(Vec::new()).is_none());
        assert_eq!(numbered(Path::new("a/img_é0012.jpg")), Some(("img_é".into(), 12)));
        assert_eq!(numbered(Path::new("a/7.jpg")), Some((String::new(), 7)));
        assert_eq!(numbered(Path::new("a/last.jpg")), None);
    }

    #[test]
    fn a_folder_is_a_clip_and_an_empty_one_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = Clip::open(folder.path()).expect_err("no frame").to_string();
        assert!(error.contains("holds no images"), "{error}");
        for name in ["2.png", "10.png", ".hidden.png", "notes.txt"] {
            std::fs::write(folder.path().join(name), b"x").expect("written");
        }
        let clip = Clip::open(folder.path()).expect("read").expect("a clip");
        assert_eq!(clip.len(), 2);
        assert_eq!(clip.picture(1), Picture { path: folder.path().join("10.png"), frame: None, bytes: None });
        assert_eq!(Clip::open(&folder.path().join("2.png")).expect("read"), None);
        std::fs::write(folder.path().join("a.gif"), b"no gif").expect("written");
        assert!(Clip::open(&folder.path().join("a.gif")).expect_err("no GIF").to_string().contains("a.gif"));
    }
}
