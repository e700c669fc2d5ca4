//! Jobs that wait, bounded by their number of images.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::job::{Fault, Job};

/// First come, first served.
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    limit: usize,
}

struct State {
    jobs: VecDeque<Job>,
    rows: usize,
    closed: bool,
}

impl Queue {
    pub(super) fn new(limit: usize) -> Self {
        let state = State { jobs: VecDeque::new(), rows: 0, closed: false };
        Self { state: Mutex::new(state), changed: Condvar::new(), limit: limit.max(1) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a job. One that is larger than the queue is taken when the queue is empty.
    pub(super) fn push(&self, job: Job) -> Result<(), Fault> {
        let mut state = self.state();
        if state.closed {
            return Err(Fault::Stopping);
        }
        if state.rows > 0 && state.rows + job.rows() > self.limit {
            return Err(Fault::Busy);
        }
        state.rows += job.rows();
        state.jobs.push_back(job);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    pub(super) fn waiting(&self) -> usize {
        self.state().rows
    }

    pub(super) fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }

    /// The next jobs, of `most` rows together or one larger job; waits for the first, and for more up to `wait`. `None`
    /// once the queue is closed and empty.
    pub(super) fn take(&self, most: usize, wait: Duration) -> Option<Vec<Job>> {
        let mut state = self.state();
        while state.jobs.is_empty() {
            if state.closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let until = Instant::now() + wait;
        while state.rows < most && !state.closed {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let (mut taken, mut rows) = (Vec::new(), 0);
        while let Some(job) = state.jobs.front() {
            if !taken.is_empty() && rows + job.rows() > most {
                break;
            }
            let Some(job) = state.jobs.pop_front() else { break };
            state.rows -= job.rows();
            if job.is_abandoned() {
                continue;
            }
            if Instant::now() > job.deadline {
                job.answer(Err(Fault::Late));
                continue;
            }
            rows += job.rows();
            taken.push(job);
        }
        Some(taken)
    }
}
