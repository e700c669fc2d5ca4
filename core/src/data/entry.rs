//! From what a folder or a list says of each image to a data set.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use super::dataset::{Dataset, Example, Source, name_of};
use super::options::DataOptions;
use super::split::{Split, assign_group_splits};
use crate::error::Result;

/// What stands between the labels of one image.
pub(super) const LABEL_SEPARATOR: char = ';';

/// The labels of one image; none for an empty text.
pub(super) fn split_labels(text: &str) -> Vec<String> {
    text.split(LABEL_SEPARATOR).map(str::trim).filter(|label| !label.is_empty()).map(str::to_owned).collect()
}

/// What is said of an image.
pub(super) struct Entry {
    /// Its split, where that is said.
    pub(super) split: Option<Split>,
    /// Its id.
    pub(super) id: String,
    /// Where it is.
    pub(super) source: Source,
    /// Its class names: one, or any number where images have several.
    pub(super) labels: Vec<String>,
    /// What it must not be parted from.
    pub(super) group: Option<String>,
}

/// Builds a data set: classes in order of their names, examples of each split in order of their ids, everything checked.
/// Where no split is said, each class is split by [`assign_group_splits`]. `origin` is what errors name.
///
/// # Errors
/// As [`Dataset::validate`], where [`DataOptions::one_class`] may ask for less, and [`Dataset::check_groups`]; faults of the
/// options.
pub(super) fn dataset_of(
    origin: &Path,
    entries: Vec<Entry>,
    multi_label: bool,
    options: &DataOptions,
) -> Result<Dataset> {
    let names: BTreeSet<&String> = entries.iter().flat_map(|entry| &entry.labels).collect();
    let classes: Vec<String> = names.into_iter().cloned().collect();
    let numbers: HashMap<String, usize> =
        classes.iter().enumerate().map(|(label, class)| (class.clone(), label)).collect();
    let grouping = match entries.iter().all(|entry| entry.group.is_none() && entry.split.is_none()) {
        true => options.grouping_of(entries.iter().map(|entry| entry.id.as_str()))?,
        false => options.grouping()?,
    };
    let mut examples = Vec::with_capacity(entries.len());
    for entry in entries {
        let mut labels: Vec<usize> = entry.labels.iter().map(|label| numbers[label]).collect();
        labels.sort_unstable();
        labels.dedup();
        let group = grouping.of(&entry.id, entry.group.as_ref())?;
        let label = labels.first().copied().unwrap_or(0);
        let example = Example { group, ..Example::new(entry.id, entry.source, label) };
        let example = if multi_label { Example { labels, ..example } } else { example };
        examples.extend(options.expand(example)?.into_iter().map(|example| (entry.split, example)));
    }
    // An image counts for each of its labels, so that a rare one can be learned; those without any are like a class of their own.
    let mut keys: Vec<(&str, usize)> = Vec::new();
    let mut places = Vec::with_capacity(examples.len());
    for (_, example) in &examples {
        places.push(keys.len());
        match &example.labels[..] {
            [] => keys.push((example.unit(), if multi_label { classes.len() } else { example.label })),
            labels => keys.extend(labels.iter().map(|label| (example.unit(), *label))),
        }
    }
    let assigned = assign_group_splits(&keys);
    let mut dataset = Dataset { multi_label, ..Dataset::empty(name_of(origin), classes) };
    for ((split, example), place) in examples.into_iter().zip(places) {
        dataset.split_mut(split.unwrap_or(assigned[place])).push(example);
    }
    dataset.sort();
    dataset.validate_with(origin, options.fewest_classes())?;
    dataset.check_groups(origin)?;
    Ok(dataset)
}
