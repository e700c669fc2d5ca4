//! The split files of the few-shot literature, `split_zhou_*.json`.

use std::path::Path;

use serde::Deserialize;

use super::dataset::{Dataset, Example, Source, name_of};
use super::split::Split;
use crate::error::{Error, Result};
use crate::file;

const FORMAT: &str = "split file (`split_zhou_*.json`)";

/// Image path, label, class name.
type Entry = (String, usize, String);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SplitFile {
    train: Vec<Entry>,
    #[serde(default)]
    val: Vec<Entry>,
    test: Vec<Entry>,
}

/// Reads a split file; its paths are relative to `root`. Labels and class names are those of the file. Whether the
/// images exist is not checked: see [`Dataset::check_files`].
///
/// # Errors
/// [`Error::Io`]; [`Error::Malformed`] when it is not of this format, a label has two names or none, and for all that
/// [`Dataset::validate`] checks.
pub fn read_coop_split(path: &Path, root: &Path) -> Result<Dataset> {
    let lists: SplitFile = file::read_json(path, FORMAT)?;
    let lists = [(Split::Train, lists.train), (Split::Val, lists.val), (Split::Test, lists.test)];
    let mut dataset = Dataset::empty(name_of(path), class_names(path, &lists)?);
    for (split, entries) in lists {
        let examples = entries.into_iter().map(|(relative, label, _)| {
            let id = relative.replace('\\', "/");
            Example::new(id.clone(), Source::Image(root.join(id)), label)
        });
        *dataset.split_mut(split) = examples.collect();
    }
    dataset.sort();
    dataset.validate(path)?;
    Ok(dataset)
}

/// The name of each label, which must be the same in every entry.
fn class_names(path: &Path, lists: &[(Split, Vec<Entry>)]) -> Result<Vec<String>> {
    let entries = || lists.iter().flat_map(|(_, entries)| entries);
    let total = entries().count();
    let classes = entries().map(|(_, label, _)| label.saturating_add(1)).max().unwrap_or(0);
    if classes > total {
        let reason = format!("label {} is beyond the number of entries, {total}", classes - 1);
        return Err(Error::malformed(FORMAT, path, reason));
    }
    let mut names: Vec<Option<&str>> = vec![None; classes];
    for (image, label, class) in entries() {
        match names[*label].replace(class) {
            Some(other) if other != class => {
                let reason = format!("label {label} is called `{other}` and, for `{image}`, `{class}`");
                return Err(Error::malformed(FORMAT, path, reason));
            }
            _ => {}
        }
    }
    let name = |(label, name): (usize, Option<&str>)| {
        name.map(str::to_owned).ok_or_else(|| Error::malformed(FORMAT, path, format!("no entry has label {label}")))
    };
    names.into_iter().enumerate().map(name).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::read_coop_split;
    use crate::data::{Dataset, Source};

    fn read(text: &str) -> Result<Dataset, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("split_zhou_Pets.json");
        std::fs::write(&path, text).unwrap();
        read_coop_split(&path, Path::new("images")).map_err(|error| error.to_string())
    }

    #[test]
    fn labels_and_names_are_those_of_the_file() {
        let text = r#"{"train": [["z/1.jpg", 0, "zebra"], ["a/1.jpg", 1, "ape"]], "test": [["a\\2.jpg", 1, "ape"]]}"#;
        let dataset = read(text).unwrap();
        assert_eq!((dataset.name.as_str(), dataset.classes.len()), ("split_zhou_Pets", 2));
        assert_eq!(dataset.classes, ["zebra", "ape"]);
        assert_eq!(dataset.test[0].id, "a/2.jpg");
        assert_eq!(dataset.test[0].source, Source::Image("images/a/2.jpg".into()));
        assert!(dataset.val.is_empty());
    }

    #[test]
    fn inconsistent_files_are_refused() {
        for (text, words) in [
            (r#"{"train": [["1", 0, "a"], ["2", 0, "b"]], "test": []}"#, "label 0 is called `a` and, for `2`, `b`"),
            (r#"{"train": [["1", 0, "a"], ["2", 2, "b"], ["3", 2, "b"]], "test": []}"#, "no entry has label 1"),
            (r#"{"train": [["1", 99999999999, "a"]], "test": []}"#, "beyond the number of entries"),
            (r#"{"train": [["1", 0, "a"], ["1", 1, "b"]], "test": []}"#, "listed more than once"),
            (r#"{"train": [["1", "0", "a"]], "test": []}"#, "line 1 column"),
            (r#"{"train": []}"#, "missing field `test`"),
        ] {
            let message = read(text).unwrap_err();
            assert!(message.contains(words), "{message}");
        }
    }
}
