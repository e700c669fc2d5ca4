//! Where adapters come from.

use std::any::Any;
use std::path::{Path, PathBuf};

use inarch_core::{DigestBuilder, file};
use inarch_peft::{MANIFEST_FILE, PEFT_CONFIG_FILE, PEFT_TENSORS_FILE};

use crate::error::Result;

/// One version of an adapter: a name for people and an identity for machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The adapter's name.
    pub name: String,
    /// The version, as people write it.
    pub version: String,
    /// Identity of its content, `sha256:...`.
    pub digest: String,
}

/// The files of a version, for as long as this value lives.
pub struct Files {
    /// Folder with the files of an artifact, or of an adapter of Hugging Face PEFT.
    pub folder: PathBuf,
    /// Whatever keeps them there.
    pub lease: Option<Box<dyn Any + Send>>,
}

/// A store of named adapters, such as a registry. It is asked with every request, so it answers from memory as long as
/// nothing has changed.
pub trait Source: Send + Sync {
    /// The newest version of each adapter.
    ///
    /// # Errors
    /// The store cannot be read.
    fn list(&self) -> Result<Vec<Version>>;

    /// The version that a reference (`name`, `name@alias`, `name@version`, a digest) stands for now.
    ///
    /// # Errors
    /// The store cannot be read.
    fn resolve(&self, reference: &str) -> Result<Option<Version>>;

    /// The files of a version.
    ///
    /// # Errors
    /// The store cannot be read, or its content is damaged.
    fn files(&self, version: &Version) -> Result<Files>;

    /// Moves an alias, if it stands where the caller believes. `None` as the expected version means any.
    ///
    /// # Errors
    /// [`Error::Conflict`](crate::Error::Conflict) when the alias stands elsewhere.
    fn promote(&self, name: &str, alias: &str, version: &str, expected: Option<&str>) -> Result<Version>;
}

/// The version in a folder, named by its content.
pub(super) fn version_of(name: &str, folder: &Path) -> Result<Version> {
    let mut digest = DigestBuilder::default();
    // The manifest of an artifact holds the digest of its tensors; a PEFT configuration does not.
    if folder.join(PEFT_CONFIG_FILE).is_file() {
        digest.piece(&file::read(&folder.join(PEFT_CONFIG_FILE))?);
        digest.piece(&file::read(&folder.join(PEFT_TENSORS_FILE))?);
    } else {
        digest.piece(&file::read(&folder.join(MANIFEST_FILE))?);
    }
    let digest = digest.finish();
    Ok(Version { name: name.into(), version: digest.short().into(), digest: digest.to_string() })
}
