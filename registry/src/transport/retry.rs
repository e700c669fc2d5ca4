//! Patience with networks.

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use crate::digest::Digest;
use crate::error::{Error, Result};

/// How content is moved.
#[derive(Debug, Clone, Copy)]
pub struct Transfer {
    /// How often something that may succeed later is tried.
    pub attempts: u32,
    /// How long is waited before the second attempt; each further wait is twice as long, and up to half longer by chance.
    pub pause: Duration,
    /// How many files are moved at once.
    pub parallel: usize,
    /// Whether differences to what is here are taken where they are offered.
    pub deltas: bool,
}

impl Default for Transfer {
    fn default() -> Self {
        Self { attempts: 5, pause: Duration::from_millis(200), parallel: 4, deltas: true }
    }
}

impl Transfer {
    /// Tries until it succeeds, fails for good, or was tried often enough.
    pub(crate) fn retry<T>(&self, what: &str, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
        let mut pause = self.pause;
        for round in 1.. {
            match attempt() {
                Err(error) if round < self.attempts && is_transient(&error) => {
                    // Many devices that were cut off at once must not come back at once.
                    let chance = Digest::of(format!("{what} {round} {}", std::process::id()).as_bytes()).bytes()[0];
                    std::thread::sleep(pause.mul_f64(1.0 + f64::from(chance) / 512.0));
                    pause = (pause * 2).min(Duration::from_secs(30));
                }
                result => return result,
            }
        }
        unreachable!("the last attempt returns")
    }

    /// Does something for each item, several at once; the first fault ends it.
    pub(super) fn each<T: Sync>(&self, items: &[T], work: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
        let next = std::sync::atomic::AtomicUsize::new(0);
        let order = std::sync::atomic::Ordering::Relaxed;
        let worker = || -> Result<()> {
            while let Some(item) = items.get(next.fetch_add(1, order)) {
                if let Err(error) = work(item) {
                    next.store(items.len(), order);
                    return Err(error);
                }
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> =
                (0..self.parallel.clamp(1, items.len().max(1))).map(|_| scope.spawn(worker)).collect();
            workers.into_iter().try_for_each(|worker| worker.join().expect("workers do not panic"))
        })
    }
}

/// Whether another attempt may succeed. Damaged content is fetched again: it is the wire that damages.
pub(super) fn is_transient(error: &Error) -> bool {
    matches!(error, Error::Remote { transient: true, .. } | Error::Damaged { .. })
}

/// What drives the asynchronous clients.
pub(crate) fn runtime() -> Result<Runtime> {
    let built = Builder::new_multi_thread().worker_threads(1).enable_all().build();
    built.map_err(Error::io("start", std::path::Path::new("network")))
}
