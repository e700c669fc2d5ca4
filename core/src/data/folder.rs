//! A folder of class folders, with or without split folders above them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::clip::{Clip, is_animation_name};
use super::dataset::{Dataset, HIDDEN_FILES, Source};
use super::entry::{Entry, dataset_of};
use super::options::DataOptions;
use super::split::Split;
use crate::error::{Error, Result};
use crate::file;
use crate::image::address::{EXTENSIONS, is_image_name};
use crate::image::is_video_name;

/// Class folders may have folders below them; a link that leads back up would never end.
const MAX_DEPTH: usize = 16;

/// Reads `CLASS/*.jpg`, or `train/CLASS/*.jpg` with optional `val` (`validation`, `valid`) and `test` beside it.
///
/// The folder names are the class names. Without split folders each class is split by [`assign_group_splits`](super::assign_group_splits). Hidden files
/// and files that are no images are passed over and counted.
///
/// # Errors
/// [`Error::Io`], or [`Error::Malformed`] that tells what was found: no class folders, a class without images, two
/// folders for one split, and all that [`Dataset::validate`] checks.
///
/// Where clips are wanted, a folder below a class folder is one clip whose frames are the images in it, and a GIF or a
/// video is one clip.
pub fn read_folder(root: &Path, options: &DataOptions) -> Result<Dataset> {
    let top = Listing::of(root)?;
    if top.folders.is_empty() {
        let reason = format!("there are no class folders in it, found {}; {LAYOUT}", top.describe());
        return Err(wrong(root, reason));
    }
    let mut scan = Scan::new(root, options.clips.is_some());
    top.pass_over(&mut scan.ignored_files);
    if is_split_layout(root, &top)? {
        for folder in &top.folders {
            let split = Split::from_name(name(folder)?);
            scan.classes(folder, split)?;
        }
    } else {
        scan.classes(root, None)?;
    }
    scan.finish(options)
}

const LAYOUT: &str = "expected one folder per class with its images, or `train`, `val`, `test` folders of such folders";

/// Whether the folders are splits. A class may be called `train` too, so `train` and `test` only count as splits when
/// they hold folders themselves.
fn is_split_layout(root: &Path, top: &Listing) -> Result<bool> {
    let mut splits = BTreeMap::new();
    let mut others = Vec::new();
    for folder in &top.folders {
        match Split::from_name(name(folder)?) {
            Some(split) if !Listing::of(folder)?.folders.is_empty() => {
                if let Some(first) = splits.insert(split, folder) {
                    let reason = format!("`{}` and `{}` are both the {split} split", name(first)?, name(folder)?);
                    return Err(wrong(root, reason));
                }
            }
            _ => others.push(name(folder)?),
        }
    }
    if splits.is_empty() || !(splits.contains_key(&Split::Train) || splits.contains_key(&Split::Test)) {
        return Ok(false);
    }
    if !others.is_empty() {
        let reason = format!("beside the split folders there are others: {}; {LAYOUT}", others.join(", "));
        return Err(wrong(root, reason));
    }
    Ok(true)
}

struct Scan<'a> {
    root: &'a Path,
    /// Whether folders of images are clips.
    clips: bool,
    /// Split (where known), id, source and class of every example.
    images: Vec<(Option<Split>, String, Source, String)>,
    /// Class folders without images, and what was in them.
    empty: Vec<(String, String)>,
    /// How many files were passed over, by kind.
    ignored_files: BTreeMap<String, usize>,
}

impl<'a> Scan<'a> {
    fn new(root: &'a Path, clips: bool) -> Self {
        Self { root, clips, images: Vec::new(), empty: Vec::new(), ignored_files: BTreeMap::new() }
    }

    /// Reads the class folders of a folder.
    fn classes(&mut self, folder: &Path, split: Option<Split>) -> Result<()> {
        let listing = Listing::of(folder)?;
        if folder != self.root {
            listing.pass_over(&mut self.ignored_files);
        }
        for class_folder in &listing.folders {
            let class = name(class_folder)?;
            let before = self.images.len();
            let mut passed = BTreeMap::new();
            self.images_below(class_folder, class, split, &mut passed, 0)?;
            if self.images.len() == before {
                self.empty.push((class.into(), describe(&passed)));
            }
            for (kind, count) in passed {
                *self.ignored_files.entry(kind).or_default() += count;
            }
        }
        Ok(())
    }

    fn images_below(
        &mut self,
        folder: &Path,
        class: &str,
        split: Option<Split>,
        passed: &mut BTreeMap<String, usize>,
        depth: usize,
    ) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(wrong(
                folder,
                format!("it lies more than {MAX_DEPTH} folders deep; does a link lead back up?"),
            ));
        }
        let listing = Listing::of(folder)?;
        if listing.hidden > 0 {
            *passed.entry(HIDDEN_FILES.into()).or_default() += listing.hidden;
        }
        let mut frames = Vec::new();
        for path in listing.files {
            if self.clips && is_animation_name(&path) {
                let (id, clip) = (self.id(&path)?, Clip::open(&path)?);
                self.images.push((split, id, clip.map_or(Source::Image(path), Source::Clip), class.into()));
            } else if self.clips && depth > 0 && is_image_name(&path) {
                frames.push(path);
            } else if is_image_name(&path) || is_video_name(&path) {
                let id = self.id(&path)?;
                self.images.push((split, id, Source::Image(path), class.into()));
            } else {
                *passed.entry(kind_of(&path)).or_default() += 1;
            }
        }
        if let Some(clip) = Clip::of_files(frames) {
            self.images.push((split, self.id(folder)?, Source::Clip(clip), class.into()));
        }
        listing.folders.iter().try_for_each(|below| self.images_below(below, class, split, passed, depth + 1))
    }

    /// The path below the root with `/` on every system.
    fn id(&self, path: &Path) -> Result<String> {
        let relative = path.strip_prefix(self.root).unwrap_or(path);
        let parts: Option<Vec<&str>> = relative.iter().map(OsStr::to_str).collect();
        Ok(parts.ok_or_else(|| wrong(path, "its name is not UTF-8; rename it"))?.join("/"))
    }

    fn finish(self, options: &DataOptions) -> Result<Dataset> {
        let used: BTreeSet<&str> = self.images.iter().map(|(.., class)| class.as_str()).collect();
        if let Some((class, found)) = self.empty.iter().find(|(class, _)| !used.contains(class.as_str())) {
            let known = EXTENSIONS.join(", ");
            let reason = format!("class folder `{class}` has no images, found {found}; image extensions are {known}");
            return Err(wrong(self.root, reason));
        }
        let entry = |(split, id, source, class): (Option<Split>, String, Source, String)| Entry {
            split,
            id,
            source,
            labels: vec![class],
            group: None,
        };
        let mut dataset = dataset_of(self.root, self.images.into_iter().map(entry).collect(), false, options)?;
        dataset.ignored_files = self.ignored_files;
        Ok(dataset)
    }
}

/// What lies in one folder, hidden entries aside.
struct Listing {
    folders: Vec<PathBuf>,
    files: Vec<PathBuf>,
    hidden: usize,
}

impl Listing {
    fn of(folder: &Path) -> Result<Self> {
        let (mut folders, mut files, mut hidden) = (Vec::new(), Vec::new(), 0);
        for path in file::list(folder)? {
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
                hidden += 1;
            } else if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
        Ok(Self { folders, files, hidden })
    }

    /// Counts its files, by kind, as passed over.
    fn pass_over(&self, passed: &mut BTreeMap<String, usize>) {
        for path in &self.files {
            *passed.entry(kind_of(path)).or_default() += 1;
        }
        if self.hidden > 0 {
            *passed.entry(HIDDEN_FILES.into()).or_default() += self.hidden;
        }
    }

    fn describe(&self) -> String {
        let mut found = BTreeMap::new();
        self.pass_over(&mut found);
        found.remove(HIDDEN_FILES);
        describe(&found)
    }
}

fn kind_of(path: &Path) -> String {
    path.extension().map_or("without extension".into(), |extension| format!(".{}", extension.to_string_lossy()))
}

fn describe(found: &BTreeMap<String, usize>) -> String {
    if found.is_empty() {
        return "nothing".into();
    }
    let parts: Vec<String> = found.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    format!("files: {}", parts.join(", "))
}

fn name(path: &Path) -> Result<&str> {
    path.file_name().and_then(OsStr::to_str).ok_or_else(|| wrong(path, "its name is not UTF-8; rename it"))
}

fn wrong(path: &Path, reason: impl Into<String>) -> Error {
    Error::malformed("data set", path, reason.into())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::read_folder;
    use crate::data::{ClipConfig, DataOptions, Dataset, Source};

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"x").unwrap();
        }
        folder
    }

    fn read(files: &[&str]) -> Result<Dataset, String> {
        read_folder(folder(files).path(), &DataOptions::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn split_folders_are_kept_and_val_may_be_missing() {
        let files = [
            "train/t_shirt/1.jpg",
            "train/hat/a/2.PNG",
            "train/hat/.x.png",
            "test/hat/3.jpg",
            "test/t_shirt/n.txt",
            "r.md",
        ];
        let dataset = read(&files).unwrap();
        assert_eq!(dataset.classes, ["hat", "t_shirt"]);
        let ids: Vec<&str> = dataset.train.iter().map(|example| example.id.as_str()).collect();
        assert_eq!(ids, ["train/hat/a/2.PNG", "train/t_shirt/1.jpg"]);
        assert_eq!((dataset.val.len(), dataset.test.len()), (0, 1));
        let ignored: Vec<(&str, usize)> =
            dataset.ignored_files.iter().map(|(kind, count)| (kind.as_str(), *count)).collect();
        assert_eq!(ignored, [(".md", 1), (".txt", 1), ("hidden", 1)]);
        let named = read(&["train/a/1.jpg", "train/b/1.jpg", "validation/a/2.jpg"]).unwrap();
        assert_eq!((named.train.len(), named.val.len(), named.test.len()), (2, 1, 0));
        let named = read(&["Training/a/1.jpg", "Training/b/1.jpg", "VALID/a/2.jpg", "Testing/b/3.jpg"]).unwrap();
        assert_eq!(named.classes, ["a", "b"]);
        assert_eq!((named.train.len(), named.val.len(), named.test.len()), (2, 1, 1));
    }

    #[test]
    fn without_split_folders_the_hash_decides() {
        let files: Vec<String> = (0..40).map(|number| format!("{}/{number}.jpg", ["a", "train"][number % 2])).collect();
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        let dataset = read(&files).unwrap();
        assert_eq!(dataset.classes, ["a", "train"]);
        assert!(dataset.train.len() > 10 && dataset.test.len() > 4);
        assert_eq!(dataset.train.len() + dataset.val.len() + dataset.test.len(), 40);
        let extended = read(&[&files[..], &["new/1.jpg", "new/2.jpg"]].concat()).unwrap();
        assert!(dataset.test.iter().all(|example| extended.test.iter().any(|other| other.id == example.id)));
    }

    #[test]
    fn folders_of_images_are_clips_where_clips_are_wanted() {
        let files = ["train/a/x/2.png", "train/a/x/10.png", "train/a/y/z/1.png", "train/b/1.png", "train/b/k/1.png"];
        let clips = DataOptions { clips: Some(ClipConfig::default()), ..DataOptions::default() };
        let dataset = read_folder(folder(&files).path(), &clips).expect("clips");
        let found: Vec<(&str, usize)> = dataset
            .train
            .iter()
            .map(|example| {
                (
                    example.id.as_str(),
                    match &example.source {
                        Source::Clip(clip) => clip.len(),
                        _ => 0,
                    },
                )
            })
            .collect();
        assert_eq!(found, [("train/a/x", 2), ("train/a/y/z", 1), ("train/b/1.png", 0), ("train/b/k", 1)]);
        assert_eq!(read(&files).expect("images").train.len(), 5);
    }

    #[test]
    fn one_class_is_enough_where_that_is_said() {
        let files = ["train/a/1.jpg", "test/a/2.jpg"];
        let one = DataOptions { one_class: true, ..DataOptions::default() };
        let dataset = read_folder(folder(&files).path(), &one).expect("one class");
        assert_eq!((dataset.classes.len(), dataset.train.len(), dataset.test.len()), (1, 1, 1));
        let message = read(&files).unwrap_err();
        assert!(message.contains("more than one class is needed, found only `a`"), "{message}");
    }

    #[test]
    fn errors_say_what_was_found() {
        for (files, words) in [
            (&["1.jpg", "2.jpg", "n.txt"][..], "no class folders in it, found files: 2 .jpg, 1 .txt"),
            (&["a/1.jpg", "b/1.heic", "b/read"], "class folder `b` has no images, found files: 1 .heic, 1 without"),
            (&["a/1.jpg"], "only `a`"),
            (&["train/a/1.jpg", "train/b/1.jpg", "test/c/1.jpg"], "class `c` is in val or test"),
            (&["train/a/1.jpg", "val/a/1.jpg", "valid/a/2.jpg"], "are both the val split"),
            (&["train/a/1.jpg", "extra/b/1.jpg"], "beside the split folders there are others: extra"),
        ] {
            let message = read(files).unwrap_err();
            assert!(message.contains(words), "{message}");
        }
        assert!(
            read_folder(Path::new("no/such/folder"), &DataOptions::default())
                .unwrap_err()
                .to_string()
                .contains("no/such/folder")
        );
    }
}
