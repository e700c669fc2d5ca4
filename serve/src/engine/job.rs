//! What the engine is asked for and what it answers.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::adapters::Head;

/// What is wanted of some images or texts.
#[derive(Debug)]
pub(crate) enum Want {
    /// Scores over the head's classes, for normalised pixels of whole images.
    Scores(Arc<Vec<f32>>),
    /// Features of images, not normalised.
    ImageFeatures(Arc<Vec<f32>>),
    /// Features of token rows, not normalised.
    TextFeatures(Vec<Vec<u32>>),
}

/// Rows of numbers: scores or features of one image or text each.
pub(crate) type Answer = Vec<Vec<f32>>;

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("too many images are waiting")]
    Busy,
    #[error("the server is about to stop")]
    Stopping,
    #[error("it waited longer than its time limit")]
    Late,
    #[error("the computation failed")]
    Failed,
}

/// A piece of work.
pub(crate) struct Job {
    pub(crate) head: Arc<Head>,
    pub(crate) want: Want,
    /// Number of images or texts.
    pub(crate) count: usize,
    /// After this nobody waits for it.
    pub(crate) deadline: Instant,
    reply: oneshot::Sender<Result<Answer, Fault>>,
}

impl Job {
    /// A job and the place where its answer arrives.
    pub(crate) fn new(
        head: Arc<Head>,
        want: Want,
        count: usize,
        deadline: Instant,
    ) -> (Self, oneshot::Receiver<Result<Answer, Fault>>) {
        let (reply, receiver) = oneshot::channel();
        (Self { head, want, count, deadline, reply }, receiver)
    }

    /// Its share of a batch.
    pub(super) fn rows(&self) -> usize {
        self.count.max(1)
    }

    /// Whether nobody waits for it any more.
    pub(super) fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    pub(super) fn answer(self, answer: Result<Answer, Fault>) {
        // A caller who has gone away needs no answer.
        let _ = self.reply.send(answer);
    }
}
