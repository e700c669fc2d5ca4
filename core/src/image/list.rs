//! A list of image files that is gone through in its order, some at a time.

use std::path::Path;

use ::image::RgbImage;
use rayon::prelude::*;

use super::address::ImageAddress;
use super::decode::decode_image;
use super::read_ahead::{Group, ReadAhead, groups};
use super::volume::{Volume, slice_address};
use crate::error::Result;

/// Image files that are decoded in the order of a list, some at a time.
///
/// # Memory
/// Slices of a volume that the list names later are read with the first of them and wait for their turn: at most 512 MiB of voxels,
/// besides one slice of each volume that is being read.
pub struct ImageList<'a> {
    paths: Vec<&'a Path>,
    next: usize,
    ahead: ReadAhead,
}

impl<'a> ImageList<'a> {
    /// A list of images, none of which is read yet. A path may name a frame and a window.
    pub fn new(paths: Vec<&'a Path>) -> Self {
        let ahead = ReadAhead::of(paths.iter().map(|path| slice_address(path)));
        Self { paths, next: 0, ahead }
    }

    /// Decodes the next `count` images, or what is left of the list, on all cores and in their order; each by the rules of
    /// [`decode_image`].
    pub fn decode(&mut self, count: usize) -> Vec<(&'a Path, Result<RgbImage>)> {
        let part = self.next..self.paths.len().min(self.next.saturating_add(count));
        self.next = part.end;
        let (paths, ahead) = (&self.paths, &self.ahead);
        let groups = groups(part, |place| slice_address(paths[place]), |_, _| false);
        let of_group = |group: &Group| -> Vec<(usize, Result<RgbImage>)> {
            match group {
                Group::Run(run) => run.clone().map(|place| (place, decode_image(paths[place]))).collect(),
                Group::Slices(slices) => {
                    let show = |place: usize, volume: &Volume, address: &ImageAddress| {
                        (place, volume.picture(paths[place], address))
                    };
                    ahead.each_slice(slices, |_| true, show)
                }
            }
        };
        let mut decoded: Vec<(usize, Result<RgbImage>)> = groups.par_iter().flat_map(of_group).collect();
        decoded.sort_unstable_by_key(|(place, _)| *place);
        decoded.into_iter().map(|(place, image)| (paths[place], image)).collect()
    }

    /// How often a volume was unpacked.
    #[cfg(test)]
    pub(super) fn passes(&self) -> usize {
        self.ahead.passes()
    }
}
