//! What a list of images will want of volumes: each is unpacked once for many of its slices, in whatever order they come.
//!
//! To come to one slice of a compressed volume means to unpack all before it, and its checksum lies behind the last. What
//! a pass through the file reads is therefore kept for the slices that the list names later: as far ahead as slices fill
//! [`HELD_BYTES`], so that volumes of one size in a shuffled list share the room by what is wanted first.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rayon::prelude::*;

use super::address::{Frame, ImageAddress};
use super::room::Room;
use super::volume::Volume;

/// Most bytes of voxels that are held, besides one slice of each volume that is being read.
const HELD_BYTES: u64 = 512 << 20;

/// A slice of the list.
struct Wanted {
    /// Its place in the list.
    place: usize,
    /// How many slices, of whatever volume, come before it.
    rank: u64,
    frame: Frame,
}

/// The slices that a list names, and those of them that were read before they are asked for.
pub(super) struct ReadAhead {
    /// Of each file in the order of the list.
    wanted: HashMap<PathBuf, Vec<Wanted>>,
    room: Room,
    open: Mutex<HashMap<PathBuf, Volume>>,
    passes: AtomicUsize,
}

impl ReadAhead {
    /// For a list of images, of which the slices are given.
    pub(super) fn of(list: impl Iterator<Item = Option<ImageAddress>>) -> Self {
        Self::holding(HELD_BYTES, list)
    }

    /// The same with another limit of the bytes that are held.
    pub(super) fn holding(bytes: u64, list: impl Iterator<Item = Option<ImageAddress>>) -> Self {
        let mut wanted: HashMap<PathBuf, Vec<Wanted>> = HashMap::new();
        let slices = list.enumerate().filter_map(|(place, address)| Some((place, address?)));
        for (rank, (place, ImageAddress { file, frame, .. })) in slices.enumerate() {
            wanted.entry(file).or_default().push(Wanted { place, rank: rank as u64, frame });
        }
        Self { wanted, room: Room::of(bytes), open: Mutex::default(), passes: AtomicUsize::new(0) }
    }

    /// What `show` makes of some slices of one volume, given with their places in the list, on all cores and in their order. What the
    /// list names later is read with them, unless it is not `needed`, by its place.
    pub(super) fn each_slice<T: Send>(
        &self,
        slices: &[(usize, ImageAddress)],
        needed: impl Fn(usize) -> bool,
        show: impl Fn(usize, &Volume, &ImageAddress) -> T + Sync,
    ) -> Vec<T> {
        let (Some((_, ImageAddress { file, .. })), Some((last, _))) = (slices.first(), slices.last()) else {
            return Vec::new();
        };
        let mut volume = self.open().remove(file);
        let mut shown: Vec<T> = Vec::with_capacity(slices.len());
        while let Some((place, first)) = slices.get(shown.len()) {
            let rest = &slices[shown.len()..];
            let known = |open: &Volume| rest.iter().take_while(|(_, one)| open.answers(one.frame)).count();
            let ready = volume.as_ref().map_or(0, known);
            if let Some(open) = volume.as_ref().filter(|_| ready > 0) {
                let part: Vec<T> = rest[..ready].par_iter().map(|(at, one)| show(*at, open, one)).collect();
                shown.extend(part);
            } else {
                // What was read before is given up first: it was wanted before this slice.
                drop(volume.take());
                self.passes.fetch_add(1, Ordering::Relaxed);
                volume = Some(Volume::read(first, self.later(file, *place, &needed), &self.room));
            }
        }
        if let Some(mut volume) = volume
            && volume.keep_only(self.later(file, *last, &needed))
        {
            self.open().insert(file.clone(), volume);
        }
        shown
    }

    /// What the list names of a file behind a place of that file: how many slices further on, and which.
    fn later(&self, file: &Path, place: usize, needed: impl Fn(usize) -> bool) -> impl Iterator<Item = (u64, Frame)> {
        let wanted = self.wanted.get(file).map(Vec::as_slice).unwrap_or_default();
        let own = wanted.partition_point(|one| one.place < place);
        let rank = wanted.get(own).map_or(0, |one| one.rank);
        let later = wanted.iter().skip(own + 1).filter(move |one| needed(one.place));
        later.map(move |one| (one.rank - rank, one.frame))
    }

    /// A map of volumes is whole whoever panicked.
    fn open(&self) -> MutexGuard<'_, HashMap<PathBuf, Volume>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often a volume was unpacked.
    #[cfg(test)]
    pub(super) fn passes(&self) -> usize {
        self.passes.load(Ordering::Relaxed)
    }
}

/// Images of a list that are read together.
pub(super) enum Group {
    /// Some that follow one another and are no slices.
    Run(Range<usize>),
    /// Slices of one volume with their places, wherever they are.
    Slices(Vec<(usize, ImageAddress)>),
}

impl Group {
    /// The place of the first of them.
    pub(super) fn first(&self) -> usize {
        match self {
            Self::Run(run) => run.start,
            Self::Slices(slices) => slices.first().map_or(0, |(place, _)| *place),
        }
    }
}

/// A part of a list by what is read together: slices of one volume, and what follows one another and is `together` with the one before it.
pub(super) fn groups(
    part: Range<usize>,
    slice: impl Fn(usize) -> Option<ImageAddress>,
    together: impl Fn(usize, usize) -> bool,
) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut volumes: HashMap<PathBuf, usize> = HashMap::new();
    for place in part {
        if let Some(address) = slice(place) {
            let group = *volumes.entry(address.file.clone()).or_insert(groups.len());
            match groups.get_mut(group) {
                Some(Group::Slices(slices)) => slices.push((place, address)),
                _ => groups.push(Group::Slices(vec![(place, address)])),
            }
            continue;
        }
        match groups.last_mut() {
            Some(Group::Run(run)) if run.end == place && together(place - 1, place) => run.end = place + 1,
            _ => groups.push(Group::Run(place..place + 1)),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::path::{Path, PathBuf};

    use ::image::{Rgb, RgbImage};

    use super::ReadAhead;
    use crate::error::{Error, Result};
    use crate::image::volume::slice_address;
    use crate::image::{ImageBatch, ImageJob, ImageList, Loader, OnBadImage, Preprocess, View, decode_image};
    use crate::seed::Seed;

    /// Bytes of a slice: 6 x 5 of one byte.
    const SLICE: u64 = 30;

    /// A compressed NIfTI-1 volume, no two slices of which look the same.
    fn volume(path: &Path, slices: u8) {
        let mut bytes = vec![0u8; 352];
        bytes[..4].copy_from_slice(&348i32.to_le_bytes());
        for (axis, length) in [3, 6, 5, i16::from(slices)].into_iter().enumerate() {
            bytes[40 + 2 * axis..42 + 2 * axis].copy_from_slice(&length.to_le_bytes());
        }
        bytes[70..72].copy_from_slice(&2i16.to_le_bytes());
        bytes[108..112].copy_from_slice(&352f32.to_le_bytes());
        bytes[344..348].copy_from_slice(b"n+1\0");
        for slice in 0..slices {
            bytes.extend((0..30).map(|at| (at % 6) * (slice + 1) + 7 * (at / 6)));
        }
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(&bytes).unwrap();
        std::fs::write(path, packed.finish().unwrap()).unwrap();
    }

    fn slice(file: &Path, frame: impl std::fmt::Display) -> PathBuf {
        format!("{}#{frame}", file.display()).into()
    }

    fn slices(file: &Path, count: u32) -> Vec<PathBuf> {
        (1..=count).map(|number| slice(file, number)).collect()
    }

    fn jobs(paths: &[PathBuf]) -> Vec<ImageJob> {
        let job = |(index, path): (usize, &PathBuf)| ImageJob {
            index,
            path: path.clone(),
            frame: None,
            bytes: None,
            view: View::Centre,
        };
        paths.iter().enumerate().map(job).collect()
    }

    fn loader(batch: usize) -> Loader {
        let plain = Preprocess { rescale: 1.0, mean: [0.0; 3], std: [1.0; 3], ..Preprocess::clip(4) };
        Loader::new(plain).unwrap().with_batch_size(batch).with_on_bad_image(OnBadImage::Skip)
    }

    /// The pixels of the images that can be read, the reasons of the others, and how often a volume was unpacked.
    fn run(loader: &Loader, held_bytes: u64, paths: &[PathBuf]) -> (Vec<f32>, Vec<String>, usize) {
        let list = paths.iter().map(|path| slice_address(path));
        let (ahead, mut pixels) = (ReadAhead::holding(held_bytes, list), Vec::new());
        let left_out = loader.run_with(&ahead, &jobs(paths), |batch: ImageBatch| -> Result<()> {
            pixels.extend(batch.pixels);
            Ok(())
        });
        (pixels, left_out.unwrap().into_iter().map(|bad| bad.reason).collect(), ahead.passes())
    }

    /// The same from every image by itself.
    fn alone(paths: &[PathBuf]) -> (Vec<f32>, Vec<String>) {
        let (mut pixels, mut reasons) = (Vec::new(), Vec::new());
        for path in paths {
            match decode_image(path) {
                Ok(image) => pixels.extend(loader(1).preprocess().pixels(&image).unwrap()),
                Err(Error::BadImage { reason, .. }) => reasons.push(reason),
                Err(other) => reasons.push(other.to_string()),
            }
        }
        (pixels, reasons)
    }

    #[test]
    fn a_volume_is_unpacked_once_for_all_its_slices() {
        let folder = tempfile::tempdir().unwrap();
        let [long, short] = ["long.nii.gz", "short.NII.GZ"].map(|name| folder.path().join(name));
        volume(&long, 20);
        volume(&short, 9);
        let paths = [slices(&long, 20), slices(&short, 9)].concat();
        let (pixels, _) = alone(&paths);
        for threads in [1, 4] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            for batch in [1, 3, 32] {
                let found = pool.install(|| run(&loader(batch), 1 << 20, &paths));
                assert!(found == (pixels.clone(), vec![], 2), "{threads} threads, {batch} a batch: {} passes", found.2);
            }
        }
        assert!(run(&loader(3), 1 << 20, &paths) == (pixels, vec![], 2));
        // Whatever the order, how often one is wanted, and how it is shown.
        let mut mixed = slices(&long, 20);
        mixed.reverse();
        mixed.extend(["7", "7", "3;40:90", "7;p5:95"].map(|frame| slice(&long, frame)));
        mixed.push(long.clone());
        let (pixels, _) = alone(&mixed);
        assert!(run(&loader(3), 1 << 20, &mixed) == (pixels, vec![], 1));
        let all: Vec<&Path> = mixed.iter().map(PathBuf::as_path).collect();
        for (path, image) in ImageList::new(all.clone()).decode(all.len()) {
            assert!(image.unwrap() == decode_image(path).unwrap(), "{}", path.display());
        }
    }

    #[test]
    fn a_shuffled_list_unpacks_a_volume_no_more_often() {
        let folder = tempfile::tempdir().unwrap();
        let [long, short] = ["long.nii.gz", "short.nii.gz"].map(|name| folder.path().join(name));
        volume(&long, 20);
        volume(&short, 9);
        let picture = folder.path().join("picture.png");
        RgbImage::from_pixel(6, 5, Rgb([9, 40, 3])).save(&picture).unwrap();
        let ordered = [slices(&long, 20), slices(&short, 9), vec![picture; 3]].concat();
        let paths: Vec<PathBuf> = Seed::new(5).order(32).into_iter().map(|at| ordered[at].clone()).collect();
        let (pixels, _) = alone(&paths);
        for threads in [1, 4] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            for batch in [1, 3, 32] {
                let found = pool.install(|| run(&loader(batch), 1 << 20, &paths));
                assert!(found == (pixels.clone(), vec![], 2), "{threads} threads, {batch} a batch: {} passes", found.2);
            }
        }
        assert!(run(&loader(3), 1 << 20, &paths) == (pixels, vec![], 2));
        // Some at a time, as a stream asks for them.
        for count in [1, 5, 32] {
            let mut list = ImageList::new(paths.iter().map(PathBuf::as_path).collect());
            for part in paths.chunks(count) {
                let found = list.decode(count);
                assert_eq!(found.len(), part.len());
                for (path, (named, image)) in part.iter().zip(found) {
                    assert!(named == path && image.unwrap() == decode_image(path).unwrap(), "{}", path.display());
                }
            }
            assert_eq!((list.passes(), list.decode(1).len()), (2, 0), "{count} at a time");
        }
    }

    #[test]
    fn volumes_that_take_turns_share_what_may_be_held() {
        let folder = tempfile::tempdir().unwrap();
        let files = ["one.nii.gz", "two.nii.gz"].map(|name| folder.path().join(name));
        files.iter().for_each(|file| volume(file, 10));
        let paths: Vec<PathBuf> =
            (1..=10).flat_map(|number| files.each_ref().map(|file| slice(file, number))).collect();
        let (pixels, _) = alone(&paths);
        // Of eight slices that may be held four are of either.
        for (held, passes) in [(0, 20), (8 * SLICE, 2 * 3), (20 * SLICE, 2)] {
            for batch in [1, 3, 32] {
                let found = run(&loader(batch), held, &paths);
                assert!(found == (pixels.clone(), vec![], passes), "{held} bytes, {batch} a batch: {} passes", found.2);
            }
        }
    }

    #[test]
    fn no_more_is_held_than_may_be() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("volume.nii.gz");
        volume(&file, 20);
        let paths = slices(&file, 20);
        let (pixels, _) = alone(&paths);
        // One slice is always held.
        for (held, passes) in [(0, 20), (SLICE, 20), (7 * SLICE, 3), (8 * SLICE - 1, 3), (20 * SLICE, 1)] {
            for batch in [1, 3, 32] {
                let found = run(&loader(batch), held, &paths);
                assert!(found == (pixels.clone(), vec![], passes), "{held} bytes, {batch} a batch: {} passes", found.2);
            }
        }
    }

    #[test]
    fn slices_that_a_cache_holds_need_no_volume() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("volume.nii.gz");
        volume(&file, 8);
        let paths = slices(&file, 8);
        let loader = loader(3).with_cache_bytes(1 << 20);
        let first = run(&loader, 1 << 20, &paths);
        assert_eq!((first.2, loader.cache().map(|cache| cache.len())), (1, Some(8)));
        assert!(run(&loader, 1 << 20, &paths) == (first.0, vec![], 0));
    }

    #[test]
    fn what_is_wrong_with_a_slice_is_told_as_of_one_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        volume(&file("whole.nii.gz"), 6);
        let bytes = std::fs::read(file("whole.nii.gz")).unwrap();
        // Only the checksum is missing.
        std::fs::write(file("cut.nii.gz"), &bytes[..bytes.len() - 6]).unwrap();
        std::fs::write(file("empty.nii.gz"), b"").unwrap();
        RgbImage::from_pixel(6, 5, Rgb([9, 40, 3])).save(file("picture.png")).unwrap();
        std::fs::rename(file("picture.png"), file("picture.nii.gz")).unwrap();
        let names = ["whole.nii.gz", "cut.nii.gz", "empty.nii.gz", "picture.nii.gz", "missing.nii.gz"];
        let frames = ["1", "9", "2", "1"];
        let paths: Vec<PathBuf> = names.iter().flat_map(|name| frames.map(|frame| slice(&file(name), frame))).collect();
        let (pixels, reasons) = alone(&paths);
        // Three slices of the whole volume and the picture twice, 3 x 4 x 4 values each.
        assert_eq!((pixels.len(), reasons.len()), (5 * 48, 15));
        for batch in [1, 3, 32] {
            let found = run(&loader(batch), 1 << 20, &paths);
            assert!(found == (pixels.clone(), reasons.clone(), 5), "{batch} a batch: {:?}", found.1);
        }
    }
}
