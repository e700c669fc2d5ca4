//! Which adapter has the machine to itself, so that a copy of the weights with it folded in pays (the rule of dLoRA, Wu et
//! al., 2024, for encoders: merged for one adapter, low-rank for a mix).

use std::collections::HashMap;
use std::sync::Arc;

use inarch_core::backbone::Backbone;

use super::job::Job;
use crate::adapters::Loaded;

/// The share of the images above which an adapter is folded, and below which the copy is dropped.
const FOLD: f64 = 0.9;
const UNFOLD: f64 = 0.5;
/// What one image counts for in the running shares: about the last 256 images matter.
const WEIGHT: f64 = 1.0 / 256.0;

/// Running shares of the images by adapter.
pub(super) struct Heat {
    enabled: bool,
    shares: HashMap<String, (f64, Arc<Loaded>)>,
}

impl Heat {
    pub(super) fn new(enabled: bool) -> Self {
        Self { enabled, shares: HashMap::new() }
    }

    /// Counts a batch, and folds or unfolds what has become or ceased to be nearly all of the load.
    pub(super) fn note(&mut self, jobs: &[Job], backbone: &Arc<Backbone>) {
        if !self.enabled {
            return;
        }
        let rows: usize = jobs.iter().map(Job::rows).sum();
        let decay = (1.0 - WEIGHT).powi(i32::try_from(rows).unwrap_or(i32::MAX));
        for (share, _) in self.shares.values_mut() {
            *share *= decay;
        }
        for job in jobs {
            let Some(loaded) = &job.head.adapter else { continue };
            if loaded.shares_image_features() || !loaded.sites().folds() {
                continue;
            }
            let part = (1.0 - decay) * job.rows() as f64 / rows.max(1) as f64;
            let (share, known) = self.shares.entry(loaded.digest.clone()).or_insert_with(|| (0.0, loaded.clone()));
            *share += part;
            // It may have left memory and been read again.
            known.clone_from(loaded);
        }
        for (share, loaded) in self.shares.values() {
            match loaded.folded() {
                None if *share > FOLD => fold(loaded, backbone),
                Some(_) if *share < UNFOLD => {
                    tracing::info!(adapter = loaded.digest, "unfolded: no longer alone");
                    loaded.set_folded(None);
                }
                _ => {}
            }
        }
        self.shares.retain(|_, (share, loaded)| *share > 1e-3 || loaded.folded().is_some());
    }
}

/// Between two batches, since a copy takes about as long as a batch and is made once.
fn fold(loaded: &Arc<Loaded>, backbone: &Backbone) {
    match backbone.fold(loaded.sites()) {
        Ok(folded) => {
            tracing::info!(adapter = loaded.digest, "folded: it has the machine to itself");
            loaded.set_folded(Some(Arc::new(folded)));
        }
        Err(error) => tracing::warn!(adapter = loaded.digest, %error, "could not be folded"),
    }
}
