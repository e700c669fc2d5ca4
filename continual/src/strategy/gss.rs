//! GSS-greedy: a memory of samples whose gradients point in different directions (Aljundi et al., 2019, arXiv 1903.08671,
//! algorithm 2).
//!
//! With the gradient `g` of a sample's cross entropy and `G_i` of `compare` samples drawn from the memory, its score is
//! `c = max_i cos(g, G_i) + 1`. While there is room it stays. In a full memory it stays only if `c < 1`: then one that is there is
//! drawn with a chance in proportion to its own score `c_j`, and gives way with the chance `c_j / (c_j + c)`. Rehearsal is ER's.
//!
//! Departures: gradients are those at the end of a training, not along the way; the memory's are drawn once for each batch of
//! samples, as the authors do; the memory is full when its bytes are. The score is the sample's weight in the memory.

use std::collections::BTreeMap;

use inarch_core::Seed;
use inarch_core::data::Example;
use inarch_peft::{Loss, Parameters, cross_entropy};
use inarch_recipes::Moment;

use super::replay::{Replay, ReplayLoss};
use super::{Episode, Offer, Rehearsal, Strategy, remembered_id};
use crate::error::Result;
use crate::memory::{Memory, Sample, drawn};

/// The score of a sample that there is nothing to compare with.
const ALONE: f64 = 1.0;
/// Least weight of a sample.
const LEAST: f32 = 1e-6;

/// Gradient-based sample selection.
pub(super) struct Gss {
    replay: Replay,
    compare: usize,
}

impl Gss {
    pub(super) fn new(replay: usize, compare: usize) -> Self {
        Self { replay: Replay::new(replay, ReplayLoss::Mixed), compare }
    }
}

/// A gradient as one row of length 1; zeros stay zeros.
fn direction(gradients: &Parameters) -> Vec<f32> {
    let all = || gradients.values().flat_map(|tensor| &tensor.data);
    let length = all().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    all().map(|value| (f64::from(*value) / length.max(1e-30)) as f32).collect()
}

/// `max_i cos(g, G_i) + 1` of rows of length 1.
fn score(direction: &[f32], others: &[Vec<f32>]) -> f64 {
    let cosine = |other: &Vec<f32>| -> f64 {
        direction.iter().zip(other).map(|(left, right)| f64::from(*left) * f64::from(*right)).sum()
    };
    others.iter().map(cosine).max_by(f64::total_cmp).map_or(ALONE, |greatest| greatest + 1.0)
}

/// A uniform number of (0, 1) by name.
fn uniform(seed: Seed, name: &str) -> f64 {
    (seed.hash(name) as f64 + 0.5) / (u64::MAX as f64 + 1.0)
}

/// The sample at a share of the sum of the weights of all but one, in the order of the ids.
fn at_share<'a>(memory: &'a Memory, but: &str, share: f64) -> Option<&'a Sample> {
    let others = || memory.samples().filter(|sample| sample.id != but);
    let weight = |sample: &Sample| f64::from(sample.weight);
    let mut left = share * others().map(weight).sum::<f64>();
    let reaches = |sample: &&Sample| {
        left -= weight(sample);
        left < 0.0
    };
    others().find(reaches).or(others().last())
}

/// Offers a sample of some score; `seed` decides who gives way.
fn admit(memory: &mut Memory, mut sample: Sample, score: f64, seed: Seed) -> Result<bool> {
    sample.weight = (score as f32).max(LEAST);
    let (id, mut asked) = (sample.id.clone(), 0usize);
    let mut victim = |memory: &Memory| {
        let seed = seed.split(&id).split(asked);
        let drawn = at_share(memory, &id, uniform(seed, "victim"))?;
        let chance = f64::from(drawn.weight) / (f64::from(drawn.weight) + score);
        // A larger sample may need the room of a second one, and is let in already then.
        let comes = asked > 0 || (score < 1.0 && uniform(seed, "chance") < chance);
        asked += 1;
        comes.then(|| drawn.id.clone())
    };
    memory.offer_in_place(sample, &mut victim)
}

impl Strategy for Gss {
    fn rehearsal(&self) -> Option<Rehearsal> {
        self.replay.rehearsal()
    }

    fn begin(&mut self, episode: &Episode<'_>) -> Result<()> {
        self.replay.begin(episode)
    }

    fn loss(&self, moment: &Moment<'_>, episode: &Episode<'_>) -> Loss {
        self.replay.loss(moment, episode)
    }

    fn remember(&mut self, episode: &Episode<'_>, memory: &mut Memory, offer: Offer<'_>) -> Result<()> {
        let Offer { adapter, examples, samples } = offer;
        let mut by_id: BTreeMap<String, Example> = BTreeMap::new();
        for example in episode.rehearsal {
            by_id.insert(remembered_id(example).to_string(), example.clone());
        }
        by_id.extend(examples.iter().map(|example| (example.id.clone(), example.clone())));
        let seed = Seed::new(episode.recipe.seed).split("gss");
        let of = |examples: &[Example], take: &mut dyn FnMut(Vec<f32>)| {
            let loss = |position: usize, step: &inarch_peft::Step<'_>| {
                cross_entropy(step.logits.clone(), &[examples[position].label])
            };
            let setting = (episode.recipe, episode.classes, adapter);
            episode
                .session
                .sample_gradients(setting, examples, &loss, &mut |gradients: &Parameters| take(direction(gradients)))
        };
        let mut samples: Vec<Option<Sample>> = samples.into_iter().map(Some).collect();
        for (part, places) in seed.order(samples.len()).chunks(episode.recipe.train.batch.max(1)).enumerate() {
            let held: Vec<&Example> = memory.samples().filter_map(|sample| by_id.get(&sample.id)).collect();
            let compared = drawn(held.len(), self.compare.min(held.len()), seed.split("compare").split(part));
            let compared: Vec<Example> = compared.into_iter().map(|place| held[place].clone()).collect();
            let (mut others, mut scores) = (Vec::new(), Vec::new());
            of(&compared, &mut |direction| others.push(direction))?;
            let new: Vec<Example> = places.iter().map(|place| examples[*place].clone()).collect();
            of(&new, &mut |direction| scores.push(score(&direction, &others)))?;
            for (place, score) in places.iter().zip(scores) {
                if let Some(sample) = samples[*place].take() {
                    admit(memory, sample, score, seed)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use inarch_core::{Digest, Seed};

    use super::{admit, score, uniform};
    use crate::memory::{Fingerprint, Memory, MemoryConfig, Sample};

    fn sample(at: usize) -> Sample {
        Sample {
            id: format!("{at:04}"),
            class: "a".into(),
            source: String::new(),
            time: 0,
            weight: 1.0,
            latent: vec![0.5; 8],
            views: Vec::new(),
            image: None,
            scores: Vec::new(),
        }
    }

    #[test]
    fn the_greatest_cosine_counts() {
        let others = [vec![1.0, 0.0], vec![0.6, 0.8]];
        assert!((score(&[0.0, 1.0], &others) - 1.8).abs() < 1e-6);
        assert!((score(&[-1.0, 0.0], &others) - 0.4).abs() < 1e-6);
        assert_eq!(score(&[1.0, 0.0], &[]), 1.0);
    }

    #[test]
    fn who_stays_is_what_the_published_algorithm_says() {
        let digest = Digest::of(b"x");
        let print =
            Fingerprint { name: "x".into(), backbone: digest.clone(), preprocess: digest, window: None, dim: 8 };
        let config = MemoryConfig { budget_bytes: 2048, ..MemoryConfig::default() };
        let mut memory = Memory::new(config, print).unwrap();
        let seed = Seed::new(9);
        // (id, score) in the order of the ids, by the lines of the algorithm.
        let mut plain: Vec<(String, f64)> = Vec::new();
        let (mut replaced, mut refused) = (0, 0);
        for at in 0..300 {
            let sample = sample(at * 7919 % 1000);
            let (id, c) = (sample.id.clone(), 2.0 * uniform(Seed::new(at as u64), "score"));
            let before = memory.len();
            let stayed = admit(&mut memory, sample, c, seed).unwrap();
            let weight = |c: f64| f64::from((c as f32).max(1e-6));
            if memory.len() > before {
                assert_eq!(replaced + refused, 0, "room was left");
                plain.push((id, c));
            } else {
                let own = seed.split(&id).split(0usize);
                let mut left = uniform(own, "victim") * plain.iter().map(|(_, c)| weight(*c)).sum::<f64>();
                let drawn = plain.iter().position(|(_, c)| {
                    left -= weight(*c);
                    left < 0.0
                });
                let drawn = drawn.expect("a share below 1");
                let other = weight(plain[drawn].1);
                if c < 1.0 && uniform(own, "chance") < other / (other + c) {
                    plain[drawn] = (id, c);
                    replaced += 1;
                } else {
                    refused += 1;
                }
                assert_eq!(stayed, plain.iter().any(|(_, score)| *score == c));
            }
            plain.sort_by(|left, right| left.0.cmp(&right.0));
            assert!(memory.bytes() <= 2048);
            assert!(memory.samples().map(|sample| &sample.id).eq(plain.iter().map(|(id, _)| id)), "after {at}");
        }
        assert!(replaced > 20 && refused > 20, "{replaced} {refused}");
    }
}
