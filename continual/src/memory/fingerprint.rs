//! What latents were made with. They are numbers that mean something to one backbone and one image preparation only.

use inarch_core::Digest;
use inarch_core::backbone::Backbone;
use inarch_core::image::Window;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Identity of the backbone and of the image preparation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    /// The backbone's name, for people.
    pub name: String,
    /// The backbone.
    pub backbone: Digest,
    /// The image preparation.
    pub preprocess: Digest,
    /// The window that grey values were shown in, where an image names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// Length of a latent.
    pub dim: usize,
}

impl Fingerprint {
    /// Of a backbone that sees grey values in a window.
    pub fn of(backbone: &Backbone, window: Option<Window>) -> Self {
        let preprocess = serde_json::to_vec(backbone.preprocess()).unwrap_or_default();
        Self {
            name: backbone.name().into(),
            backbone: backbone.digest().clone(),
            preprocess: Digest::of(&preprocess),
            window,
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

    /// Checks that latents of `self` are of a backbone, in whatever window; `what` is named otherwise.
    ///
    /// # Errors
    /// [`Error::Stale`].
    pub fn check_backbone(&self, backbone: &Backbone, what: &str) -> Result<()> {
        self.check(&Self::of(backbone, self.window), what)
    }

    /// Whether latents of both may stand beside each other.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        (&self.backbone, &self.preprocess, self.window) == (&other.backbone, &other.preprocess, other.window)
    }

    /// For people.
    pub(crate) fn shown(&self) -> String {
        let window = self.window.map(|window| format!(", window {window}")).unwrap_or_default();
        let Self { name, backbone, preprocess, .. } = self;
        format!("backbone {name} ({}), preparation {}{window}", backbone.short(), preprocess.short())
    }
}
