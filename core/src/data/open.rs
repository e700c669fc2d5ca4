//! One door for every kind of data set.

use std::fs;
use std::path::Path;

use super::clip_config::ClipConfig;
use super::coop_split::read_coop_split;
use super::dataset::Dataset;
use super::feature_file::FeatureFile;
use super::folder::read_folder;
use super::manifest::{Manifest, read_manifest};
use super::options::DataOptions;
use crate::error::{Error, Result};
use crate::image::is_image_name;

const KINDS: &str = "a folder of class folders, a `split_zhou_*.json`, a `.csv` or `.jsonl` manifest, or a \
                     `.safetensors` feature file";

/// Opens a data set of any kind, known by its path. `root` is where the images of a split file or manifest lie, by
/// default the folder of that file. What can be nothing but clips is read as such: lists of folders, and sets of nothing but
/// videos, and GIFs some of which move.
///
/// # Errors
/// [`Error::Io`] for a missing path, [`Error::Invalid`] for a kind that is not known or a root that makes no sense,
/// and the errors of the readers; also [`Error::Malformed`] when listed images do not exist.
pub fn open_dataset(path: &Path, root: Option<&Path>) -> Result<Dataset> {
    open_dataset_with(path, &DataOptions::at(root))
}

/// As [`open_dataset`], with further options.
///
/// Where [`DataOptions::clips`] are wanted, a folder of images below a class folder is one clip, and so is a GIF, a video or a
/// listed folder; images that stand alone are clips of one frame.
///
/// # Errors
/// As [`open_dataset`]; [`Error::Leak`] for a group in two splits, faults of the options, and [`Error::Malformed`] where clips
/// are wanted and nothing has more than one frame.
pub fn open_dataset_with(path: &Path, options: &DataOptions) -> Result<Dataset> {
    let dataset = Dataset { window: options.window, ..read(path, options)? };
    let Some(config) = &options.clips else {
        let dataset = if dataset.holds_clips(path)? { dataset.into_clips(ClipConfig::default())? } else { dataset };
        dataset.check_files(path)?;
        return Ok(dataset);
    };
    config.check()?;
    if dataset.features.is_some() {
        let reason = "its rows are features already, made with the frames that `inarch encode` was told";
        return Err(Error::malformed("set of clips", path, reason));
    }
    let dataset = dataset.into_clips(config.clone())?;
    dataset.check_files(path)?;
    if !dataset.moves() {
        let reason = "nothing in it has more than one frame; a clip is a folder of frames inside its class folder, an \
                       animated GIF, a video, or a folder named by a manifest";
        return Err(Error::malformed("set of clips", path, reason));
    }
    Ok(dataset)
}

fn read(path: &Path, options: &DataOptions) -> Result<Dataset> {
    let root = options.root.as_deref();
    let is_folder = fs::metadata(path).map_err(Error::io("read", path))?.is_dir();
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    let kind = if is_folder { "folder" } else { extension.as_deref().unwrap_or_default() };
    if root.is_some() && matches!(kind, "folder" | "safetensors") {
        let reason = format!("`{}` names its own content; a root is for split files and manifests", path.display());
        return Err(Error::invalid("data set root", reason));
    }
    Ok(match kind {
        "folder" => read_folder(path, options)?,
        "safetensors" => FeatureFile::read(path)?.into_dataset_with(path, options)?,
        "json" => {
            let root = root.or(path.parent().filter(|folder| !folder.as_os_str().is_empty())).unwrap_or(Path::new("."));
            read_coop_split(path, root)?.with_options(path, options)?
        }
        "csv" | "jsonl" | "ndjson" => match read_manifest(path, options)? {
            Manifest::Labelled(dataset) => dataset,
            Manifest::Captioned(_) => {
                let reason = "it has captions, which are for contrastive pre-training; expected `path,label[,split]`";
                return Err(Error::malformed("data set", path, reason));
            }
        },
        _ => {
            let found = if is_image_name(path) { "a single image" } else { "a file of another kind" };
            let reason = format!("`{}` is {found}; expected {KINDS}", path.display());
            return Err(Error::invalid("data set", reason));
        }
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::open_dataset;
    use crate::error::Error;

    #[test]
    fn every_kind_is_known_by_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            path
        };
        for name in ["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"] {
            write(&format!("images/{name}"), "x");
        }
        let images = folder.path().join("images");
        let by_folder = open_dataset(&images, None).unwrap();
        let manifest = write("m.csv", "path,label\na/1.jpg,a\na/2.jpg,a\nb/1.jpg,b\nb/2.jpg,b\n");
        let by_manifest = open_dataset(&manifest, Some(&images)).unwrap();
        assert_eq!(by_folder.digest(), by_manifest.digest());
        let lists = r#"{"train": [["a/1.jpg", 0, "a"], ["b/1.jpg", 1, "b"]], "test": [["a/2.jpg", 0, "a"]]}"#;
        let split = write("images/split.json", lists);
        assert_eq!(open_dataset(&split, None).unwrap().train.len(), 2);
        let message = open_dataset(&split, Some(folder.path())).unwrap_err().to_string();
        assert!(message.contains("a/1.jpg` does not exist"), "{message}");
        let captions = write("c.csv", "path,caption\na/1.jpg,text\n");
        assert!(open_dataset(&captions, None).unwrap_err().to_string().contains("captions"));
        let single = open_dataset(&images.join("a/1.jpg"), None).unwrap_err().to_string();
        assert!(single.contains("a single image") && single.contains("expected a folder"), "{single}");
        assert!(matches!(open_dataset(&images, Some(&images)), Err(Error::Invalid { .. })));
        assert!(matches!(open_dataset(Path::new("no/such"), None), Err(Error::Io { .. })));
    }
}
