//! Volumes of which several slices are wanted: each is unpacked once for many of them.
//!
//! To come to one slice of a compressed volume means to unpack all before it, and its checksum lies behind the last. What
//! a pass through the file reads is therefore kept for the slices that come after: as many of those that will be asked for
//! as have [`HELD_BYTES`] together.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use ::image::RgbImage;
use rayon::prelude::*;

use super::address::{Frame, ImageAddress};
use super::decode::{Request, bad, caught, decode_image, is_volume, read_bounded};
use super::nifti::Slices;
use crate::error::{Error, Result};

/// Most bytes of voxels that the volumes which are read at a time hold together, besides one slice of each.
const HELD_BYTES: u64 = 256 << 20;

/// The volume's slice that a path names; `None` for what is by its name no volume, or is no single slice.
pub(super) fn slice_address(path: &Path) -> Option<ImageAddress> {
    let address = ImageAddress::of(path);
    let name = address.file.file_name()?.to_str()?.to_ascii_lowercase();
    ((name.ends_with(".nii") || name.ends_with(".nii.gz")) && address.frame != Frame::All).then_some(address)
}

/// Whether two paths name slices of one volume.
pub(super) fn of_one_volume(left: &Path, right: &Path) -> bool {
    match (slice_address(left), slice_address(right)) {
        (Some(left), Some(right)) => left.file == right.file,
        _ => false,
    }
}

/// A file and those of its slices that were read.
pub(super) struct Volume {
    file: PathBuf,
    content: Content,
}

enum Content {
    Slices(Slices),
    /// Why no slice can be shown.
    Broken(String),
    /// No volume after all, or one that cannot be read: each slice is an image of its own, with an error of its own.
    Apart,
}

impl Volume {
    /// Reads in one pass the slice `first`, and of `later` ones as many as have `most` bytes with it.
    fn read(first: &ImageAddress, later: impl Iterator<Item = ImageAddress>, most: u64) -> Self {
        let file = first.file.clone();
        let Ok(bytes) = read_bounded(&file) else { return Self { file, content: Content::Apart } };
        let frames = later.map(|address| address.frame);
        let read = || {
            let slices = is_volume(&bytes).then(|| Slices::read(&bytes, &Request::of(first), frames, most));
            slices.transpose()
        };
        let content = match caught(&file, false, read) {
            Ok(Some(slices)) => Content::Slices(slices),
            Err(Error::BadImage { reason, .. }) => Content::Broken(reason),
            Ok(None) | Err(_) => Content::Apart,
        };
        Self { file, content }
    }

    fn answers(&self, frame: Frame) -> bool {
        match &self.content {
            Content::Slices(slices) => slices.answers(frame),
            Content::Broken(_) | Content::Apart => true,
        }
    }

    /// What [`decode_image`] gives for `path`, whose address is `address`.
    pub(super) fn picture(&self, path: &Path, address: &ImageAddress) -> Result<RgbImage> {
        match &self.content {
            Content::Slices(slices) => caught(path, false, || slices.picture(&Request::of(address))),
            Content::Broken(reason) => Err(bad(path, reason.clone())),
            Content::Apart => decode_image(path),
        }
    }
}

/// The volumes of one run through a list of images.
pub(super) struct Volumes {
    held_bytes: u64,
    open: Mutex<Vec<Volume>>,
    passes: AtomicUsize,
}

impl Default for Volumes {
    fn default() -> Self {
        Self::holding(HELD_BYTES)
    }
}

impl Volumes {
    /// Volumes of which at most so many bytes are held, or one slice.
    pub(super) fn holding(bytes: u64) -> Self {
        Self { held_bytes: bytes, open: Mutex::default(), passes: AtomicUsize::new(0) }
    }

    /// How many bytes of each may be held when `count` are read at a time.
    pub(super) fn share(&self, count: usize) -> u64 {
        self.held_bytes / count.max(1) as u64
    }

    /// Takes out what was kept of a file.
    pub(super) fn take(&self, file: &Path) -> Option<Volume> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let at = open.iter().position(|volume| volume.file == file)?;
        Some(open.swap_remove(at))
    }

    /// Keeps a volume of which more will be wanted.
    pub(super) fn keep(&self, volume: Option<Volume>) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).extend(volume);
    }

    /// What `show` makes of `count` slices of one volume, on all cores and in their order. `address` names them by place;
    /// those from `count` on will be wanted later. `volume` is what was read of the file before, and then what was read last,
    /// of at most `most` bytes.
    pub(super) fn each_slice<T: Send>(
        &self,
        volume: &mut Option<Volume>,
        count: usize,
        most: u64,
        address: impl Fn(usize) -> Option<ImageAddress>,
        show: impl Fn(usize, &Volume, &ImageAddress) -> T + Sync,
    ) -> Vec<T> {
        let addresses: Vec<ImageAddress> = (0..count).map_while(&address).collect();
        let mut shown: Vec<T> = Vec::with_capacity(addresses.len());
        while let Some(first) = addresses.get(shown.len()) {
            let from = shown.len();
            let known = |open: &Volume| addresses[from..].iter().take_while(|one| open.answers(one.frame)).count();
            let ready = volume.as_ref().map_or(0, known);
            if let Some(open) = volume.as_ref().filter(|_| ready > 0) {
                let part = addresses[from..from + ready].par_iter().enumerate();
                let part: Vec<T> = part.map(|(at, one)| show(from + at, open, one)).collect();
                shown.extend(part);
            } else {
                // What was read before is given up first.
                *volume = None;
                self.passes.fetch_add(1, Ordering::Relaxed);
                *volume = Some(Volume::read(first, (from + 1..).map_while(&address), most));
            }
        }
        shown
    }

    /// How often a volume was unpacked.
    #[cfg(test)]
    pub(super) fn passes(&self) -> usize {
        self.passes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::path::{Path, PathBuf};

    use ::image::{Rgb, RgbImage};

    use super::Volumes;
    use crate::error::{Error, Result};
    use crate::image::{ImageBatch, ImageJob, Loader, OnBadImage, Preprocess, View, decode_image, decode_images};

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
        let (volumes, mut pixels) = (Volumes::holding(held_bytes), Vec::new());
        let left_out = loader.run_with(&volumes, &jobs(paths), |batch: ImageBatch| -> Result<()> {
            pixels.extend(batch.pixels);
            Ok(())
        });
        (pixels, left_out.unwrap().into_iter().map(|bad| bad.reason).collect(), volumes.passes())
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
        for (path, image) in all.iter().zip(decode_images(&all)) {
            assert!(image.unwrap() == decode_image(path).unwrap(), "{}", path.display());
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
