//! One frame of an image file, shown in one window, named by a path: `scan.dcm#3`, `volume.nii.gz#17;40:400`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::window::Window;
use crate::error::{Error, Result};

/// Which frame of a file is meant; frames are counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Frame {
    /// The one in the middle: the only one of most files.
    #[default]
    Middle,
    /// One by its number.
    Number(u32),
    /// Each of them, an image of its own.
    All,
}

impl FromStr for Frame {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "middle" => Ok(Self::Middle),
            "all" | "*" => Ok(Self::All),
            _ => text.parse().ok().filter(|number| *number > 0).map(Self::Number).ok_or_else(|| {
                let reason = format!("`{text}` is none; expected `middle`, `all` or a number from 1 on");
                Error::invalid("frame", reason)
            }),
        }
    }
}

impl TryFrom<String> for Frame {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Frame> for String {
    fn from(frame: Frame) -> Self {
        frame.to_string()
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Middle => f.write_str("middle"),
            Self::All => f.write_str("all"),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

/// A file, a frame of it, and the window that it is shown in.
///
/// As a path it is the file's, then `#`, then the frame (a number or `*`) and the window, separated by `;` where both are
/// there. A `#` counts behind the extension of an image, so that folders and files may have it in their names; behind another
/// name, as those of DICOM files often are, where there is a file of that name and nothing of the whole.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageAddress {
    /// The file.
    pub file: PathBuf,
    /// The frame.
    pub frame: Frame,
    /// The window; without one that of the file, or the whole range.
    pub window: Option<Window>,
}

impl ImageAddress {
    /// What a path says.
    pub fn of(path: &Path) -> Self {
        let whole = || Self { file: path.to_path_buf(), frame: Frame::Middle, window: None };
        let Some((file, parts)) = path.to_str().and_then(|text| text.rsplit_once('#')) else { return whole() };
        if !is_image_name(Path::new(file)) && (!Path::new(file).is_file() || path.exists()) {
            return whole();
        }
        let mut address = Self { file: file.into(), ..whole() };
        for part in parts.split(';') {
            // `all` and `middle` are words of settings, not of addresses.
            let is_frame = part == "*" || part.bytes().all(|byte| byte.is_ascii_digit());
            match (is_frame, part.parse(), part.parse()) {
                (true, Ok(frame), _) => address.frame = frame,
                (false, _, Ok(window)) => address.window = Some(window),
                _ => return whole(),
            }
        }
        address
    }

    /// The path that says this.
    pub fn path(&self) -> PathBuf {
        let frame = match self.frame {
            Frame::Middle => None,
            Frame::Number(number) => Some(number.to_string()),
            Frame::All => Some("*".into()),
        };
        let parts: Vec<String> = frame.into_iter().chain(self.window.map(|window| window.to_string())).collect();
        if parts.is_empty() {
            return self.file.clone();
        }
        let mut path = self.file.clone().into_os_string();
        path.push(format!("#{}", parts.join(";")));
        path.into()
    }
}

/// Extensions of the image formats that can be decoded.
pub(crate) const EXTENSIONS: [&str; 17] = [
    "jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "pbm", "pgm", "ppm", "pnm", "dcm", "dicom", "nii", "gz",
    "svs",
];

/// Whether a file's name says that it is an image of a format that can be decoded.
pub fn is_image_name(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()).map(str::to_ascii_lowercase) else { return false };
    match name.rsplit_once('.') {
        // Other files are compressed too.
        Some((stem, "gz")) => stem.ends_with(".nii"),
        Some((_, extension)) => EXTENSIONS.contains(&extension),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Frame, ImageAddress, is_image_name};

    #[test]
    fn addresses_are_read_and_written() {
        for (path, file, frame, window) in [
            ("a/scan.dcm", "a/scan.dcm", Frame::Middle, None),
            ("a/scan.dcm#3", "a/scan.dcm", Frame::Number(3), None),
            ("v.nii.gz#*", "v.nii.gz", Frame::All, None),
            ("v.NII#17;40:400", "v.NII", Frame::Number(17), Some("40:400")),
            ("deep.png#p1:99", "deep.png", Frame::Middle, Some("p1:99")),
            // Names, not addresses.
            ("a#3/b.png", "a#3/b.png", Frame::Middle, None),
            ("scan.dcm#0", "scan.dcm#0", Frame::Middle, None),
            ("scan.dcm#left", "scan.dcm#left", Frame::Middle, None),
            ("notes#3", "notes#3", Frame::Middle, None),
            ("photo#2.jpg", "photo#2.jpg", Frame::Middle, None),
        ] {
            let address = ImageAddress::of(Path::new(path));
            let found = address.window.map(|window| window.to_string());
            assert_eq!(
                (address.file.as_path(), address.frame, found.as_deref()),
                (Path::new(file), frame, window),
                "{path}"
            );
            assert_eq!(address.path(), Path::new(path));
        }
    }

    #[test]
    fn behind_a_name_without_extension_an_address_is_of_a_file_that_is_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        for name in ["IM0001", "1.2.840.55", "IM0001#4"] {
            std::fs::write(path(name), b"x").expect("written");
        }
        std::fs::create_dir(path("clip")).expect("made");
        for (name, file) in [
            ("IM0001#3", "IM0001"),
            ("1.2.840.55#3", "1.2.840.55"),
            ("IM0001#4", "IM0001#4"),
            ("IM0002#3", "IM0002#3"),
            ("clip#3", "clip#3"),
        ] {
            let address = ImageAddress::of(&path(name));
            let frame = if file == name { Frame::Middle } else { Frame::Number(3) };
            assert_eq!((address.file.clone(), address.frame), (path(file), frame), "{name}");
            assert_eq!(address.path(), path(name));
        }
    }

    #[test]
    fn compressed_volumes_are_images_and_other_archives_are_not() {
        for (name, image) in [("a.nii.gz", true), ("a.NII.GZ", true), ("a.tar.gz", false), ("gz", false), ("a", false)]
        {
            assert_eq!(is_image_name(Path::new(name)), image, "{name}");
        }
    }
}
