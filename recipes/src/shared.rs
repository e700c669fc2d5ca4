//! Frozen image features that several runs over one data set share.

use std::collections::HashMap;
use std::sync::Arc;

use inarch_core::Seed;
use inarch_core::backbone::Entry;
use inarch_core::data::{Example, Source};
use inarch_core::image::Augment;

use crate::encode::{ImageFeatures, Views, encode_frozen};
use crate::error::Result;
use crate::session::Session;

/// Bytes of features that are kept for later runs.
const MOST_BYTES: usize = 256 << 20;

/// Features of single images, by the kind of their views and their id.
#[derive(Default)]
pub(crate) struct SharedFeatures {
    /// Rows of the first views of an image, one after the other.
    rows: HashMap<(String, String), Vec<f32>>,
    bytes: usize,
    /// Features of examples whose images are gone, by id.
    given: HashMap<String, Vec<f32>>,
}

impl SharedFeatures {
    fn get(&self, kind: &str, id: &str, values: usize) -> Option<&[f32]> {
        self.rows.get(&(kind.to_string(), id.to_string()))?.get(..values)
    }

    fn insert(&mut self, kind: &str, id: &str, rows: &[f32]) {
        if self.bytes + size_of_val(rows) <= MOST_BYTES {
            self.bytes += size_of_val(rows);
            self.rows.insert((kind.to_string(), id.to_string()), rows.to_vec());
        }
    }
}

impl Session<'_> {
    /// Features of an example that this session has no image of, to be found under its id where its source is a row.
    pub fn give(&self, id: &str, feature: Vec<f32>) {
        self.shared.borrow_mut().given.insert(id.to_string(), feature);
    }

    /// Frozen features of examples in the centre view, computed once for this session.
    ///
    /// # Errors
    /// An image that cannot be read, features that an adapter made, or an interruption.
    pub fn features(&self, examples: &[Example]) -> Result<ImageFeatures> {
        self.frozen(Entry::Feature, examples, &Views::Centre)
    }

    /// Frozen features of examples in `count` views, drawn by `seed` and the id of each, as training draws them; `[examples *
    /// count, dim]`, example-major.
    ///
    /// # Errors
    /// As [`features`](Self::features), and a data set of features, which has no images to draw views of.
    pub fn drawn_features(
        &self,
        examples: &[Example],
        count: usize,
        augment: &Augment,
        seed: Seed,
    ) -> Result<ImageFeatures> {
        if self.dataset.features.is_some() {
            let reason = "it holds features, and views are drawn of images; give the images";
            return Err(inarch_core::Error::invalid(format!("data set `{}`", self.dataset.name), reason).into());
        }
        self.frozen(Entry::Feature, examples, &Views::Augmented { count, augment: Arc::new(augment.clone()), seed })
    }

    /// The frozen image tower over some examples up to `until`; pooled features are computed once for all runs of this
    /// session.
    pub(crate) fn frozen(&self, until: Entry, examples: &[Example], views: &Views) -> Result<ImageFeatures> {
        self.need_frozen()?;
        let Self { backbone, dataset, policy, control, .. } = self;
        let encode = |examples: &[Example]| encode_frozen(backbone, until, dataset, examples, views, *policy, *control);
        if until < Entry::Feature {
            return encode(examples);
        }
        let (kind, count) = match views {
            Views::Centre => ("centre".to_string(), 1),
            // A features file holds one row for each image, whatever views are asked for.
            Views::Augmented { .. } if dataset.features.is_some() => ("centre".to_string(), 1),
            // A view depends on the seed, the image and its own number, so more views only add to fewer.
            Views::Augmented { count, augment, seed } => (format!("{seed:?} {augment:?}"), *count),
        };
        let dim = backbone.image_values();
        let mut shared = self.shared.borrow_mut();
        let mut own = SharedFeatures::default();
        for example in examples {
            match shared.given.get(&example.id) {
                Some(row) => drop(own.rows.insert((kind.clone(), example.id.clone()), row.repeat(count))),
                None if matches!(example.source, Source::Row(_)) && dataset.features.is_none() => {
                    let reason = "there is neither an image nor a feature of it";
                    return Err(inarch_core::Error::invalid(format!("example `{}`", example.id), reason).into());
                }
                None => {}
            }
        }
        let missing = |example: &&Example| {
            own.get(&kind, &example.id, count * dim).is_none() && shared.get(&kind, &example.id, count * dim).is_none()
        };
        let missing: Vec<Example> = examples.iter().filter(missing).cloned().collect();
        let fresh = if missing.is_empty() { None } else { Some(encode(&missing)?) };
        for (row, position) in fresh.iter().flat_map(|fresh| fresh.kept.iter().enumerate()) {
            let values =
                fresh.as_ref().map_or(&[][..], |fresh| &fresh.values[row * count * dim..(row + 1) * count * dim]);
            // What does not fit into the shared store is still needed here.
            own.rows.insert((kind.clone(), missing[*position].id.clone()), values.to_vec());
            shared.insert(&kind, &missing[*position].id, values);
        }
        let (mut kept, mut values) = (Vec::new(), Vec::new());
        for (position, example) in examples.iter().enumerate() {
            let size = count * dim;
            let Some(rows) = own.get(&kind, &example.id, size).or_else(|| shared.get(&kind, &example.id, size)) else {
                continue;
            };
            kept.push(position);
            values.extend_from_slice(rows);
        }
        let bad = fresh.map(|fresh| fresh.bad).unwrap_or_default();
        Ok(ImageFeatures { entry: Entry::Feature, tokens: 1, dim, views: count, frames: 1, values, kept, bad })
    }
}
