//! A volume of which several slices are wanted, and those of them that were read.

use std::path::Path;

use ::image::RgbImage;

use super::address::{Frame, ImageAddress};
use super::decode::{Request, decode_image, is_volume, read_bounded};
use super::guard::{bad, caught};
use super::nifti::Slices;
use super::room::Room;
use crate::error::{Error, Result};

/// The volume's slice that a path names; `None` for what is by its name no volume, or is no single slice.
pub(super) fn slice_address(path: &Path) -> Option<ImageAddress> {
    let address = ImageAddress::of(path);
    let name = address.file.file_name()?.to_str()?.to_ascii_lowercase();
    ((name.ends_with(".nii") || name.ends_with(".nii.gz")) && address.frame != Frame::All).then_some(address)
}

/// Those slices of a file that were read.
pub(super) enum Volume {
    /// As they are stored.
    Slices(Slices),
    /// Why no slice can be shown.
    Broken(String),
    /// No volume after all, or one that cannot be read: each slice is an image of its own, with an error of its own.
    Apart,
}

impl Volume {
    /// Reads in one pass the slice `first`, and as many of the `later` ones as there is room for: each with the number of slices of the
    /// list from `first` to it.
    pub(super) fn read(first: &ImageAddress, later: impl Iterator<Item = (u64, Frame)>, room: &Room) -> Self {
        let Ok(bytes) = read_bounded(&first.file) else { return Self::Apart };
        let read = || {
            let slices = is_volume(&bytes).then(|| Slices::read(&bytes, &Request::of(first), later, room));
            slices.transpose()
        };
        match caught(&first.file, false, read) {
            Ok(Some(slices)) => Self::Slices(slices),
            Err(Error::BadImage { reason, .. }) => Self::Broken(reason),
            Ok(None) | Err(_) => Self::Apart,
        }
    }

    /// Whether [`picture`](Self::picture) can tell of a frame what the file would.
    pub(super) fn answers(&self, frame: Frame) -> bool {
        match self {
            Self::Slices(slices) => slices.answers(frame),
            Self::Broken(_) | Self::Apart => true,
        }
    }

    /// Gives up the slices that are not among the `later` ones, of which as many count as fill the room; whether anything is left
    /// that spares another pass.
    pub(super) fn keep_only(&mut self, mut later: impl Iterator<Item = (u64, Frame)>) -> bool {
        match self {
            Self::Slices(slices) => slices.keep_only(later),
            Self::Broken(_) | Self::Apart => later.next().is_some(),
        }
    }

    /// What [`decode_image`] gives for `path`, whose address is `address`.
    pub(super) fn picture(&self, path: &Path, address: &ImageAddress) -> Result<RgbImage> {
        match self {
            Self::Slices(slices) => caught(path, false, || slices.picture(&Request::of(address))),
            Self::Broken(reason) => Err(bad(path, reason.clone())),
            Self::Apart => decode_image(path),
        }
    }
}
