//! Batches that nothing but the frozen towers meets, cut into parts for all cores.

use std::ops::Range;
use std::sync::Arc;

use super::partial::{Partial, Texts};
use super::state_dict::indices;
use crate::parallel;

/// Rows that a core should have at least.
pub(super) const PART: usize = 4;
/// Texts that run together.
const TEXTS: usize = 64;

/// `work` on parts of `rows` rows, none of less than `least`.
pub(super) fn parts<R: Send>(
    rows: usize,
    workers: usize,
    least: usize,
    work: impl Fn(Range<usize>) -> R + Sync,
) -> Vec<R> {
    match workers {
        1 => vec![work(0..rows)],
        _ => parallel::ranges(rows, least, work),
    }
}

/// Texts on their way: all as long as the longest, with the beginning that they all share.
pub(super) fn in_order(
    rows: &[Vec<u32>],
    causal: bool,
    workers: usize,
    run: impl Fn(&[&[u32]], usize, Texts) -> Partial + Sync,
) -> Partial {
    let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
    let texts = Texts::new(&rows, causal);
    let start = |part: Range<usize>| {
        let texts = Texts { ends: texts.ends[part.clone()].to_vec(), beginning: texts.beginning };
        run(&rows[part], longest(&rows), texts)
    };
    Partial::join(parts(rows.len(), workers, PART, start), Some(Arc::new(texts)))
}

/// Features of texts in the order of `rows`, run in the order of their tokens: neighbours then begin alike, which is run once
/// for each part of them.
pub(super) fn sorted(
    rows: &[Vec<u32>],
    causal: bool,
    workers: usize,
    run: impl Fn(&[&[u32]], usize, Texts) -> Partial + Sync,
) -> Partial {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by(|left, right| rows[*left].cmp(&rows[*right]));
    let texts: Vec<&[u32]> = order.iter().map(|row| rows[*row].as_slice()).collect();
    let parts: Vec<&[&[u32]]> = texts.chunks(TEXTS.min(texts.len().div_ceil(workers)).max(1)).collect();
    let run = |rows: &&[&[u32]]| run(rows, longest(rows), Texts::new(rows, causal));
    let found = if workers == 1 { parts.iter().map(run).collect() } else { parallel::map(&parts, run) };
    let joined = Partial::join(found, None);
    if order.is_sorted() {
        return joined;
    }
    let mut places = vec![0; order.len()];
    order.iter().enumerate().for_each(|(place, row)| places[*row] = place);
    let feature = joined.into_feature().expect("the tower ran to its end");
    let places = indices(places, &feature.device());
    Partial::feature(feature.select(0, places))
}

fn longest(rows: &[&[u32]]) -> usize {
    rows.iter().map(|row| row.len()).max().unwrap_or(1).max(1)
}
