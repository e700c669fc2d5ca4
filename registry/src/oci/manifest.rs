//! OCI image manifests, read with bounds.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use super::document::{StringMap, parse};
use super::media::{annotation, media_type, title_is_safe};
use crate::digest::Digest;
use crate::error::{Error, Result};

/// The largest manifest, as registries have it.
pub(crate) const MAX_MANIFEST_BYTES: u64 = 4 << 20;
/// The most files of one adapter.
const MAX_LAYERS: usize = 256;
/// The largest layer that is believed, in bytes.
const MAX_LAYER_BYTES: u64 = 64 << 30;
/// The content of the empty config.
pub(crate) const EMPTY: &[u8] = b"{}";

/// A pointer to content: what it is, its digest, its size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// Its identity.
    pub digest: Digest,
    /// Its size, in bytes.
    pub size: u64,
    /// The type of artifact, for manifests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "no_annotations")]
    annotations: StringMap,
}

fn no_annotations(annotations: &StringMap) -> bool {
    annotations.0.is_empty()
}

impl Descriptor {
    /// A descriptor without annotations.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self { media_type: media_type.into(), digest, size, artifact_type: None, annotations: StringMap::default() }
    }

    /// With an annotation.
    pub fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.annotations.0.insert(key.into(), value.to_string());
        self
    }

    /// Its annotations.
    pub fn annotations(&self) -> &BTreeMap<String, String> {
        &self.annotations.0
    }

    /// The file name of a layer.
    pub fn title(&self) -> Option<&str> {
        self.annotations.0.get(annotation::TITLE).map(String::as_str)
    }
}

/// The manifest of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    schema_version: u32,
    media_type: String,
    /// What kind of artifact it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Its config.
    pub config: Descriptor,
    /// Its files.
    pub layers: Vec<Descriptor>,
    /// The manifest that this one is about, for signatures and deltas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    #[serde(default, skip_serializing_if = "no_annotations")]
    annotations: StringMap,
}

impl Manifest {
    /// A manifest.
    pub fn new(artifact_type: &str, config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: media_type::MANIFEST.into(),
            artifact_type: Some(artifact_type.into()),
            config,
            layers,
            subject: None,
            annotations: StringMap::default(),
        }
    }

    /// A manifest about another one, with an empty config.
    pub fn about(artifact_type: &str, subject: Descriptor, layers: Vec<Descriptor>) -> Self {
        let config = Descriptor::new(media_type::EMPTY, Digest::of(EMPTY), EMPTY.len() as u64);
        Self { subject: Some(subject), ..Self::new(artifact_type, config, layers) }
    }

    /// Its annotations.
    pub fn annotations(&self) -> &BTreeMap<String, String> {
        &self.annotations.0
    }

    pub(crate) fn annotations_mut(&mut self) -> &mut BTreeMap<String, String> {
        &mut self.annotations.0
    }

    /// Reads a manifest and checks that it is safe to act on.
    ///
    /// # Errors
    /// [`Error::Malformed`] or [`Error::TooLarge`], naming `what`.
    pub fn parse(bytes: &[u8], what: &str) -> Result<Self> {
        let too_large =
            |unit, limit, found: usize| Error::TooLarge { what: what.into(), unit, limit, found: found as u64 };
        if bytes.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(too_large("bytes", MAX_MANIFEST_BYTES, bytes.len()));
        }
        let manifest: Self = parse(bytes, "OCI manifest", what)?;
        let wrong = |reason: String| Err(Error::malformed("OCI manifest", what, reason));
        if manifest.schema_version != 2 || manifest.media_type != media_type::MANIFEST {
            return wrong(format!("expected schema 2 and media type `{}`", media_type::MANIFEST));
        }
        if manifest.layers.len() > MAX_LAYERS {
            return Err(too_large("layers", MAX_LAYERS as u64, manifest.layers.len()));
        }
        let mut titles = HashSet::new();
        for layer in manifest.layers.iter().chain([&manifest.config]) {
            if layer.size > MAX_LAYER_BYTES {
                return wrong(format!("layer {} claims {} bytes", layer.digest.short(), layer.size));
            }
            match layer.title() {
                Some(title) if !title_is_safe(title) => {
                    let title: String = title.chars().take(80).collect();
                    return wrong(format!("`{title}` is not a plain file name"));
                }
                // Names that differ in case only are one file on some platforms.
                Some(title) if !titles.insert(title.to_ascii_lowercase()) => {
                    return wrong(format!("file `{title}` is listed twice"));
                }
                _ => {}
            }
        }
        Ok(manifest)
    }

    /// The bytes whose digest is the identity of the manifest.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and numbers always make JSON")
    }

    /// The config and all layers.
    pub fn content(&self) -> impl Iterator<Item = &Descriptor> {
        [&self.config].into_iter().chain(&self.layers)
    }

    /// The layer with this file name.
    pub fn file(&self, title: &str) -> Option<&Descriptor> {
        self.layers.iter().find(|layer| layer.title() == Some(title))
    }

    /// Size of config and layers, in bytes.
    pub fn bytes(&self) -> u64 {
        self.content().map(|descriptor| descriptor.size).sum()
    }
}
