//! What examples show, as an identity: the bytes behind their names.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use super::clip::Clip;
use super::dataset::{Dataset, Example, Source};
use crate::digest::{Digest, DigestBuilder};
use crate::image::ImageAddress;
use crate::parallel;

impl Dataset {
    /// The identity of what some examples show, in their order: id, bytes of the files or values of the row, and which slice in
    /// which window. Unlike [`digest`](Self::digest) it is another one when an image has changed under its name, by which results
    /// of before are told from those of now. Where the files lie, and when they were written, does not count, so that a copy
    /// of the data is the same data. A file that cannot be read is told from one that can.
    ///
    /// # Cost
    /// Every file is read once, whatever the number of its slices: of 50,000 images of 10 KB, in the memory of the system, about
    /// 4 seconds of one core (processor with instructions for SHA), shared by all cores. Encoding them takes minutes.
    pub fn contents<'e>(&self, examples: impl IntoIterator<Item = &'e Example>) -> Digest {
        let examples: Vec<&Example> = examples.into_iter().collect();
        let files: BTreeSet<PathBuf> =
            examples.iter().flat_map(|example| example.source.addresses()).map(|picture| picture.file).collect();
        let files: Vec<PathBuf> = files.into_iter().collect();
        let digests = parallel::map(&files, |file| Digest::of_file(file).ok());
        let digests: HashMap<&Path, Option<Digest>> = files.iter().map(PathBuf::as_path).zip(digests).collect();
        let mut content = DigestBuilder::default();
        for example in examples {
            content.piece(example.id.as_bytes());
            if let Source::Bytes(_, bytes) = &example.source {
                content.piece(bytes);
            }
            if let Source::Row(row) = example.source {
                let row = self.features.as_ref().and_then(|features| features.row(row)).unwrap_or_default();
                content.values(row);
            }
            for picture in example.source.addresses() {
                let file = digests.get(picture.file.as_path()).and_then(Option::as_ref);
                content.piece(file.map(Digest::hex).unwrap_or_default().as_bytes());
                let shown = ImageAddress { file: PathBuf::new(), ..picture };
                content.piece(shown.path().to_string_lossy().as_bytes());
            }
        }
        content.finish()
    }
}

impl Source {
    /// What is read from files: an image, an animation as a whole, or the frames of a clip.
    pub fn addresses(&self) -> Vec<ImageAddress> {
        match self {
            Self::Image(path) | Self::Clip(Clip::Animation { path, .. }) => vec![ImageAddress::of(path)],
            Self::Clip(Clip::Files(files)) => files.iter().map(|path| ImageAddress::of(path)).collect(),
            Self::Bytes(..) | Self::Row(_) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::{Duration, SystemTime};

    use super::{Clip, Dataset, Digest, Example, Source};

    fn of(examples: &[Example]) -> Digest {
        Dataset::unlabelled("sample".into(), Vec::new()).contents(examples)
    }

    fn image(folder: &Path, name: &str) -> Example {
        Example::new("cat/1", Source::Image(folder.join(name)), 0)
    }

    #[test]
    fn bytes_of_the_same_length_are_told_apart_and_neither_place_nor_time_counts() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        for (name, bytes) in [("one.png", "one"), ("two.png", "two"), ("copy.png", "one")] {
            std::fs::write(folder.join(name), bytes).unwrap();
        }
        let old = SystemTime::now() - Duration::from_secs(1000);
        std::fs::File::options().write(true).open(folder.join("copy.png")).unwrap().set_modified(old).unwrap();
        let one = of(&[image(folder, "one.png")]);
        assert_eq!(one, of(&[image(folder, "copy.png")]));
        let others = [
            image(folder, "two.png"),
            image(folder, "none.png"),
            image(folder, "one.png#2"),
            Example { id: "cat/2".into(), ..image(folder, "one.png") },
            Example::new("cat/1", Source::Bytes("one.png".into(), b"two".to_vec().into()), 0),
        ];
        let found: std::collections::BTreeSet<Digest> =
            others.iter().map(|other| of(std::slice::from_ref(other))).chain([one]).collect();
        assert_eq!(found.len(), 1 + others.len());
    }

    #[test]
    fn a_clip_is_told_by_its_frames() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (name, bytes) in [("1.png", "one"), ("2.png", "two"), ("3.png", "one")] {
            std::fs::write(path(name), bytes).unwrap();
        }
        let clip = |names: &[&str]| {
            let files = Clip::of_files(names.iter().map(|name| path(name)).collect()).unwrap();
            of(&[Example::new("cat/1", Source::Clip(files), 0)])
        };
        assert_eq!(clip(&["1.png", "2.png"]), clip(&["1.png", "2.png"]));
        assert_ne!(clip(&["1.png", "2.png"]), clip(&["2.png", "3.png"]));
        assert_ne!(clip(&["1.png", "2.png"]), clip(&["1.png"]));
    }
}
