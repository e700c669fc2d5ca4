//! One version of an adapter in memory.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use inarch_core::backbone::{Backbone, Entry, Sites, Tower};
use inarch_peft::{Artifact, Stacking, open_adapter};

use crate::error::Result;

/// An adapter that was checked against the backbone and has passed its self-test.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// Identity of its content.
    pub(crate) digest: String,
    pub(crate) artifact: Artifact,
    /// Bytes of its tensors.
    pub(crate) bytes: u64,
    folded: RwLock<Option<Arc<Backbone>>>,
}

impl Loaded {
    /// Reads the files of a version and checks them; what is `tested` has passed its self-test on this machine before.
    pub(super) fn open(digest: &str, folder: &Path, backbone: &Backbone, tested: bool) -> Result<Self> {
        let artifact = open_adapter(folder, backbone)?;
        if !tested {
            artifact.self_test(backbone)?;
        }
        let values: usize = artifact.adapter.parameters().values().map(|tensor| tensor.data.len()).sum();
        let bytes = (values * size_of::<f32>()) as u64;
        Ok(Self { digest: digest.into(), artifact, bytes, folded: RwLock::new(None) })
    }

    pub(crate) fn sites(&self) -> &dyn Sites {
        self.artifact.adapter.sites()
    }

    /// Whether it was trained for classes.
    pub(crate) fn knows_classes(&self) -> bool {
        !self.artifact.manifest.classes.is_empty()
    }

    /// Whether its image features are the frozen ones, short of its feature site.
    pub(crate) fn shares_image_features(&self) -> bool {
        self.sites().entry(Tower::Image) >= Entry::Feature
    }

    /// Whether its rows can stand beside any others in a batch.
    pub(crate) fn mixes(&self) -> bool {
        self.artifact.manifest.method.stacking() == Stacking::Anywhere
    }

    /// The backbone with this adapter written into its weights, while that is worth its memory.
    pub(crate) fn folded(&self) -> Option<Arc<Backbone>> {
        self.folded.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_folded(&self, folded: Option<Arc<Backbone>>) {
        *self.folded.write().unwrap_or_else(PoisonError::into_inner) = folded;
    }
}
