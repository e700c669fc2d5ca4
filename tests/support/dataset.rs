//! Data sets of features that are not in a file.

use std::sync::Arc;

use inarch_core::data::{Dataset, Example, FeatureFile, FeatureKind, Source, Split};

/// A row of such a data set.
pub(crate) struct FeatureRow {
    pub(crate) id: String,
    pub(crate) label: usize,
    pub(crate) split: Split,
    pub(crate) values: Vec<f32>,
}

/// Image features of some classes; examples come in the order of the rows.
pub(crate) fn feature_dataset(name: &str, classes: Vec<String>, rows: impl IntoIterator<Item = FeatureRow>) -> Dataset {
    let (mut ids, mut values, mut dim) = (Vec::new(), Vec::new(), 0);
    let (mut train, mut val, mut test) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        let example = Example::new(row.id.clone(), Source::Row(ids.len()), row.label);
        match row.split {
            Split::Train => train.push(example),
            Split::Val => val.push(example),
            Split::Test => test.push(example),
        }
        dim = row.values.len();
        ids.push(row.id);
        values.extend(row.values);
    }
    assert_eq!(values.len(), ids.len() * dim, "rows of one length");
    let features = FeatureFile {
        backbone: "synthetic".into(),
        adapter: None,
        kind: FeatureKind::Image,
        ids,
        labels: None,
        classes: None,
        splits: None,
        dim,
        values,
    };
    Dataset {
        name: name.into(),
        classes,
        train,
        val,
        test,
        features: Some(Arc::new(features)),
        clips: None,
        window: None,
        ignored_files: Default::default(),
        multi_label: false,
    }
}
