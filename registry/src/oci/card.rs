//! What a registry knows of an adapter without opening its tensors.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::document::parse;
use super::manifest::{Descriptor, Manifest};
use super::media::{ARTIFACT_TYPE, annotation, media_type};
use crate::digest::Digest;
use crate::error::{Error, Result};

/// The file that describes an adapter.
pub(crate) const CARD_FILE: &str = "adapter.json";
/// The file with its tensors.
pub(crate) const TENSORS_FILE: &str = "adapter.safetensors";
/// The most parents of one adapter.
const MAX_PARENTS: usize = 1024;

/// What a gate decided about an adapter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "verdict", content = "reason")]
pub enum GateVerdict {
    /// It may go on.
    Pass,
    /// It may not, for this reason.
    Fail(String),
}

impl GateVerdict {
    fn text(&self) -> String {
        match self {
            Self::Pass => "pass".into(),
            Self::Fail(reason) => format!("fail: {reason}"),
        }
    }

    fn parse(text: &str) -> Self {
        match text.strip_prefix("fail") {
            Some(reason) => Self::Fail(reason.trim_start_matches(':').trim().into()),
            None if text == "pass" => Self::Pass,
            // A verdict that is not understood is none to rely on.
            None => Self::Fail(format!("unknown verdict `{text}`")),
        }
    }
}

/// The facts about an adapter that are searched and shown; they stand in the annotations of its manifest.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Card {
    /// Method.
    pub method: String,
    /// Name of the backbone at training time.
    pub backbone_name: String,
    /// Identity of the backbone.
    pub backbone: String,
    /// Number of trained values.
    pub parameters: u64,
    /// Number of classes.
    pub classes: u64,
    /// Identity of the training data.
    pub data: Option<String>,
    /// Manifests it was made from.
    pub parents: Vec<Digest>,
    /// Figures by name.
    pub metrics: BTreeMap<String, f64>,
    /// The publisher's labels.
    pub labels: BTreeMap<String, String>,
    /// What the gate said.
    pub verdict: Option<GateVerdict>,
}

/// The part of `adapter.json` that is read here; the whole is checked by whoever opens the adapter.
#[derive(Deserialize)]
struct AdapterFile {
    schema: u32,
    method: Value,
    backbone: BackboneEntry,
    #[serde(default)]
    classes: Vec<String>,
    #[serde(default)]
    precision: String,
    data: Option<String>,
    #[serde(default)]
    metrics: BTreeMap<String, Option<f64>>,
    #[serde(default)]
    parameters: u64,
    tensors: Digest,
}

#[derive(Deserialize)]
struct BackboneEntry {
    name: String,
    digest: String,
}

impl Card {
    /// Reads `adapter.json`, checks that it belongs to these tensors, and returns the card and the ModelPack config.
    pub(crate) fn read(bytes: &[u8], tensors: &Digest, layers: &[Descriptor]) -> Result<(Self, Value)> {
        let file: AdapterFile = parse(bytes, "adapter manifest", format!("`{CARD_FILE}`"))?;
        if file.schema == 0 {
            return Err(Error::malformed("adapter manifest", format!("`{CARD_FILE}`"), "schema 0 does not exist"));
        }
        if file.tensors != *tensors {
            return Err(Error::damaged(format!("`{TENSORS_FILE}`"), &file.tensors, tensors));
        }
        let method = match &file.method {
            Value::String(name) => name.clone(),
            method => method.get("name").and_then(Value::as_str).unwrap_or("unknown").into(),
        };
        let config = json!({
            "descriptor": { "family": method, "title": format!("{method} adapter for {}", file.backbone.name) },
            "config": {
                "architecture": "adapter",
                "format": "safetensors",
                "paramSize": file.parameters.to_string(),
                "precision": file.precision,
            },
            "modelfs": {
                "type": "layers",
                "diffIds": layers.iter().map(|layer| layer.digest.to_string()).collect::<Vec<_>>(),
            },
        });
        let metrics = file.metrics.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        let card = Self {
            method,
            backbone_name: file.backbone.name,
            backbone: file.backbone.digest,
            parameters: file.parameters,
            classes: file.classes.len() as u64,
            data: file.data,
            metrics,
            ..Self::default()
        };
        Ok((card, config))
    }

    /// The manifest of an adapter with this card.
    pub(crate) fn manifest(&self, config: Descriptor, layers: Vec<Descriptor>) -> Manifest {
        debug_assert_eq!(config.media_type, media_type::CONFIG);
        let mut manifest = Manifest::new(ARTIFACT_TYPE, config, layers);
        let annotations = manifest.annotations_mut();
        let mut set = |key: &str, value: String| annotations.insert(key.into(), value);
        set(annotation::METHOD, self.method.clone());
        set(annotation::BACKBONE_NAME, self.backbone_name.clone());
        set(annotation::BACKBONE_DIGEST, self.backbone.clone());
        set(annotation::PARAMETERS, self.parameters.to_string());
        set(annotation::CLASSES, self.classes.to_string());
        if let Some(data) = &self.data {
            set(annotation::DATA, data.clone());
        }
        if !self.parents.is_empty() {
            let parents: Vec<String> = self.parents.iter().map(ToString::to_string).collect();
            set(annotation::PARENTS, parents.join(","));
        }
        for (name, value) in &self.metrics {
            set(&format!("{}{name}", annotation::METRIC), value.to_string());
        }
        for (name, value) in &self.labels {
            set(&format!("{}{name}", annotation::LABEL), value.clone());
        }
        if let Some(verdict) = &self.verdict {
            set(annotation::VERDICT, verdict.text());
        }
        manifest
    }

    /// The card that stands in a manifest.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the manifest is no adapter's.
    pub fn of(manifest: &Manifest, what: &str) -> Result<Self> {
        let wrong = |reason: String| Error::malformed("adapter", what, reason);
        if manifest.artifact_type.as_deref() != Some(ARTIFACT_TYPE) {
            return Err(wrong(format!("its artifact type is not `{ARTIFACT_TYPE}`")));
        }
        for title in [CARD_FILE, TENSORS_FILE] {
            if manifest.file(title).is_none() {
                return Err(wrong(format!("it has no file `{title}`")));
            }
        }
        let annotations = manifest.annotations();
        let text = |key: &str| annotations.get(key).cloned();
        let needed = |key: &str| text(key).ok_or_else(|| wrong(format!("annotation `{key}` is missing")));
        let count = |key: &str| text(key).and_then(|text| text.parse().ok()).unwrap_or(0);
        let below = |prefix: &'static str| {
            annotations
                .iter()
                .filter_map(move |(key, value)| Some((key.strip_prefix(prefix)?.to_string(), value.clone())))
        };
        // JSON, and so the index, has no other numbers.
        let figure = |text: String| text.parse().ok().filter(|value: &f64| value.is_finite());
        let parents = text(annotation::PARENTS).unwrap_or_default();
        let parents: Vec<Digest> = parents
            .split(',')
            .filter(|parent| !parent.is_empty())
            .map(|parent| parent.parse().map_err(|_| wrong("a parent is not a digest".into())))
            .collect::<Result<_>>()?;
        if parents.len() > MAX_PARENTS {
            return Err(wrong(format!("more than {MAX_PARENTS} parents")));
        }
        Ok(Self {
            method: needed(annotation::METHOD)?,
            backbone_name: text(annotation::BACKBONE_NAME).unwrap_or_default(),
            backbone: needed(annotation::BACKBONE_DIGEST)?,
            parameters: count(annotation::PARAMETERS),
            classes: count(annotation::CLASSES),
            data: text(annotation::DATA),
            parents,
            metrics: below(annotation::METRIC).filter_map(|(name, value)| Some((name, figure(value)?))).collect(),
            labels: below(annotation::LABEL).collect(),
            verdict: text(annotation::VERDICT).map(|text| GateVerdict::parse(&text)),
        })
    }
}
