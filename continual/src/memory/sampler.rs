//! The order in which samples are kept: a memory holds the longest beginning of it that fits into the budget.

use std::collections::BTreeMap;

use inarch_core::Seed;

use super::config::{MemoryConfig, Sampler};
use super::herding::herding;
use super::sample::Sample;

/// The weight of a sample that has no place among its class's exemplars yet.
pub(super) const UNPLACED: f32 = 1.0;

/// A uniform number of (0, 1) that belongs to an id.
fn draw(seed: Seed, id: &str) -> f64 {
    (seed.hash(id) as f64 + 1.0) / (u64::MAX as f64 + 2.0)
}

/// The ids in the order in which they are kept, first the most wanted.
///
/// For all samplers but herding the order of two samples depends on nothing that a removed sample would change, except
/// their ranks within classes, so memories of one seed merge to the memory of all.
pub(super) fn order(config: &MemoryConfig, samples: &BTreeMap<String, Sample>) -> Vec<String> {
    let seed = Seed::new(config.seed).split("memory");
    let by_key = |ids: &mut Vec<(f64, &String)>| ids.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(b.1)));
    let mut keyed: Vec<(f64, &String)> = match config.sampler {
        Sampler::Reservoir | Sampler::Balanced | Sampler::Herding => {
            samples.keys().map(|id| (draw(seed, id), id)).collect()
        }
        Sampler::Ring => samples.iter().map(|(id, sample)| (-(sample.time as f64) + draw(seed, id), id)).collect(),
        // The smallest of exponential variables of rate w: chosen with a chance in proportion to w.
        Sampler::LossAware => {
            let key = |id: &str, weight: f32| -draw(seed, id).ln() / f64::from(weight.max(1e-6));
            samples.iter().map(|(id, sample)| (key(id, sample.weight), id)).collect()
        }
    };
    by_key(&mut keyed);
    if matches!(config.sampler, Sampler::Balanced | Sampler::Herding) {
        let mut classes: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
        for (_, id) in &keyed {
            classes.entry(&samples[*id].class).or_default().push(id);
        }
        if config.sampler == Sampler::Herding {
            classes.values_mut().for_each(|ids| *ids = herded(ids, samples));
        }
        // Round after round, each class gives its next; the order within a round is drawn.
        keyed = classes
            .values()
            .flat_map(|ids| ids.iter().enumerate().map(|(rank, id)| (rank as f64 + draw(seed, id), *id)))
            .collect();
        by_key(&mut keyed);
    }
    keyed.into_iter().map(|(_, id)| id.clone()).collect()
}

/// The weight of the exemplar that herding chose at a place; below [`UNPLACED`].
pub(super) fn placed(place: usize) -> f32 {
    1.0 / (place + 2) as f32
}

/// The samples of a class in the order in which herding chose them. Exemplars of a class without new samples keep their places, so
/// that their number shrinks from the end (Rebuffi et al., 2017, algorithm 5); else the order is chosen among all.
fn herded<'a>(ids: &[&'a String], samples: &BTreeMap<String, Sample>) -> Vec<&'a String> {
    let mut ids = ids.to_vec();
    let weight = |id: &String| samples[id].weight;
    ids.sort_by(|left, right| weight(right).total_cmp(&weight(left)).then(left.cmp(right)));
    // Places that are taken twice are those of memories that were merged.
    let distinct = ids.windows(2).all(|pair| weight(pair[0]) > weight(pair[1]));
    if distinct && ids.iter().all(|id| weight(id) < UNPLACED) {
        return ids;
    }
    // By name first, so that equal distances are settled alike whatever the seed.
    ids.sort();
    let rows: Vec<f32> = ids.iter().flat_map(|id| unit(&samples[*id].latent)).collect();
    let dim = ids.first().map_or(0, |id| samples[*id].latent.len());
    herding(&rows, dim, ids.len()).into_iter().map(|at| ids[at]).collect()
}

fn unit(latent: &[f32]) -> Vec<f32> {
    let norm = latent.iter().map(|value| value * value).sum::<f32>().sqrt().max(1e-12);
    latent.iter().map(|value| value / norm).collect()
}
