//! State of methods that keep learning from what they are asked (test-time adaptation), one for each model, method and set
//! of classes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use inarch_recipes::test_time::Snapshot;
use serde::Serialize;
use utoipa::ToSchema;

/// Streams that are kept; each is bounded by itself.
const MOST: usize = 256;

/// What a stream belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct StreamCard {
    /// Names it in `/v1/streams/ID`.
    pub(crate) id: String,
    pub(crate) model: String,
    pub(crate) version: String,
    pub(crate) method: String,
    /// Images it has seen.
    pub(crate) images: u64,
}

/// A stream at work: whoever asks it waits for those before.
pub(crate) type Stream = Arc<tokio::sync::Mutex<(StreamCard, Option<Snapshot>)>>;

/// All streams of a server.
#[derive(Default)]
pub(crate) struct Streams(Mutex<BTreeMap<String, Stream>>);

impl Streams {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Stream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stream of this card's id, begun where there is none; `None` when there are too many.
    pub(crate) fn get_or_begin(&self, card: StreamCard) -> Option<Stream> {
        let mut all = self.all();
        if all.len() >= MOST && !all.contains_key(&card.id) {
            return None;
        }
        let begin = || Arc::new(tokio::sync::Mutex::new((card.clone(), None)));
        Some(all.entry(card.id.clone()).or_insert_with(begin).clone())
    }

    /// The stream of an id.
    pub(crate) fn get(&self, id: &str) -> Option<Stream> {
        self.all().get(id).cloned()
    }

    /// Forgets a stream.
    pub(crate) fn remove(&self, id: &str) -> bool {
        self.all().remove(id).is_some()
    }

    /// All streams.
    pub(crate) fn list(&self) -> Vec<Stream> {
        self.all().values().cloned().collect()
    }
}
