//! What every request can reach.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use inarch_core::backbone::Backbone;
use tokio::sync::Semaphore;

use super::auth::Tokens;
use super::problem::Problem;
use crate::adapters::{Head, Shelf};
use crate::engine::{Answer, Engine, Job, Want};
use crate::metrics::Metrics;
use crate::settings::Settings;
use crate::streams::Streams;

/// A running server.
pub(crate) struct App {
    pub(crate) backbone: Arc<Backbone>,
    pub(crate) shelf: Shelf,
    pub(crate) engine: Engine,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tokens: Option<Tokens>,
    pub(crate) settings: Settings,
    /// Bounds how many images are decoded at once.
    pub(crate) decoders: Semaphore,
    /// Lets one adaptation at a time use the cores.
    pub(crate) adapting: Arc<Semaphore>,
    pub(crate) streams: Streams,
    pub(crate) stopping: AtomicBool,
}

impl App {
    /// Whether the server takes requests.
    pub(crate) fn ready(&self) -> bool {
        !self.stopping.load(Ordering::Relaxed)
    }

    /// Sends work to the engine and waits for its answer.
    pub(crate) async fn compute(&self, head: &Arc<Head>, want: Want, count: usize) -> Result<Answer, Problem> {
        let deadline = Instant::now() + self.settings.timeout;
        let (job, answer) = Job::new(head.clone(), want, count, deadline);
        self.engine.submit(job)?;
        match tokio::time::timeout_at(deadline.into(), answer).await {
            Ok(Ok(answer)) => Ok(answer?),
            Ok(Err(_)) => Err(Problem::failed()),
            Err(_) => Err(Problem::late(self.settings.timeout)),
        }
    }
}
