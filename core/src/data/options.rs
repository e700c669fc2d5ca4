//! How a data set is read, beside where it lies.

use std::path::{Path, PathBuf};

use regex::Regex;

use super::clip_config::ClipConfig;
use super::dataset::{Example, Source};
use crate::error::{Error, Result};
use crate::image::{Frame, ImageAddress, Window, is_image_name, is_video_name, single_images};

/// How a data set is read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DataOptions {
    /// Where the images of a split file or manifest lie; by default the folder of that file.
    pub root: Option<PathBuf>,
    /// A pattern over the examples' ids; what its first group matches (or all of it, without one) names the patient or
    /// whatever else must not be in two splits.
    pub group_by: Option<String>,
    /// The pattern that an adapter was fitted with. It counts as `group_by` where nothing is said of groups or splits and it matches
    /// every id: splits that are made here are then those that the adapter was fitted under.
    pub remembered_groups: Option<String>,
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
        Ok(Grouping { pattern: self.group_by.as_deref().map(compiled).transpose()? })
    }

    /// As [`grouping`](Self::grouping), for ids of which neither group nor split is known.
    ///
    /// # Errors
    /// As [`grouping`](Self::grouping).
    pub(super) fn grouping_of<'a>(&self, mut ids: impl Iterator<Item = &'a str>) -> Result<Grouping> {
        let (None, Some(remembered)) = (&self.group_by, &self.remembered_groups) else { return self.grouping() };
        let pattern = compiled(remembered)?;
        let fits = ids.all(|id| pattern.is_match(id));
        Ok(Grouping { pattern: fits.then_some(pattern) })
    }

    /// The examples of an example: one for each of its frames, where several are wanted. Those of one file are one group, also
    /// where a list names them one by one.
    pub(super) fn expand(&self, example: Example) -> Result<Vec<Example>> {
        let Source::Image(path) = &example.source else { return Ok(vec![example]) };
        // A folder is a clip.
        if is_video_name(path) || !is_image_name(path) && path.is_dir() {
            return Ok(vec![example]);
        }
        let mut address = ImageAddress::of(path);
        // What the path says behind the file, the id says as well.
        let says_more = address.file != *path;
        let id = example.id.rsplit_once('#').filter(|_| says_more).map_or(&*example.id, |(file, _)| file).to_owned();
        let named = address.frame != Frame::Middle;
        address.frame = if named { address.frame } else { self.slices };
        address.window = address.window.or(self.window);
        if address.frame != Frame::All {
            let group = example.group.clone().or(named.then_some(id));
            return Ok(vec![Example { source: Source::Image(address.path()), group, ..example }]);
        }
        let paths = single_images(&address.path())?;
        if paths.len() == 1 {
            // Called as its file is, and shown in the window all the same.
            let source = Source::Image(ImageAddress { frame: Frame::Middle, ..address }.path());
            let id = if named { id } else { example.id.clone() };
            return Ok(vec![Example { id, source, ..example }]);
        }
        let group = example.group.clone().unwrap_or_else(|| id.clone());
        let one = |path: PathBuf| {
            let Frame::Number(number) = ImageAddress::of(&path).frame else { return example.clone() };
            let id = format!("{id}#{number}");
            Example { id, source: Source::Image(path), group: Some(group.clone()), ..example.clone() }
        };
        Ok(paths.into_iter().map(one).collect())
    }
}

fn compiled(pattern: &str) -> Result<Regex> {
    Regex::new(pattern).map_err(|error| Error::invalid("group pattern", error.to_string()))
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

#[cfg(test)]
mod tests {
    use ::image::{ImageBuffer, Luma};

    use super::DataOptions;
    use crate::data::dataset::{Example, Source};
    use crate::data::open_dataset_with as open;
    use crate::error::Error;
    use crate::image::Frame;

    #[test]
    fn all_slices_of_a_file_with_one_are_that_one_in_the_window() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let deep: ImageBuffer<Luma<u16>, Vec<u16>> = ImageBuffer::from_fn(4, 1, |x, _| Luma([1000 * x as u16]));
        deep.save(path("deep.png")).expect("written");
        let options = DataOptions { slices: Frame::All, window: "1500:3000".parse().ok(), ..DataOptions::default() };
        // What names its own window, or all of its frames, keeps to that.
        for (id, source) in [("deep.png", "1500:3000"), ("deep.png#full", "full"), ("deep.png#*", "1500:3000")] {
            let example = Example::new(id, Source::Image(path(id)), 0);
            let found = options.expand(example).expect(id);
            let [one] = &found[..] else { panic!("{found:?}") };
            assert_eq!(one.source, Source::Image(path(&format!("deep.png#{source}"))), "{id}");
            assert_eq!((one.id.as_str(), &one.group), (id.trim_end_matches("#*"), &None));
        }
    }

    #[test]
    fn frames_of_one_file_that_are_named_one_by_one_are_one_group() {
        let folder = tempfile::tempdir().expect("a folder");
        let rows = |split: fn(usize) -> &'static str| -> String {
            let row = |at: usize| format!("v{}.nii#{},{}{}\n", at / 4, at % 4 + 1, ["a", "b"][at / 4 % 2], split(at));
            (0..40).map(row).collect()
        };
        for file in 0..10 {
            std::fs::write(folder.path().join(format!("v{file}.nii")), "x").expect("written");
        }
        let list = |header: &str, rows: String| {
            let path = folder.path().join("list.csv");
            std::fs::write(&path, format!("{header}\n{rows}")).expect("written");
            open(&path, &DataOptions::default())
        };
        let dataset = list("path,label", rows(|_| "")).expect("a data set");
        assert!(!dataset.train.is_empty() && !dataset.test.is_empty());
        for (_, example) in dataset.examples() {
            let file = example.id.split('#').next().map(String::from);
            assert_eq!(example.group, file, "{}", example.id);
        }
        let given = list("path,label,group", rows(|at| if at < 20 { ",p1" } else { ",p2" })).expect("a data set");
        assert!(given.examples().all(|(_, example)| matches!(example.group.as_deref(), Some("p1" | "p2"))));
        let parted = list("path,label,split", rows(|at| if at % 4 == 0 { ",test" } else { ",train" }));
        assert!(matches!(parted, Err(Error::Leak { parted: 10, .. })), "{parted:?}");
    }

    #[test]
    fn remembered_groups_count_where_nothing_else_is_said_and_fit_every_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, content: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("created");
            std::fs::write(&path, content).expect("written");
            path
        };
        let names: Vec<String> =
            (0..40).map(|at| format!("{}/p{}_{at}.png", ["clear", "nodule"][at % 2], at / 4)).collect();
        names.iter().for_each(|name| drop(write(&format!("scans/{name}"), "x")));
        let scans = folder.path().join("scans");
        let pattern = || Some("(p[0-9]+)_".to_string());
        let given = DataOptions { group_by: pattern(), ..DataOptions::default() };
        let remembered = DataOptions { remembered_groups: pattern(), ..DataOptions::default() };
        let [plain, fitted, again] =
            [&DataOptions::default(), &given, &remembered].map(|options| open(&scans, options).expect("a data set"));
        assert_ne!(plain.digest(), fitted.digest(), "patients are parted without the pattern");
        assert_eq!(again.digest(), fitted.digest());
        assert_eq!(again.test[0].group, fitted.test[0].group);
        // Another name, a column of groups, a column of splits: the pattern is not asked.
        write("scans/clear/q1.png", "x");
        assert!(matches!(open(&scans, &given), Err(Error::Invalid { .. })));
        let stranger = open(&scans, &remembered).expect("a data set");
        assert!(stranger.examples().all(|(_, example)| example.group.is_none()));
        let rows = |last: &str| {
            let rows = names.iter().map(|name| format!("{name},{},{last}\n", &name[..1]));
            format!("path,label,{}\n{}", if last == "g" { "group" } else { "split" }, rows.collect::<String>())
        };
        let grouped = open(&write("scans/groups.csv", &rows("g")), &remembered).expect("a data set");
        assert!(grouped.examples().all(|(_, example)| example.group.as_deref() == Some("g")));
        let split = open(&write("scans/splits.csv", &rows("train")), &remembered).expect("a data set");
        assert_eq!((split.train.len(), &split.train[0].group), (40, &None));
    }
}
