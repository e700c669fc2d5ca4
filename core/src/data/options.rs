//! How a data set is read, beside where it lies.

use std::path::{Path, PathBuf};

use regex::Regex;

use super::clip_config::ClipConfig;
use super::dataset::{Example, Source};
use crate::error::{Error, Result};
use crate::image::{Frame, ImageAddress, Window, is_video_name, single_images};

/// How a data set is read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DataOptions {
    /// Where the images of a split file or manifest lie; by default the folder of that file.
    pub root: Option<PathBuf>,
    /// A pattern over the examples' ids; what its first group matches (or all of it, without one) names the patient or
    /// whatever else must not be in two splits.
    pub group_by: Option<String>,
    /// Which slices of volumes and frames of DICOM files become examples, where an id names none.
    pub slices: Frame,
    /// The window that grey values are shown in, where an id names none.
    pub window: Option<Window>,
    /// How examples are read as clips, where they are meant as such.
    pub clips: Option<ClipConfig>,
    /// Whether one class is enough, as for images that join what is known already or are encoded; otherwise two are needed.
    pub one_class: bool,
}

impl DataOptions {
    /// Those of a data set whose images lie in `root`.
    pub fn at(root: Option<&Path>) -> Self {
        Self { root: root.map(Path::to_path_buf), ..Self::default() }
    }

    /// The fewest classes that make a data set.
    pub(super) fn fewest_classes(&self) -> usize {
        if self.one_class { 1 } else { 2 }
    }

    /// The pattern over ids.
    ///
    /// # Errors
    /// [`Error::Invalid`] for one that is no pattern.
    pub(super) fn grouping(&self) -> Result<Grouping> {
        let pattern = self.group_by.as_deref().map(Regex::new).transpose();
        let pattern = pattern.map_err(|error| Error::invalid("group pattern", error.to_string()))?;
        Ok(Grouping { pattern })
    }

    /// The examples of an example: one for each of its frames, where several are wanted. Those of one file are one group.
    pub(super) fn expand(&self, example: Example) -> Result<Vec<Example>> {
        let Source::Image(path) = &example.source else { return Ok(vec![example]) };
        if is_video_name(path) {
            return Ok(vec![example]);
        }
        let mut address = ImageAddress::of(path);
        let named = address.frame != Frame::Middle;
        address.frame = if named { address.frame } else { self.slices };
        address.window = address.window.or(self.window);
        if address.frame != Frame::All {
            return Ok(vec![Example { source: Source::Image(address.path()), ..example }]);
        }
        let id = ImageAddress { window: None, frame: Frame::Middle, ..ImageAddress::of(Path::new(&example.id)) };
        let id = id.path().to_string_lossy().into_owned();
        let paths = single_images(&address.path())?;
        let group = example.group.clone().or_else(|| (paths.len() > 1).then(|| id.clone()));
        let one = |path: PathBuf| {
            let Frame::Number(number) = ImageAddress::of(&path).frame else { return example.clone() };
            let id = format!("{id}#{number}");
            Example { id, source: Source::Image(path), group: group.clone(), ..example.clone() }
        };
        Ok(if paths.len() == 1 { vec![example.clone()] } else { paths.into_iter().map(one).collect() })
    }
}

/// What names the group of an example.
pub(super) struct Grouping {
    pattern: Option<Regex>,
}

impl Grouping {
    /// The group of an id under the pattern; `given` without one.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an id that the pattern does not match: it would silently be a group of its own.
    pub(super) fn of(&self, id: &str, given: Option<&String>) -> Result<Option<String>> {
        let Some(pattern) = &self.pattern else { return Ok(given.cloned()) };
        let found = pattern.captures(id).and_then(|captures| captures.get(1).or(captures.get(0)));
        let reason = || format!("`{}` does not match `{id}`; it must match every example", pattern.as_str());
        found.map(|found| Some(found.as_str().to_owned())).ok_or_else(|| Error::invalid("group pattern", reason()))
    }
}
