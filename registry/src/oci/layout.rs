//! The two files that make a folder an OCI image layout.

use serde::{Deserialize, Serialize};

use super::manifest::Descriptor;
use super::media::media_type;

/// Marks an OCI image layout.
pub(crate) const LAYOUT_FILE: &str = "oci-layout";
/// Its content.
pub(crate) const LAYOUT_TEXT: &[u8] = b"{\"imageLayoutVersion\":\"1.0.0\"}";
/// The largest `index.json` that is read.
pub(crate) const MAX_INDEX_BYTES: u64 = 256 << 20;

/// `index.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ImageIndex {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    pub(crate) manifests: Vec<Descriptor>,
}

impl ImageIndex {
    pub(crate) fn new(manifests: Vec<Descriptor>) -> Self {
        Self { schema_version: 2, media_type: Some(media_type::INDEX.into()), manifests }
    }
}
