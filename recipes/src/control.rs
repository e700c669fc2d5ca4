//! How a long run talks to its caller, and how the caller stops it.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::feature_store::FeatureStore;

/// Receives the progress of a run. All methods may be ignored.
pub trait Progress: Sync {
    /// A stage begins; `total` is in units of `advance`.
    fn start(&self, stage: &str, total: u64) {
        let _ = (stage, total);
    }

    /// Some units are done; `note` is a short state such as the loss.
    fn advance(&self, units: u64, note: &str) {
        let _ = (units, note);
    }

    /// Some units were done before this run, which says nothing of the time that the others take.
    fn resume(&self, units: u64) {
        self.advance(units, "");
    }

    /// Something worth a line: a warning or a result on the way.
    fn say(&self, line: &str) {
        let _ = line;
    }

    /// The stage is over.
    fn finish(&self) {}
}

/// Ignores all progress.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {}

/// What surrounds a run: where it reports, when it stops, where it keeps frozen work.
#[derive(Clone, Copy)]
pub struct Control<'a> {
    /// The receiver of progress.
    pub progress: &'a dyn Progress,
    /// Set from outside to stop at the next step.
    pub stop: &'a AtomicBool,
    /// Frozen features of earlier runs, and a place for those of this one.
    pub store: Option<&'a FeatureStore>,
}

impl<'a> Control<'a> {
    /// Without a store.
    pub fn new(progress: &'a dyn Progress, stop: &'a AtomicBool) -> Self {
        Self { progress, stop, store: None }
    }

    /// Whether the caller asked to stop.
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
