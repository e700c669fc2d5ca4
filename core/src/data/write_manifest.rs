//! A data set as a manifest, with its splits written down.

use std::path::Path;

use super::dataset::{Dataset, Source};
use crate::error::{Error, Result};
use crate::file;

/// Writes `path,label,split` and, where there are groups, `group`, as CSV: what [`read_manifest`](super::read_manifest) reads,
/// with the folder that the images lie in as its root. Paths are the examples' ids, so a frame is part of them; the same data
/// set gives the same bytes.
///
/// # Errors
/// [`Error::Invalid`] for a data set of features; [`Error::Io`].
pub fn write_manifest(dataset: &Dataset, path: &Path) -> Result<()> {
    let with_groups = dataset.examples().any(|(_, example)| example.group.is_some());
    let mut rows = csv::Writer::from_writer(Vec::new());
    let fault = |error: csv::Error| Error::malformed("manifest", path, error);
    rows.write_record(["path", "label", "split", "group"].iter().take(3 + usize::from(with_groups))).map_err(fault)?;
    for (split, example) in dataset.examples() {
        if matches!(example.source, Source::Row(_)) {
            let reason = "it holds features, not images; a features file keeps its splits itself";
            return Err(Error::invalid(format!("data set `{}`", dataset.name), reason));
        }
        let labels: Vec<&str> =
            dataset.labels_of(example).iter().map(|label| dataset.classes[*label].as_str()).collect();
        let (labels, split) = (labels.join(";"), split.to_string());
        let mut row = vec![example.id.as_str(), &labels, &split];
        if with_groups {
            row.push(example.unit());
        }
        rows.write_record(row).map_err(fault)?;
    }
    let bytes = rows.into_inner().map_err(|error| Error::malformed("manifest", path, error))?;
    file::write(path, &bytes)
}

#[cfg(test)]
mod tests {
    use super::write_manifest;
    use crate::data::dataset::sample;
    use crate::data::{DataOptions, Manifest, read_manifest};

    #[test]
    fn what_is_written_is_read_as_the_same_data_set() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("splits.csv");
        let mut dataset = sample(&["cat, \"big\"", "dog"]);
        for with_groups in [false, true] {
            if with_groups {
                dataset.train.iter_mut().for_each(|example| example.group = Some("p1".into()));
            }
            write_manifest(&dataset, &path).unwrap();
            let Manifest::Labelled(found) = read_manifest(&path, &DataOptions::default()).unwrap() else {
                panic!("expected labels")
            };
            assert_eq!(found.digest(), dataset.digest());
            assert_eq!(found.train[0].group.is_some(), with_groups);
            // Those without a group are one of their own.
            assert_eq!(found.test[0].group, with_groups.then(|| found.test[0].id.clone()));
        }
    }
}
