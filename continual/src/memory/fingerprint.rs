//! What latents were made with. They are numbers that mean something to one backbone and one image preparation only.

use inarch_core::Digest;
use inarch_core::backbone::Backbone;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Identity of the backbone and of the image preparation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    /// The backbone's name, for people.
    pub name: String,
    /// The backbone.
    pub backbone: Digest,
    /// The image preparation.
    pub preprocess: Digest,
    /// Length of a latent.
    pub dim: usize,
}

impl Fingerprint {
    /// Of a backbone.
    pub fn of(backbone: &Backbone) -> Self {
        let preprocess = serde_json::to_vec(backbone.preprocess()).unwrap_or_default();
        Self {
            name: backbone.name().into(),
            backbone: backbone.digest().clone(),
            preprocess: Digest::of(&preprocess),
            dim: backbone.spec().dim,
        }
    }

    /// Checks that latents of `self` may be used beside `other`; `what` is named otherwise.
    ///
    /// # Errors
    /// [`Error::Stale`].
    pub fn check(&self, other: &Self, what: &str) -> Result<()> {
        if self.is_like(other) {
            return Ok(());
        }
        Err(Error::Stale { what: what.into(), expected: self.shown(), found: other.shown() })
    }

    /// Whether latents of both may stand beside each other.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        (&self.backbone, &self.preprocess) == (&other.backbone, &other.preprocess)
    }

    /// For people.
    pub(crate) fn shown(&self) -> String {
        format!("backbone {} ({}), preparation {}", self.name, self.backbone.short(), self.preprocess.short())
    }
}
