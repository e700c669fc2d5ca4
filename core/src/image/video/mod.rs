//! Video files: H.264 in MP4 and QuickTime, each a clip, behind the cargo feature `video`.

use std::path::Path;

use ::image::RgbImage;

use super::guard::bad;
use crate::error::{Error, Result};

#[cfg(feature = "video")]
mod boxes;
#[cfg(feature = "video")]
mod film;
#[cfg(feature = "video")]
mod parameters;
#[cfg(feature = "video")]
mod picture;
#[cfg(feature = "video")]
mod track;

/// Extensions of video files.
const EXTENSIONS: [&str; 3] = ["mp4", "m4v", "mov"];

/// Whether a file's name says that it is a video.
pub fn is_video_name(path: &Path) -> bool {
    path.extension().is_some_and(|found| EXTENSIONS.iter().any(|known| found.eq_ignore_ascii_case(known)))
}

/// Whether this binary decodes video files: the cargo feature `video`.
pub fn decodes_video() -> bool {
    cfg!(feature = "video")
}

/// How many frames a video has, by what its container says: those that a player shows. None is decoded.
///
/// # Errors
/// [`Error::Io`]; [`Error::BadImage`] for a file that is cut short, damaged, or no MP4 with H.264, and for any without
/// the feature.
#[cfg(feature = "video")]
pub(super) fn video_frames(path: &Path) -> Result<usize> {
    let mut file = std::fs::File::open(path).map_err(Error::io("read", path))?;
    super::guard::caught(path, false, || Ok(track::Track::read(&mut file)?.shown.len()))
}

/// The frames `wanted` of a video, in that order, counted as a player shows them.
///
/// # Errors
/// As [`video_frames`], and for a frame that is damaged or not there.
#[cfg(feature = "video")]
pub(super) fn decode_video(path: &Path, wanted: &[usize]) -> Result<Vec<RgbImage>> {
    let file = std::fs::File::open(path).map_err(Error::io("read", path))?;
    super::guard::caught(path, false, || film::decode(file, wanted))
}

/// Without the feature no video has frames.
#[cfg(not(feature = "video"))]
pub(super) fn video_frames(path: &Path) -> Result<usize> {
    std::fs::metadata(path).map_err(Error::io("read", path))?;
    let (file, folder) = (path.display(), path.with_extension(""));
    let folder = folder.display();
    let frames = format!("`mkdir {folder} && ffmpeg -i {file} -vf fps=8 {folder}/%05d.jpg`");
    Err(bad(
        path,
        format!("it is a video, and this binary decodes none: build with `--features video`, or make frames: {frames}"),
    ))
}

/// Without the feature no video has frames.
#[cfg(not(feature = "video"))]
pub(super) fn decode_video(path: &Path, _: &[usize]) -> Result<Vec<RgbImage>> {
    video_frames(path).map(|_| Vec::new())
}

/// Why a video is no image: it is damaged, videos are not decoded here, or one image is needed.
pub(super) fn no_image(path: &Path) -> Error {
    match video_frames(path) {
        Ok(frames) => bad(path, format!("it is a video of {frames} frames, where an image is needed")),
        Err(error) => error,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{decodes_video, is_video_name, video_frames};

    #[test]
    fn videos_are_known_by_their_names_and_missing_ones_are_named() {
        for (name, video) in [("a.mp4", true), ("a.MOV", true), ("a.m4v", true), ("mp4", false), ("a.gif", false)] {
            assert_eq!(is_video_name(Path::new(name)), video, "{name}");
        }
        let error = video_frames(Path::new("no/such.mp4")).expect_err("no file").to_string();
        assert!(error.contains("cannot read `no/such.mp4`"), "{error}");
    }

    #[test]
    fn what_is_no_video_is_an_error_that_names_it_and_a_cure() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("clip.mp4");
        std::fs::write(&path, b"plain text, nothing else").expect("written");
        let error = video_frames(&path).expect_err("no video").to_string();
        let words = match decodes_video() {
            true => ["clip.mp4", "does not begin as an MP4"],
            false => ["--features video", "ffmpeg -i "],
        };
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
}
