//! A labelled example, and where its content is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::clip::Clip;
use crate::error::Result;
use crate::image::kept_images;

/// Where the content of an example is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// An image file.
    Image(PathBuf),
    /// The content of an image file, which need not lie anywhere, under the name that errors call it by. No two
    /// contents have one name.
    Bytes(PathBuf, Arc<[u8]>),
    /// Several images, in the order of time.
    Clip(Clip),
    /// A row of [`Dataset::features`](super::Dataset::features).
    Row(usize),
}

impl Source {
    /// The contents of image files as they may be kept ([`kept_images`]): of files that may name a patient the pixels alone. `None`
    /// where a source is no single image.
    ///
    /// # Errors
    /// As [`kept_images`], the first one.
    pub fn file_bytes(sources: &[&Self]) -> Result<Vec<Option<Vec<u8>>>> {
        let paths: Vec<&Path> = sources
            .iter()
            .filter_map(|source| match source {
                Self::Image(path) => Some(path.as_path()),
                Self::Bytes(..) | Self::Clip(_) | Self::Row(_) => None,
            })
            .collect();
        let mut files = kept_images(&paths).into_iter();
        let content = |source: &&Self| match source {
            Self::Image(_) => files.next().transpose(),
            Self::Bytes(_, bytes) => Ok(Some(bytes.to_vec())),
            Self::Clip(_) | Self::Row(_) => Ok(None),
        };
        sources.iter().map(content).collect()
    }
}

/// One labelled example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// A name that stays the same wherever the data lies: the path relative to the data set, with `/`.
    pub id: String,
    /// Where its content is.
    pub source: Source,
    /// Its class, an index into [`Dataset::classes`](super::Dataset::classes); of several the first, and 0 where it has none.
    pub label: usize,
    /// All its classes, ascending, in a data set whose images have any number of them; else empty.
    pub labels: Vec<usize>,
    /// What it must not be parted from: the patient, the slide, the film that it comes from.
    pub group: Option<String>,
}

impl Example {
    /// An example of one class.
    pub fn new(id: impl Into<String>, source: Source, label: usize) -> Self {
        Self { id: id.into(), source, label, labels: Vec::new(), group: None }
    }

    /// What goes into one split, and into one resample, as a whole: the group, or the example itself.
    pub fn unit(&self) -> &str {
        self.group.as_deref().unwrap_or(&self.id)
    }
}
