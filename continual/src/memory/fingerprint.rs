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
        if (&self.backbone, &self.preprocess) == (&other.backbone, &other.preprocess) {
            return Ok(());
        }
        let show = |print: &Self| {
            format!("backbone {} ({}), preparation {}", print.name, print.backbone.short(), print.preprocess.short())
        };
        Err(Error::Stale { what: what.into(), expected: show(self), found: show(other) })
    }
}
