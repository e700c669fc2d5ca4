//! Features of several data sets as those of one.

use std::sync::Arc;

use inarch_core::data::{Dataset, FeatureFile, Source};

use crate::error::{Error, Result};

/// Rows of several feature files, one file behind the other.
pub(super) struct JoinedFeatures {
    file: Option<Arc<FeatureFile>>,
    /// The row at which each data set begins.
    starts: Vec<usize>,
}

impl JoinedFeatures {
    /// Of data sets that are all images or all features; of one alone it is its own file.
    ///
    /// # Errors
    /// Images beside features; features of different backbones or lengths, or those that an adapter made.
    pub(super) fn of(datasets: &[Dataset]) -> Result<Self> {
        let files: Vec<(&str, &Arc<FeatureFile>)> =
            datasets.iter().filter_map(|dataset| Some((dataset.name.as_str(), dataset.features.as_ref()?))).collect();
        let starts: Vec<usize> = files
            .iter()
            .scan(0, |end, (_, file)| {
                let start = *end;
                *end += file.rows();
                Some(start)
            })
            .collect();
        let (name, first) = match files[..] {
            [] => return Ok(Self { file: None, starts: vec![0; datasets.len()] }),
            [(_, file)] if datasets.len() == 1 => return Ok(Self { file: Some(file.clone()), starts }),
            [first, ..] => first,
        };
        if let Some(images) = datasets.iter().find(|dataset| dataset.features.is_none()) {
            let reason = format!(
                "`{name}` holds features and `{}` images; encode the images with `inarch encode`, or give images alone",
                images.name
            );
            return Err(Error::setting("data", reason));
        }
        for (other, file) in &files {
            file.need_frozen(other)?;
            if file.backbone != first.backbone {
                let refused = inarch_core::Error::Refused {
                    what: format!("backbone of the features of `{other}`"),
                    expected: format!("{}, as `{name}` has it", first.backbone),
                    found: file.backbone.clone(),
                };
                return Err(refused.into());
            }
            if file.dim != first.dim {
                let what = format!("width of the features of `{other}`");
                let expected = format!("{} (as `{name}` has it)", first.dim);
                return Err(inarch_core::Error::mismatch(what, expected, file.dim).into());
            }
        }
        let joined = FeatureFile {
            backbone: first.backbone.clone(),
            adapter: None,
            kind: first.kind,
            ids: files.iter().flat_map(|(_, file)| &file.ids).cloned().collect(),
            labels: None,
            classes: None,
            splits: None,
            dim: first.dim,
            values: files.iter().flat_map(|(_, file)| &file.values).copied().collect(),
        };
        Ok(Self { file: Some(Arc::new(joined)), starts })
    }

    /// The file that [`source`](Self::source) points into.
    pub(super) fn file(&self) -> Option<Arc<FeatureFile>> {
        self.file.clone()
    }

    /// Where an example of a data set, by its number, comes from.
    pub(super) fn source(&self, dataset: usize, source: Source) -> Source {
        match source {
            Source::Row(row) => Source::Row(self.starts[dataset] + row),
            other => other,
        }
    }
}
