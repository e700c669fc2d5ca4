//! A data set for classification, and the checks that every source goes through.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::clip::Clip;
use super::clip_config::ClipConfig;
use super::feature_file::FeatureFile;
use super::split::Split;
use crate::digest::{Digest, DigestBuilder};
use crate::error::{Error, Result};

/// Where the content of an example is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// An image file.
    Image(PathBuf),
    /// Several images, in the order of time.
    Clip(Clip),
    /// A row of [`Dataset::features`].
    Row(usize),
}

/// One labelled example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// A name that stays the same wherever the data lies: the path relative to the data set, with `/`.
    pub id: String,
    /// Where its content is.
    pub source: Source,
    /// Its class, an index into [`Dataset::classes`].
    pub label: usize,
}

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
    /// Files that were passed over because they are hidden or no images.
    pub ignored_files: usize,
}

impl Dataset {
    /// Builds a data set from named classes: the classes are put in order of their names, the examples of each split in
    /// order of their ids, and everything is checked. `origin` is what errors name.
    ///
    /// # Errors
    /// As [`Dataset::validate`].
    pub(super) fn from_named(origin: &Path, examples: Vec<(Split, String, Source, String)>) -> Result<Self> {
        let classes: Vec<String> =
            examples.iter().map(|(.., class)| class.clone()).collect::<BTreeSet<_>>().into_iter().collect();
        let labels: HashMap<&str, usize> =
            classes.iter().enumerate().map(|(label, class)| (class.as_str(), label)).collect();
        let mut dataset = Self::empty(name_of(origin), classes.clone());
        for (split, id, source, class) in examples {
            let label = labels[class.as_str()];
            dataset.split_mut(split).push(Example { id, source, label });
        }
        dataset.sort();
        dataset.validate(origin)?;
        Ok(dataset)
    }

    /// Images without labels, all in the training split.
    pub fn unlabelled(name: String, train: Vec<Example>) -> Self {
        Self { train, ..Self::empty(name, Vec::new()) }
    }

    /// A data set without examples.
    pub(super) fn empty(name: String, classes: Vec<String>) -> Self {
        let (train, val, test) = (Vec::new(), Vec::new(), Vec::new());
        Self { name, classes, train, val, test, features: None, clips: None, ignored_files: 0 }
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
        let wrong = |reason: String| Err(Error::malformed("data set", origin, reason));
        let classes = self.classes.len();
        if classes < 2 {
            let found = self.classes.first().map_or("none".into(), |class| format!("only `{class}`"));
            return wrong(format!("more than one class is needed, found {found}"));
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
            match used[usize::from(split != Split::Train)].get_mut(example.label) {
                Some(flag) => *flag = true,
                None => {
                    let (id, label) = (&example.id, example.label);
                    return wrong(format!("`{id}` has label {label}, but labels go from 0 to {}", classes - 1));
                }
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

    /// Checks that one image of every class of every split exists, which tells a wrong root folder at once.
    ///
    /// # Errors
    /// [`Error::Malformed`] naming the first missing image.
    pub fn check_files(&self, origin: &Path) -> Result<()> {
        let mut seen = HashSet::new();
        for (split, example) in self.examples() {
            if let Source::Image(path) = &example.source
                && seen.insert((split, example.label))
                && !path.is_file()
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
                Some(Example { label, ..example.clone() })
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
            ignored_files: self.ignored_files,
        })
    }

    /// The identity of the data: class names in order, and id and label of every example by split. Neither the name,
    /// the place nor the order of the examples counts.
    pub fn digest(&self) -> Digest {
        let mut digest = DigestBuilder::default();
        digest.piece(&(self.classes.len() as u64).to_le_bytes());
        for class in &self.classes {
            digest.piece(class.as_bytes());
        }
        for split in [Split::Train, Split::Val, Split::Test] {
            let mut examples: Vec<(&str, usize)> =
                self.split(split).iter().map(|example| (example.id.as_str(), example.label)).collect();
            examples.sort_unstable();
            digest.piece(split.to_string().as_bytes()).piece(&(examples.len() as u64).to_le_bytes());
            for (id, label) in examples {
                digest.piece(id.as_bytes()).piece(&(label as u64).to_le_bytes());
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
                Example { source: Source::Image(id.clone().into()), id, label }
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
