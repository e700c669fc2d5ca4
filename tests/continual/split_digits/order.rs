//! Everything that is drawn on the way, as a learner draws it from its seed: the generator reads it and draws nothing itself.

use inarch_core::Seed;
use serde::{Deserialize, Serialize};

use super::{BATCH, CANDIDATES, CAPACITY, CLASSES, DIM, EXPERIENCES, HELD_OUT, PROJECTIONS, SEED, STEPS, TRAIN, name};

/// Rehearsed samples in a step.
const REHEARSED: usize = 8;
/// Samples of an experience.
const EACH: usize = CLASSES * TRAIN;
/// The seeds of a memory and of a random projection.
const MEMORY: u64 = 1;
const PROJECTION: u64 = 1993;
/// Samples of the memory that GSS compares a batch with.
const COMPARED: usize = 10;

/// Some examples for each step of each experience.
type Draws = Vec<Vec<Vec<usize>>>;

/// All draws; examples are numbered in the order in which they come.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Order {
    /// Examples of a step, within its experience.
    batches: Draws,
    /// Rehearsed ones, of what came before.
    rehearsed: Draws,
    /// Rehearsed ones, of what came before or arrives.
    joined: Draws,
    /// A second draw beside `rehearsed`.
    second: Draws,
    /// Those that are chosen from.
    candidates: Draws,
    /// Examples that are never trained on.
    held_out: Vec<usize>,
    /// Examples of a step, within its experience, and rehearsed ones, without those held out.
    open: Draws,
    open_rehearsed: Draws,
    /// Places in a memory of few samples, in the order of their numbers.
    exemplars: Draws,
    /// All examples by the hash by which a memory keeps them.
    ranks: Vec<usize>,
    gss: Selection,
    /// Examples on which the weight of a ridge is chosen.
    apart: Vec<usize>,
    /// Random features, `[dim, projections]`.
    pub(super) projection: Vec<f32>,
}

/// Draws of GSS.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Selection {
    /// In which order the examples of each experience are looked at.
    orders: Vec<Vec<usize>>,
    /// Places in the memory of those that each batch is compared with.
    compared: Draws,
    /// Of each example, who would give way to it and whether, as the upper half of a hash.
    victims: Vec<u64>,
    chances: Vec<u64>,
}

/// The seed of the training of an experience.
pub(super) fn training(experience: usize) -> Seed {
    Seed::new(Seed::new(SEED).split("training").split(experience).split(0).value())
}

/// Whether an example is held out by BiC.
fn held_out(example: usize) -> bool {
    let hash = Seed::new(MEMORY).split("held out").hash(&name(example));
    hash as f64 / (u64::MAX as f64 + 1.0) < HELD_OUT
}

/// `count` of `total(experience)` for each step, in the draw of that number.
fn draws(draw: usize, count: usize, total: &dyn Fn(usize) -> usize) -> Draws {
    let step = |experience: usize, step: usize| -> Vec<usize> {
        let draws = training(experience).split("rehearsal").split(step).split(draw).split(0);
        draws.order(total(experience)).into_iter().take(count).collect()
    };
    (0..EXPERIENCES).map(|experience| (0..STEPS).map(|at| step(experience, at)).collect()).collect()
}

/// The steps through some examples of an experience, epoch after epoch.
fn batches(experience: usize, examples: &[usize]) -> Vec<Vec<usize>> {
    let epoch = |epoch: usize| -> Vec<Vec<usize>> {
        let order = training(experience).split("order").split(epoch).order(examples.len());
        let order: Vec<usize> = order.into_iter().map(|at| examples[at]).collect();
        order.chunks_exact(BATCH).map(<[usize]>::to_vec).collect()
    };
    (0..STEPS).flat_map(epoch).take(STEPS).collect()
}

/// BiC's rehearsal: of what came before and is not held out.
fn open_rehearsed(experience: usize) -> Vec<Vec<usize>> {
    let known: Vec<usize> = (0..EACH * experience).filter(|example| !held_out(*example)).collect();
    let step = |step: usize| -> Vec<usize> {
        let drawn = training(experience).split("rehearsal").split(step).split(0).order(known.len());
        drawn.into_iter().take(REHEARSED).map(|at| known[at]).collect()
    };
    (0..STEPS).map(step).collect()
}

impl Order {
    /// As a learner draws it.
    pub(super) fn drawn() -> Self {
        let all = || 0..EACH * EXPERIENCES;
        let before = |experience: usize| EACH * experience;
        // Nothing is rehearsed in the first experience.
        let from_second = |experience: usize, total: usize| if experience == 0 { 0 } else { total };
        let arrived: Vec<usize> = (0..EACH).collect();
        let open =
            |experience: usize| -> Vec<usize> { (0..EACH).filter(|at| !held_out(EACH * experience + at)).collect() };
        let mut ranks: Vec<usize> = all().collect();
        ranks.sort_by_key(|example| Seed::new(MEMORY).split("memory").hash(&name(*example)));
        let apart = |example: &usize| Seed::new(PROJECTION).split("held").hash(&name(*example)).is_multiple_of(5);
        Self {
            batches: (0..EXPERIENCES).map(|at| batches(at, &arrived)).collect(),
            rehearsed: draws(0, REHEARSED, &before),
            joined: draws(0, REHEARSED, &|at| from_second(at, EACH * (at + 1))),
            second: draws(1, REHEARSED, &before),
            candidates: draws(0, CANDIDATES, &before),
            held_out: all().filter(|example| held_out(*example)).collect(),
            open: (0..EXPERIENCES).map(|at| batches(at, &open(at))).collect(),
            open_rehearsed: (0..EXPERIENCES).map(open_rehearsed).collect(),
            exemplars: draws(0, REHEARSED, &|at| from_second(at, CAPACITY)),
            ranks,
            gss: Selection::drawn(),
            apart: all().filter(apart).collect(),
            projection: Seed::new(PROJECTION).split("random projection").normals(DIM * PROJECTIONS, 1.0),
        }
    }
}

impl Selection {
    fn drawn() -> Self {
        let seed = |experience: usize| training(experience).split("gss");
        let compared = |experience: usize| -> Vec<Vec<usize>> {
            // The memory fills up in the first experience.
            let held = |part: usize| if experience == 0 { part * BATCH } else { CAPACITY };
            let part = |part: usize| -> Vec<usize> {
                let drawn = seed(experience).split("compare").split(part).split(0).order(held(part));
                drawn.into_iter().take(COMPARED).collect()
            };
            (0..EACH / BATCH).map(part).collect()
        };
        let uniforms = |purpose: &str| -> Vec<u64> {
            let own = |example: usize| seed(example / EACH).split(name(example)).split(0);
            (0..EACH * EXPERIENCES).map(|example| own(example).hash(purpose) >> 32).collect()
        };
        Self {
            orders: (0..EXPERIENCES).map(|experience| seed(experience).order(EACH)).collect(),
            compared: (0..EXPERIENCES).map(compared).collect(),
            victims: uniforms("victim"),
            chances: uniforms("chance"),
        }
    }
}
