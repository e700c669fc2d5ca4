//! One backbone, many adapters: requests wait in a bounded queue and are computed in batches.

mod batch;
mod folding;
mod job;
mod queue;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use inarch_core::backbone::Backbone;
use inarch_core::parallel;

pub(crate) use job::{Answer, Fault, Job, Want};
use queue::Queue;

use crate::metrics::Metrics;

/// How batches are made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EngineSettings {
    /// Most images of one pass.
    pub(crate) batch: usize,
    /// How long a batch waits for more.
    pub(crate) wait: Duration,
    /// Most images that wait.
    pub(crate) queue: usize,
    /// Threads that compute.
    pub(crate) workers: usize,
    /// Whether adapters may be written into a copy of the weights.
    pub(crate) fold: bool,
}

/// The threads that run the backbone.
pub(crate) struct Engine {
    queue: Arc<Queue>,
    workers: Vec<JoinHandle<()>>,
}

impl Engine {
    pub(crate) fn start(backbone: &Arc<Backbone>, settings: EngineSettings, metrics: &Arc<Metrics>) -> Self {
        let queue = Arc::new(Queue::new(settings.queue));
        let start = |_| {
            let (queue, backbone, metrics) = (queue.clone(), backbone.clone(), metrics.clone());
            let own = parallel::threads() / settings.workers.max(1);
            std::thread::spawn(move || parallel::within(own, || work(&queue, &backbone, settings, &metrics)))
        };
        let workers = (0..settings.workers.max(1)).map(start).collect();
        Self { queue, workers }
    }

    /// Adds a job; its answer comes through the job's own channel.
    ///
    /// # Errors
    /// [`Fault::Busy`] when too many images wait, [`Fault::Stopping`] when the server is about to end.
    pub(crate) fn submit(&self, job: Job) -> Result<(), Fault> {
        self.queue.push(job)
    }

    /// Images that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.waiting()
    }

    /// Takes no more jobs; those that wait are still computed.
    pub(crate) fn close(&self) {
        self.queue.close();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.queue.close();
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

fn work(queue: &Queue, backbone: &Arc<Backbone>, settings: EngineSettings, metrics: &Metrics) {
    let mut heat = folding::Heat::new(settings.fold);
    while let Some(jobs) = queue.take(settings.batch, settings.wait) {
        let rows = jobs.iter().map(Job::rows).sum::<usize>();
        metrics.batch(rows, jobs.len());
        heat.note(&jobs, backbone);
        // A fault of one batch must not end the service: those who wait for it are told, the next batch is computed.
        let outcome = catch_unwind(AssertUnwindSafe(|| batch::run(&jobs, backbone, settings.batch)));
        let answers = outcome.unwrap_or_else(|_| jobs.iter().map(|_| Err(Fault::Failed)).collect());
        for (job, answer) in jobs.into_iter().zip(answers) {
            job.answer(answer);
        }
    }
}
