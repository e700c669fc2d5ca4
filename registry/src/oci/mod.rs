//! Adapters as OCI artifacts: manifests, media types, annotations.

mod card;
mod document;
mod layout;
mod manifest;
mod media;

pub use card::{Card, GateVerdict};
pub use manifest::{Descriptor, Manifest};
pub use media::{ARTIFACT_TYPE, annotation, media_type};

pub(crate) use card::{CARD_FILE, TENSORS_FILE};
pub(crate) use document::parse;
pub(crate) use layout::{ImageIndex, LAYOUT_FILE, LAYOUT_TEXT, MAX_INDEX_BYTES};
pub(crate) use manifest::{EMPTY, MAX_MANIFEST_BYTES};
pub(crate) use media::{title_is_safe, weigh};
