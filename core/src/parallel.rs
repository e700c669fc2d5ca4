//! Work on all cores, one thread a part.
//!
//! A tensor operation also uses all cores, but only inside its larger loops; parts that run from end to end on threads of
//! their own leave no core idle in between, and their tensors stay in that core's cache.

use std::num::NonZero;
use std::ops::Range;
use std::thread::{self, available_parallelism};

/// How many threads work may use; inside a part of other work as many as that part has.
pub fn threads() -> usize {
    match rayon::current_thread_index() {
        Some(_) => rayon::current_num_threads(),
        None => available_parallelism().map_or(1, NonZero::get),
    }
}

/// Runs `work` on this thread, its tensor operations on `threads` threads. Only a thread that was made for the purpose may
/// call it: it never leaves that pool.
pub fn within<R>(threads: usize, work: impl FnOnce() -> R) -> R {
    // A thread that already belongs to a pool stays there, which is no less correct.
    let _pool = rayon::ThreadPoolBuilder::new().num_threads(threads.max(1)).use_current_thread().build();
    work()
}

/// `work` on every item, on all cores; the results are in the order of the items.
pub fn map<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let workers = threads().min(items.len());
    if workers <= 1 {
        return items.iter().map(work).collect();
    }
    let (share, own, work) = (items.len().div_ceil(workers), threads() / workers, &work);
    thread::scope(|scope| {
        let workers: Vec<_> = items
            .chunks(share)
            .map(|items| scope.spawn(move || within(own, || items.iter().map(work).collect::<Vec<R>>())))
            .collect();
        let join = |worker: thread::ScopedJoinHandle<'_, Vec<R>>| match worker.join() {
            Ok(found) => found,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        workers.into_iter().flat_map(join).collect()
    })
}

/// `work` on ranges that make up `0..rows`, one for each core, none of less than `least` rows; one range where there is
/// nothing to gain.
pub fn ranges<R: Send>(rows: usize, least: usize, work: impl Fn(Range<usize>) -> R + Sync) -> Vec<R> {
    let parts = threads().min(rows / least.max(1)).max(1);
    let ranges: Vec<Range<usize>> = (0..parts).map(|part| rows * part / parts..rows * (part + 1) / parts).collect();
    map(&ranges, |range| work(range.clone()))
}

#[cfg(test)]
mod tests {
    use super::{map, ranges, threads, within};

    #[test]
    fn parts_are_in_order_and_share_the_cores() {
        let found = map(&[1, 2, 3, 4, 5], |item| (item * 2, threads()));
        assert_eq!(found.iter().map(|(item, _)| *item).collect::<Vec<_>>(), [2, 4, 6, 8, 10]);
        assert!(found.iter().all(|(_, part)| *part <= threads().div_ceil(2)));
        let covered: Vec<usize> = ranges(10, 2, |range| range.collect::<Vec<_>>()).concat();
        assert_eq!(covered, (0..10).collect::<Vec<_>>());
        assert_eq!(ranges(0, 4, |range| range.len()), [0]);
        let nested = std::thread::spawn(|| within(1, || ranges(100, 1, |range| range.len()))).join();
        assert_eq!(nested.ok(), Some(vec![100]));
    }
}
