//! A data set for classification, and the checks that every source goes through.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::sync::Arc;

use super::clip_config::ClipConfig;
pub use super::example::{Example, Source};
use super::feature_file::FeatureFile;
use super::options::DataOptions;
use super::split::Split;
use crate::digest::{Digest, DigestBuilder};
use crate::error::{Error, Result};
use crate::image::{ImageAddress, Window};

/// What hidden files are called in [`Dataset::ignored_files`].
pub const HIDDEN_FILES: &str = "hidden";

/// Labelled examples in three splits.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// A name for reports, usually that of the folder or file.
    pub name: String,
    /// Class names as the source has them (underscores are kept), in the order of the labels.
    pub classes: Vec<String>,
    /// What is learned from.
    pub train: Vec<Example>,
    /// What choices are made on; may be empty.
    pub val: Vec<Example>,
    /// What is reported on; may be empty.
    pub test: Vec<Example>,
    /// The rows that [`Source::Row`] points into.
    pub features: Option<Arc<FeatureFile>>,
    /// How examples are read as clips; `None` for still images.
    pub clips: Option<ClipConfig>,
    /// The window that grey values are shown in, where an id names none.
    pub window: Option<Window>,
    /// How many files were passed over, by what they are: [`HIDDEN_FILES`], `.txt`, `without extension`.
    pub ignored_files: BTreeMap<String, usize>,
    /// Whether an image may have any number of classes, which are then in [`Example::labels`].
    pub multi_label: bool,
}

impl Dataset {
    /// The same examples with the groups, frames and windows of the options.
    ///
    /// # Errors
    /// Faults of the options, and [`Error::Leak`].
    pub(super) fn with_options(mut self, origin: &Path, options: &DataOptions) -> Result<Self> {
        let grouping = options.grouping()?;
        for split in [&mut self.train, &mut self.val, &mut self.test] {
            let mut examples = Vec::with_capacity(split.len());
            for example in split.drain(..) {
                let group = grouping.of(&example.id, example.group.as_ref())?;
                examples.extend(options.expand(Example { group, ..example })?);
            }
            *split = examples;
        }
        self.sort();
        self.check_groups(origin)?;
        Ok(self)
    }

    /// Images without labels, all in the training split.
    pub fn unlabelled(name: String, train: Vec<Example>) -> Self {
        Self { train, ..Self::empty(name, Vec::new()) }
    }

    /// A data set without examples.
    pub(super) fn empty(name: String, classes: Vec<String>) -> Self {
        let (train, val, test) = (Vec::new(), Vec::new(), Vec::new());
        let ignored_files = BTreeMap::new();
        Self {
            name,
            classes,
            train,
            val,
            test,
            features: None,
            clips: None,
            window: None,
            ignored_files,
            multi_label: false,
        }
    }

    pub(super) fn split_mut(&mut self, split: Split) -> &mut Vec<Example> {
        match split {
            Split::Train => &mut self.train,
            Split::Val => &mut self.val,
            Split::Test => &mut self.test,
        }
    }

    pub(super) fn sort(&mut self) {
        for split in [&mut self.train, &mut self.val, &mut self.test] {
            split.sort_by(|a, b| a.id.cmp(&b.id));
        }
    }

    /// The classes of an example, by number: one, or any number of them where an image may have several.
    pub fn labels_of<'e>(&self, example: &'e Example) -> &'e [usize] {
        if self.multi_label { &example.labels } else { std::slice::from_ref(&example.label) }
    }

    /// Checks that every image has one label, for what cannot do with several.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `what`.
    pub fn need_single_labels(&self, what: &str) -> Result<()> {
        if !self.multi_label {
            return Ok(());
        }
        let reason = format!("{what} needs images with one label each; `fit`, `eval` and `predict` take several");
        Err(Error::invalid(format!("data set `{}`", self.name), reason))
    }

    /// The examples of a split.
    pub fn split(&self, split: Split) -> &[Example] {
        match split {
            Split::Train => &self.train,
            Split::Val => &self.val,
            Split::Test => &self.test,
        }
    }

    /// All examples with their splits.
    pub fn examples(&self) -> impl Iterator<Item = (Split, &Example)> {
        let all = [Split::Train, Split::Val, Split::Test];
        all.into_iter().flat_map(|split| self.split(split).iter().map(move |example| (split, example)))
    }

    /// Checks what training and evaluation rely on: at least two classes, distinct names and ids, labels in range,
    /// every class used, and, where there is a train split, nothing in val or test that it does not show. `origin` is
    /// what errors name.
    ///
    /// # Errors
    /// [`Error::Malformed`] with what is wrong and what to do.
    pub fn validate(&self, origin: &Path) -> Result<()> {
        self.validate_with(origin, 2)
    }

    /// As [`validate`](Self::validate), where `fewest` classes are enough.
    pub(super) fn validate_with(&self, origin: &Path, fewest: usize) -> Result<()> {
        let wrong = |reason: String| Err(Error::malformed("data set", origin, reason));
        let classes = self.classes.len();
        if classes < fewest {
            let needed = if fewest > 1 { "more than one class is needed" } else { "a class is needed" };
            let found = self.classes.first().map_or("none".into(), |class| format!("only `{class}`"));
            return wrong(format!("{needed}, found {found}"));
        }
        let mut names = HashSet::new();
        if let Some(class) = self.classes.iter().find(|class| !names.insert(class.as_str())) {
            return wrong(format!("two classes are called `{class}`"));
        }
        if self.classes.iter().any(|class| class.trim().is_empty()) {
            return wrong("a class has an empty name".into());
        }
        let mut ids = HashSet::new();
        let mut used = [vec![false; classes], vec![false; classes]];
        for (split, example) in self.examples() {
            if !ids.insert(example.id.as_str()) {
                return wrong(format!("`{}` is listed more than once (last in {split})", example.id));
            }
            for label in self.labels_of(example) {
                let Some(flag) = used[usize::from(split != Split::Train)].get_mut(*label) else {
                    let id = &example.id;
                    return wrong(format!("`{id}` has label {label}, but labels go from 0 to {}", classes - 1));
                };
                *flag = true;
            }
        }
        let [trained, evaluated] = &used;
        for (class, (&trained, &evaluated)) in self.classes.iter().zip(trained.iter().zip(evaluated)) {
            if !trained && !evaluated {
                return wrong(format!("class `{class}` has no examples; remove the class or add images"));
            }
            if !trained && !self.train.is_empty() {
                let reason = "is in val or test but has no training example; add some or remove the class";
                return wrong(format!("class `{class}` {reason}"));
            }
        }
        Ok(())
    }

    /// Checks that no group is in two splits: what is learned from one image of a patient tells about the others.
    ///
    /// # Errors
    /// [`Error::Leak`] naming the first group in order of names, and how many there are.
    pub fn check_groups(&self, origin: &Path) -> Result<()> {
        let mut places: BTreeMap<&str, BTreeSet<Split>> = BTreeMap::new();
        for (split, example) in self.examples() {
            if let Some(group) = &example.group {
                places.entry(group).or_default().insert(split);
            }
        }
        let (groups, mut parted) = (places.len(), places.into_iter().filter(|(_, splits)| splits.len() > 1));
        let Some((group, splits)) = parted.next() else { return Ok(()) };
        let splits: Vec<String> = splits.iter().map(ToString::to_string).collect();
        Err(Error::Leak {
            path: origin.to_path_buf(),
            group: group.to_owned(),
            splits: splits.join(" and in "),
            parted: 1 + parted.count(),
            groups,
        })
    }

    /// Checks that one image of every class of every split exists, which tells a wrong root folder at once.
    ///
    /// # Errors
    /// [`Error::Malformed`] naming the first missing image.
    pub fn check_files(&self, origin: &Path) -> Result<()> {
        let mut seen = HashSet::new();
        for (split, example) in self.examples() {
            if let Source::Image(path) = &example.source
                && seen.insert((split, example.label))
                && !ImageAddress::of(path).file.is_file()
            {
                let reason = format!("image `{}` does not exist; is the root folder the right one?", path.display());
                return Err(Error::malformed("data set", origin, reason));
            }
        }
        Ok(())
    }

    /// The same data with some of the classes only, in the given order; labels become indices into it.
    ///
    /// # Errors
    /// [`Error::Unknown`] for a name that is no class, [`Error::Invalid`] for one given twice or for none.
    pub fn restrict(&self, classes: &[String]) -> Result<Self> {
        if classes.is_empty() {
            return Err(Error::invalid("classes", "at least one class must be kept"));
        }
        if self.multi_label && classes.len() < self.classes.len() {
            let reason = "an image with several labels cannot be without some of them; take all classes";
            return Err(Error::invalid("classes", reason));
        }
        let mut new_label = vec![None; self.classes.len()];
        for (label, name) in classes.iter().enumerate() {
            let Some(old) = self.classes.iter().position(|class| class == name) else {
                return Err(Error::Unknown { kind: "class", name: name.clone(), candidates: self.classes.clone() });
            };
            if new_label[old].replace(label).is_some() {
                return Err(Error::invalid("classes", format!("`{name}` is given twice")));
            }
        }
        let keep = |examples: &[Example]| {
            let relabel = |example: &Example| {
                let label = new_label.get(example.label).copied().flatten()?;
                let mut labels: Vec<usize> =
                    example.labels.iter().filter_map(|label| new_label.get(*label).copied().flatten()).collect();
                labels.sort_unstable();
                Some(Example { label, labels, ..example.clone() })
            };
            examples.iter().filter_map(relabel).collect()
        };
        Ok(Self {
            name: self.name.clone(),
            classes: classes.to_vec(),
            train: keep(&self.train),
            val: keep(&self.val),
            test: keep(&self.test),
            features: self.features.clone(),
            clips: self.clips.clone(),
            window: self.window,
            ignored_files: self.ignored_files.clone(),
            multi_label: self.multi_label,
        })
    }

    /// The identity of the data: class names in order, and id and label of every example by split. Neither the name,
    /// the place nor the order of the examples counts, nor what the files hold: it is what a list says, without the images, and
    /// reports and artifacts have it. Whether results of before are those of this data is told by [`contents`](Self::contents).
    pub fn digest(&self) -> Digest {
        let mut digest = DigestBuilder::default();
        digest.piece(&(self.classes.len() as u64).to_le_bytes());
        for class in &self.classes {
            digest.piece(class.as_bytes());
        }
        for split in [Split::Train, Split::Val, Split::Test] {
            let mut examples: Vec<&Example> = self.split(split).iter().collect();
            examples.sort_unstable_by_key(|example| (&example.id, example.label));
            digest.piece(split.to_string().as_bytes()).piece(&(examples.len() as u64).to_le_bytes());
            for example in examples {
                digest.piece(example.id.as_bytes()).piece(&(example.label as u64).to_le_bytes());
                if self.multi_label {
                    digest.piece(format!("{:?}", example.labels).as_bytes());
                }
            }
        }
        digest.finish()
    }
}

/// The last part of a path, without extension for a file.
pub(super) fn name_of(path: &Path) -> String {
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let part = if whole.is_dir() { whole.file_name() } else { whole.file_stem() };
    part.map_or("data".into(), |part| part.to_string_lossy().into_owned())
}

#[cfg(test)]
pub(super) use self::tests::sample;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Dataset, Example, Source};
    use crate::error::Error;

    /// Two examples of each class in train and one in test.
    pub(in crate::data) fn sample(classes: &[&str]) -> Dataset {
        let mut dataset = Dataset::empty("sample".into(), classes.iter().map(|class| (*class).into()).collect());
        for (label, class) in classes.iter().enumerate() {
            let example = |name: &str| {
                let id = format!("{class}/{name}");
                Example::new(id.clone(), Source::Image(id.into()), label)
            };
            dataset.train.extend([example("1.jpg"), example("2.jpg")]);
            dataset.test.push(example("3.jpg"));
        }
        dataset
    }

    fn reason(dataset: &Dataset) -> String {
        dataset.validate(Path::new("here")).unwrap_err().to_string()
    }

    #[test]
    fn every_fault_is_named() {
        let good = sample(&["cat", "dog"]);
        good.validate(Path::new("here")).unwrap();
        assert!(reason(&sample(&["cat"])).contains("only `cat`"));
        assert!(reason(&sample(&["cat", "cat"])).contains("two classes are called `cat`"));
        let mut bad = good.clone();
        bad.test[0].id = "cat/1.jpg".into();
        assert!(reason(&bad).contains("`cat/1.jpg` is listed more than once"));
        let mut bad = good.clone();
        bad.train[0].label = 2;
        assert!(reason(&bad).contains("label 2, but labels go from 0 to 1"));
        let mut bad = good.clone();
        bad.classes.push("bird".into());
        assert!(reason(&bad).contains("class `bird` has no examples"));
        let mut bad = good.clone();
        bad.train.retain(|example| example.label == 0);
        assert!(reason(&bad).contains("class `dog` is in val or test"));
        assert!(good.check_files(Path::new("here")).unwrap_err().to_string().contains("cat/1.jpg"));
    }

    #[test]
    fn restricting_relabels_in_the_given_order() {
        let some = sample(&["a", "b", "c"]).restrict(&["c".into(), "a".into()]).unwrap();
        assert_eq!(some.classes, ["c", "a"]);
        let labels: Vec<(&str, usize)> = some.test.iter().map(|example| (example.id.as_str(), example.label)).collect();
        assert_eq!(labels, [("a/3.jpg", 1), ("c/3.jpg", 0)]);
        assert!(
            matches!(some.restrict(&["b".into()]), Err(Error::Unknown { candidates, .. }) if candidates == ["c", "a"])
        );
        assert!(some.restrict(&["a".into(), "a".into()]).is_err());
    }

    #[test]
    fn a_group_in_two_splits_is_named() {
        let mut dataset = sample(&["cat", "dog"]);
        dataset.check_groups(Path::new("here")).unwrap();
        for example in dataset.train.iter_mut().chain(&mut dataset.test) {
            example.group = Some(format!("p{}", example.label));
        }
        dataset.test[0].group = Some("p9".into());
        match dataset.check_groups(Path::new("here")) {
            Err(Error::Leak { group, splits, parted, groups, .. }) => {
                assert_eq!((group.as_str(), splits.as_str(), parted, groups), ("p1", "train and in test", 1, 3));
            }
            other => panic!("expected a leak, got {other:?}"),
        }
    }

    #[test]
    fn the_digest_is_of_the_content() {
        let one = sample(&["a", "b"]);
        let mut other = one.clone();
        other.train.reverse();
        other.name = "elsewhere".into();
        assert_eq!(one.digest(), other.digest());
        other.train[0].label = 0;
        assert_ne!(one.digest(), other.digest());
        let mut moved = one.clone();
        let example = moved.test.pop().unwrap();
        moved.val.push(example);
        assert_ne!(one.digest(), moved.digest());
    }
}
