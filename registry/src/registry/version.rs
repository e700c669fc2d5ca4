//! One version of one adapter.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::name::{Name, Release};
use crate::oci::Descriptor;

/// A published version. It never changes; its number is never given to anything else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Version {
    /// The adapter.
    pub name: Name,
    /// Its number, from 1.
    pub number: u64,
    /// Its semantic version, where the publisher gave one.
    pub release: Option<Release>,
    /// The digest of its manifest.
    pub digest: Digest,
    /// Size of its manifest, in bytes.
    pub manifest_bytes: u64,
    /// When it was published, RFC 3339.
    pub published: String,
}

impl Version {
    /// The descriptor of its manifest.
    pub fn descriptor(&self) -> Descriptor {
        let mut descriptor = Descriptor::new(crate::oci::media_type::MANIFEST, self.digest, self.manifest_bytes);
        descriptor.artifact_type = Some(crate::oci::ARTIFACT_TYPE.into());
        descriptor
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.name, self.number)
    }
}

/// What stands on disk: `names/<name>/versions/<number>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    pub(crate) number: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) release: Option<Release>,
    /// The digest of the manifest.
    pub(crate) manifest: Digest,
    pub(crate) manifest_bytes: u64,
    /// The digest of the manifest without what is given at publication: equal content is not published twice.
    pub(crate) content: Digest,
    pub(crate) published: String,
    /// When it was removed by retention; its number stays taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) removed: Option<String>,
}

impl Record {
    pub(crate) fn version(&self, name: &Name) -> Version {
        Version {
            name: name.clone(),
            number: self.number,
            release: self.release.clone(),
            digest: self.manifest,
            manifest_bytes: self.manifest_bytes,
            published: self.published.clone(),
        }
    }
}
