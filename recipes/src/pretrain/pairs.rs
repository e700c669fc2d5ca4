//! Images with their texts, from either kind of data set.

use std::path::PathBuf;

use inarch_core::data::{CaptionedSet, Dataset, Example, Source};
use inarch_core::{Digest, DigestBuilder, Seed};

use super::recipe::CaptionConfig;
use crate::error::{Error, Result};

/// Different texts of one group in a step.
const TEXTS_OF_A_GROUP: u64 = 4;

/// One image and what may be said about it.
#[derive(Debug, Clone)]
struct Pair {
    id: String,
    path: PathBuf,
    group: String,
    caption: Option<String>,
}

/// A set of image-text pairs. Pairs of one group are positives of one another.
#[derive(Debug, Clone)]
pub struct PairSet {
    pairs: Vec<Pair>,
    captions: CaptionConfig,
}

impl PairSet {
    /// Labelled images (the training split), whose texts are drawn from templates and names.
    ///
    /// # Errors
    /// No template, no image, images with several labels, or a data set of features.
    pub fn from_labels(dataset: &Dataset, captions: &CaptionConfig) -> Result<Self> {
        dataset.need_single_labels("a caption")?;
        if captions.templates.is_empty() {
            return Err(Error::Recipe {
                origin: "captions.templates".into(),
                reason: "labelled images need at least one template, e.g. `a photo of a {}.`".into(),
            });
        }
        let unknown = captions.names.keys().find(|name| !dataset.classes.contains(name));
        if let Some(unknown) = unknown {
            return Err(Error::Core(inarch_core::Error::Unknown {
                kind: "class in captions.names",
                name: unknown.clone(),
                candidates: dataset.classes.clone(),
            }));
        }
        let pairs = dataset
            .train
            .iter()
            .map(|example| match &example.source {
                Source::Image(path) => Ok(Pair {
                    id: example.id.clone(),
                    path: path.clone(),
                    group: dataset.classes[example.label].clone(),
                    caption: None,
                }),
                Source::Bytes(..) | Source::Row(_) | Source::Clip(_) => Err(Error::Recipe {
                    origin: dataset.name.clone(),
                    reason: "pre-training needs image files, this data set holds features or clips".into(),
                }),
            })
            .collect::<Result<Vec<_>>>()?;
        Self::checked(pairs, captions.clone())
    }

    /// Captioned images. A pair without a group stands for itself; equal captions are positives.
    ///
    /// # Errors
    /// No pair.
    pub fn from_captions(set: &CaptionedSet) -> Result<Self> {
        let pairs = set
            .examples
            .iter()
            .map(|example| Pair {
                id: example.id.clone(),
                path: example.path.clone(),
                group: example.group.clone().unwrap_or_else(|| example.caption.clone()),
                caption: Some(example.caption.clone()),
            })
            .collect();
        Self::checked(pairs, CaptionConfig::default())
    }

    fn checked(pairs: Vec<Pair>, captions: CaptionConfig) -> Result<Self> {
        if pairs.len() < 2 {
            return Err(Error::Recipe {
                origin: "data".into(),
                reason: format!("contrastive training needs at least 2 pairs, found {}", pairs.len()),
            });
        }
        Ok(Self { pairs, captions })
    }

    /// The images as a data set without labels, in the order of the pairs.
    pub fn dataset(&self, name: &str) -> Dataset {
        let example = |pair: &Pair| Example::new(pair.id.clone(), Source::Image(pair.path.clone()), 0);
        Dataset::unlabelled(name.into(), self.pairs.iter().map(example).collect())
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Never, for a checked set.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The image file of a pair.
    pub fn path(&self, index: usize) -> &PathBuf {
        &self.pairs[index].path
    }

    /// The text and group of a pair. Where there is a choice, `step` decides: the images of a group share a few texts
    /// in each step, so that most of the work goes to images.
    pub fn caption(&self, index: usize, step: Seed) -> (String, String) {
        let pair = &self.pairs[index];
        let text = pair.caption.clone().unwrap_or_else(|| {
            let variant = step.hash(&pair.id) % TEXTS_OF_A_GROUP;
            let draw = step.split(variant).hash(&pair.group);
            let templates = &self.captions.templates;
            let template = &templates[(draw >> 32) as usize % templates.len()];
            match self.captions.names.get(&pair.group).filter(|names| !names.is_empty()) {
                Some(names) => template.fill(&names[(draw & 0xffff_ffff) as usize % names.len()]),
                None => template.fill(&pair.group),
            }
        });
        (text, pair.group.clone())
    }

    /// Identity of the pairs: ids, groups and captions. Not what the images show: there are millions, of which a start would have
    /// to read every byte.
    pub fn digest(&self) -> Digest {
        let mut builder = DigestBuilder::default();
        for pair in &self.pairs {
            builder.piece(pair.id.as_bytes());
            builder.piece(pair.group.as_bytes());
            builder.piece(pair.caption.as_deref().unwrap_or_default().as_bytes());
        }
        builder.finish()
    }
}
