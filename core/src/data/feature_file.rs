//! `features.safetensors`: features computed before, here or elsewhere, with their ids and labels.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use half::f16;
use safetensors::{Dtype, SafeTensors};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::dataset::{Dataset, Source};
use super::entry::{Entry, LABEL_SEPARATOR, dataset_of, split_labels};
use super::options::DataOptions;
use super::split::Split;
use crate::error::{Error, Result};
use crate::file;

const FORMAT: &str = "feature file";
/// The metadata that [`FeatureFile`] has fields for.
const FIELDS: [&str; 7] = ["adapter", "backbone", "classes", "ids", "kind", "labels", "splits"];

/// What the rows of a feature file are features of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeatureKind {
    /// Images.
    Image,
    /// Texts.
    Text,
}

/// Features `[n, dim]` with what is known about each row. The lists have one entry per row.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureFile {
    /// The backbone that made them, by its digest, or any text for features from elsewhere.
    pub backbone: String,
    /// The adapter that changed them on their way, by method and digest; `None` for those of the frozen backbone.
    pub adapter: Option<String>,
    /// What the rows are features of.
    pub kind: FeatureKind,
    /// Path or text of each row.
    pub ids: Vec<String>,
    /// Class name of each row.
    pub labels: Option<Vec<String>>,
    /// All class names in the order of their labels; without it they are sorted by name.
    pub classes: Option<Vec<String>>,
    /// Split of each row.
    pub splits: Option<Vec<Split>>,
    /// Length of a feature.
    pub dim: usize,
    /// The features, row after row, as the backbone gives them, not normalised.
    pub values: Vec<f32>,
}

impl FeatureFile {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.ids.len()
    }

    /// Refuses features that an adapter made where one is put on them, or learns from them: the first would be at work twice,
    /// and the second would meet other features when it meets images. `name` is what the error names.
    ///
    /// # Errors
    /// [`Error::Refused`] naming the adapter.
    pub fn need_frozen(&self, name: &str) -> Result<()> {
        let Some(adapter) = &self.adapter else { return Ok(()) };
        Err(Error::Refused {
            what: format!("features of `{name}`"),
            expected: "those of the frozen backbone, which `inarch encode` without `-a` writes".into(),
            found: format!("those that adapter `{adapter}` made"),
        })
    }

    /// The feature of a row, if there is one.
    pub fn row(&self, row: usize) -> Option<&[f32]> {
        self.values.chunks_exact(self.dim.max(1)).nth(row)
    }

    /// Reads a file; features may be stored as f32 or f16.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Malformed`] naming the tensor, the metadata key or the row that is wrong.
    pub fn read(path: &Path) -> Result<Self> {
        Self::read_with(path).map(|(features, _)| features)
    }

    /// As [`read`](Self::read), with all entries of the metadata that are none of its fields.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_with(path: &Path) -> Result<(Self, BTreeMap<String, String>)> {
        let bytes = file::read(path)?;
        let wrong = |reason: String| Error::malformed(FORMAT, path, reason);
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| wrong(error.to_string()))?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(|error| wrong(error.to_string()))?;
        if tensors.names() != ["features"] {
            let mut names = tensors.names();
            names.sort_unstable();
            return Err(wrong(format!("expected the one tensor `features`, found {}", list(&names))));
        }
        let tensor = tensors.tensor("features").map_err(|error| wrong(error.to_string()))?;
        let &[_, dim] = tensor.shape() else {
            return Err(wrong(format!("tensor `features`: expected shape [n, dim], found {:?}", tensor.shape())));
        };
        let values = match tensor.dtype() {
            Dtype::F32 => tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            Dtype::F16 => tensor.data().chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
            other => return Err(wrong(format!("tensor `features`: expected F32 or F16, found {other:?}"))),
        };
        let metadata = header.metadata().clone().unwrap_or_default();
        let required = |key: &str| {
            metadata.get(key).ok_or_else(|| {
                wrong(format!("header metadata has no `{key}`, found {}", {
                    let names: BTreeSet<&str> = metadata.keys().map(String::as_str).collect();
                    list(&names.into_iter().collect::<Vec<_>>())
                }))
            })
        };
        let features = Self {
            backbone: required("backbone")?.clone(),
            adapter: metadata.get("adapter").cloned(),
            kind: parse(path, "kind", &Value::from(required("kind")?.as_str()).to_string())?,
            ids: parse(path, "ids", required("ids")?)?,
            labels: metadata.get("labels").map(|text| parse(path, "labels", text)).transpose()?,
            classes: metadata.get("classes").map(|text| parse(path, "classes", text)).transpose()?,
            splits: metadata.get("splits").map(|text| splits(path, text)).transpose()?,
            dim,
            values,
        };
        features.check(path)?;
        let further = metadata.into_iter().filter(|(key, _)| !FIELDS.contains(&key.as_str())).collect();
        Ok((features, further))
    }

    /// Writes a file, whole or not at all; the same content gives the same bytes.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the lists do not fit together or a value is not finite; [`Error::Io`].
    pub fn write(&self, path: &Path) -> Result<()> {
        self.write_with(path, &BTreeMap::new())
    }

    /// As [`write`](Self::write), with further entries in the metadata.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_with(&self, path: &Path, further: &BTreeMap<String, String>) -> Result<()> {
        self.check(path)?;
        let mut metadata = Map::new();
        let mut put = |key: &str, value: String| metadata.insert(key.into(), Value::String(value));
        if let Some(adapter) = &self.adapter {
            put("adapter", adapter.clone());
        }
        put("backbone", self.backbone.clone());
        if let Some(classes) = &self.classes {
            put("classes", json!(classes).to_string());
        }
        put("ids", json!(self.ids).to_string());
        put("kind", json!(self.kind).as_str().unwrap_or_default().to_owned());
        if let Some(labels) = &self.labels {
            put("labels", json!(labels).to_string());
        }
        if let Some(splits) = &self.splits {
            put("splits", json!(splits).to_string());
        }
        for (key, value) in further {
            put(key, value.clone());
        }
        let bytes = self.values.len() * 4;
        let tensor = json!({"dtype": "F32", "shape": [self.rows(), self.dim], "data_offsets": [0, bytes]});
        // The header is written here because the library gives the metadata in another order every time.
        let mut header = json!({"__metadata__": metadata, "features": tensor}).to_string();
        header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
        let mut content = Vec::with_capacity(8 + header.len() + bytes);
        content.extend((header.len() as u64).to_le_bytes());
        content.extend(header.as_bytes());
        content.extend(self.values.iter().flat_map(|value| value.to_le_bytes()));
        file::write(path, &content)
    }

    /// Makes a data set of labelled image features. Without splits each class is split by
    /// [`assign_group_splits`](super::assign_group_splits). A label with `;` stands for several.
    ///
    /// # Errors
    /// [`Error::Malformed`] when there are no labels, a label is none of the classes, the rows are texts, and for all
    /// that [`Dataset::validate`] checks. `origin` is what errors name.
    pub fn into_dataset(self, origin: &Path) -> Result<Dataset> {
        self.into_dataset_with(origin, &DataOptions::default())
    }

    /// As [`into_dataset`](Self::into_dataset), with groups.
    ///
    /// # Errors
    /// As [`into_dataset`](Self::into_dataset); [`Error::Leak`], and faults of the options.
    pub fn into_dataset_with(self, origin: &Path, options: &DataOptions) -> Result<Dataset> {
        let wrong = |reason: String| Error::malformed(FORMAT, origin, reason);
        self.check(origin)?;
        if self.kind == FeatureKind::Text {
            return Err(wrong("its rows are texts; a data set needs features of images".into()));
        }
        let Some(labels) = &self.labels else {
            return Err(wrong("it has no `labels`; encode a labelled data set to get a file that has".into()));
        };
        let multi_label = labels.iter().any(|label| label.contains(LABEL_SEPARATOR));
        let entries = labels.iter().zip(&self.ids).enumerate().map(|(row, (labels, id))| {
            let labels = if multi_label { split_labels(labels) } else { vec![labels.clone()] };
            let split = self.splits.as_ref().map(|splits| splits[row]);
            let stranger = self.classes.as_ref().and_then(|all| labels.iter().find(|label| !all.contains(label)));
            match (stranger, &self.classes) {
                (Some(name), Some(classes)) => {
                    Err(wrong(format!("row `{id}` has label `{name}`, which is none of the classes {}", list(classes))))
                }
                _ => Ok(Entry { split, id: id.clone(), source: Source::Row(row), labels, group: None }),
            }
        });
        let entries = entries.collect::<Result<Vec<_>>>()?;
        let mut dataset = dataset_of(origin, entries, multi_label, options)?;
        if let Some(classes) = &self.classes {
            dataset = dataset.restrict(classes).map_err(|error| match error {
                Error::Unknown { name, .. } => {
                    wrong(format!("class `{name}` has no examples; remove the class or add images"))
                }
                other => wrong(other.to_string()),
            })?;
        }
        dataset.features = Some(Arc::new(self));
        Ok(dataset)
    }

    /// Checks that all parts fit together and every value is finite.
    fn check(&self, path: &Path) -> Result<()> {
        let wrong = |reason: String| Err(Error::malformed(FORMAT, path, reason));
        if self.ids.is_empty() || self.dim == 0 {
            return wrong(format!("it must not be empty, found {} rows of length {}", self.rows(), self.dim));
        }
        if self.ids.len().checked_mul(self.dim) != Some(self.values.len()) {
            let found = self.values.len() / self.dim;
            return wrong(format!("`ids` has {} entries for {found} rows of `features`", self.ids.len()));
        }
        let lists = [("labels", self.labels.as_ref().map(Vec::len)), ("splits", self.splits.as_ref().map(Vec::len))];
        for (name, length) in lists {
            if let Some(length) = length.filter(|&length| length != self.rows()) {
                return wrong(format!("`{name}` has {length} entries for {} rows", self.rows()));
            }
        }
        match self.values.iter().position(|value| !value.is_finite()) {
            Some(at) => wrong(format!("row `{}` holds {}; encode it again", self.ids[at / self.dim], self.values[at])),
            None => Ok(()),
        }
    }
}

fn parse<T: DeserializeOwned>(path: &Path, key: &str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| Error::malformed(FORMAT, path, format!("metadata `{key}`: {error}")))
}

fn splits(path: &Path, text: &str) -> Result<Vec<Split>> {
    let names: Vec<String> = parse(path, "splits", text)?;
    let split = |name: &String| {
        let reason = || format!("metadata `splits` holds `{name}`; expected {}", Split::NAMES);
        Split::from_name(name).ok_or_else(|| Error::malformed(FORMAT, path, reason()))
    };
    names.iter().map(split).collect()
}

/// Names for a message, cut off after ten.
fn list(names: &[impl AsRef<str>]) -> String {
    let shown: Vec<String> = names.iter().take(10).map(|name| format!("`{}`", name.as_ref())).collect();
    match names.len() {
        0 => "none".into(),
        more if more > 10 => format!("{} and {} more", shown.join(", "), more - 10),
        _ => shown.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use half::f16;
    use safetensors::{Dtype, serialize, tensor::TensorView};

    use super::{FeatureFile, FeatureKind};
    use crate::data::{Source, Split};

    fn sample() -> FeatureFile {
        FeatureFile {
            backbone: "sha256:00".into(),
            adapter: None,
            kind: FeatureKind::Image,
            ids: ["x/1.jpg", "x/\"2\".jpg", "y/ü.jpg"].map(String::from).into(),
            labels: Some(["x", "x", "a"].map(String::from).into()),
            classes: None,
            splits: Some(vec![Split::Train, Split::Test, Split::Train]),
            dim: 2,
            values: vec![0.5, -1.0, 2.0, 3.25, -4.0, 5.0],
        }
    }

    fn round_trip(features: &FeatureFile) -> Result<FeatureFile, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("features.safetensors");
        features.write(&path).and_then(|()| FeatureFile::read(&path)).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_written_is_read_and_becomes_a_data_set() {
        let features = sample();
        assert_eq!(round_trip(&features).unwrap(), features);
        assert_eq!(features.row(1), Some(&[2.0, 3.25][..]));
        let dataset = features.clone().into_dataset("f.safetensors".as_ref()).unwrap();
        assert_eq!(dataset.classes, ["a", "x"]);
        assert_eq!((dataset.train[0].id.as_str(), &dataset.train[0].source), ("x/1.jpg", &Source::Row(0)));
        assert_eq!((dataset.train.len(), dataset.test.len(), dataset.test[0].label), (2, 1, 1));
        let ordered = FeatureFile { classes: Some(vec!["x".into(), "a".into()]), ..features };
        assert_eq!(ordered.into_dataset("f".as_ref()).unwrap().classes, ["x", "a"]);
    }

    #[test]
    fn what_an_adapter_made_says_so_and_takes_no_other() {
        let adapted = FeatureFile { adapter: Some("clip-adapter sha256:01".into()), ..sample() };
        assert_eq!(round_trip(&adapted).unwrap(), adapted);
        let message = adapted.need_frozen("f.safetensors").unwrap_err().to_string();
        assert!(message.contains("`f.safetensors`") && message.contains("`clip-adapter sha256:01`"), "{message}");
        sample().need_frozen("f.safetensors").unwrap();
    }

    #[test]
    fn half_precision_is_read() {
        let data: Vec<u8> = [1.5f32, -2.0].iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect();
        let view = TensorView::new(Dtype::F16, vec![1, 2], &data).unwrap();
        let metadata = [("backbone", "b"), ("kind", "text"), ("ids", "[\"a photo\"]"), ("format", "pt")];
        let metadata: HashMap<String, String> = metadata.map(|(key, value)| (key.into(), value.into())).into();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.safetensors");
        std::fs::write(&path, serialize([("features", view)], Some(metadata)).unwrap()).unwrap();
        let features = FeatureFile::read(&path).unwrap();
        assert_eq!((features.kind, features.values.as_slice()), (FeatureKind::Text, &[1.5, -2.0][..]));
        assert!(features.into_dataset(&path).unwrap_err().to_string().contains("texts"));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (features, words) in [
            (
                FeatureFile { values: vec![0.0, 1.0, 2.0, f32::NAN, 0.0, 0.0], ..sample() },
                "row `x/\"2\".jpg` holds NaN",
            ),
            (FeatureFile { values: vec![0.0; 4], ..sample() }, "3 entries for 2 rows"),
            (FeatureFile { labels: Some(vec!["x".into()]), ..sample() }, "`labels` has 1 entries for 3 rows"),
            (FeatureFile { ids: vec![], ..sample() }, "must not be empty"),
        ] {
            let message = round_trip(&features).unwrap_err();
            assert!(message.contains(words), "{message}");
        }
        for (features, words) in [
            (FeatureFile { labels: None, ..sample() }, "no `labels`"),
            (
                FeatureFile { classes: Some(vec!["x".into()]), ..sample() },
                "label `a`, which is none of the classes `x`",
            ),
            (FeatureFile { ids: vec!["x".into(); 3], ..sample() }, "more than once"),
        ] {
            let message = features.into_dataset("f".as_ref()).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.safetensors");
        std::fs::write(&path, b"no tensors here").unwrap();
        assert!(FeatureFile::read(&path).is_err());
    }
}
