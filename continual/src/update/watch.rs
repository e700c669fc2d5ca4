//! Whether what has come differs from what is remembered, and the state of that from update to update.

use super::run::UpdateRequest;
use crate::drift::{DriftConfig, DriftVerdict, DriftWatch};
use crate::error::Result;
use crate::memory::{Memory, Sample};

/// Samples of either side below which nothing is compared.
const LEAST: usize = 8;

/// The watch of one update.
pub(super) struct Watch<'a> {
    request: &'a UpdateRequest<'a>,
    /// `None` where too little is remembered.
    watch: Option<DriftWatch>,
}

impl<'a> Watch<'a> {
    /// Compares with what the version before remembers, going on from the state that the request names.
    ///
    /// # Errors
    /// As [`DriftWatch::open`].
    pub(super) fn begin(memory: &Memory, request: &'a UpdateRequest<'a>) -> Result<Self> {
        let UpdateRequest { drift_state, key, recipe, .. } = *request;
        if memory.len() < LEAST {
            // Whose it is must be right all the same, for it will be written over.
            drift_state.map(|path| DriftWatch::check(memory, path, key)).transpose()?;
            return Ok(Self { request, watch: None });
        }
        let config = DriftConfig { seed: recipe.seed, ..DriftConfig::default() };
        Ok(Self { request, watch: Some(DriftWatch::open(memory, config, drift_state, key)?) })
    }

    /// Tests what has come; `None` where either side is too small.
    ///
    /// # Errors
    /// As [`DriftWatch::observe`].
    pub(super) fn observe(&mut self, samples: &[Sample]) -> Result<Option<DriftVerdict>> {
        let Some(watch) = self.watch.as_mut().filter(|_| samples.len() >= LEAST) else { return Ok(None) };
        let latents: Vec<f32> = samples.iter().flat_map(|sample| sample.latent.iter().copied()).collect();
        watch.observe(&latents).map(Some)
    }

    /// Keeps the state of an update that passes over what has come.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(super) fn passed_over(&self) -> Result<()> {
        match (&self.watch, self.request.drift_state) {
            (Some(watch), Some(path)) => watch.save(path, self.request.key),
            _ => Ok(()),
        }
    }

    /// Begins the state of the version that was published: what had drifted has been learned.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(super) fn published(self, memory: &Memory) -> Result<()> {
        let UpdateRequest { drift_state, key, recipe, .. } = *self.request;
        let Some(path) = drift_state.filter(|_| memory.len() >= LEAST) else { return Ok(()) };
        let config = DriftConfig { seed: recipe.seed, ..DriftConfig::default() };
        DriftWatch::open(memory, config, None, None)?.save(path, key)
    }
}
