//! How well a score puts the examples of one class before all others, whatever the threshold.

use std::collections::HashMap;
use std::ops::Range;

use rand::RngExt as _;
use serde::{Deserialize, Serialize};

use crate::seed::Seed;

/// The share of resamples that an interval holds.
pub const CONFIDENCE: f64 = 0.95;

/// How the measures of one class are taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RankingConfig {
    /// The specificity that sensitivity is given at, 0 to 1.
    pub specificity: f64,
    /// Resamples of each interval; 0 for no intervals.
    pub resamples: usize,
    /// Decides the resamples.
    pub seed: u64,
}

impl Default for RankingConfig {
    fn default() -> Self {
        Self { specificity: 0.9, resamples: 1000, seed: 1 }
    }
}

/// A number and, where it was asked for, its 95 % interval: the 2.5 and 97.5 percentiles over a bootstrap that draws
/// positives and negatives apart, as many as there are, with replacement (Efron and Tibshirani 1993, chapter 13). For
/// sensitivity the threshold is chosen anew in each resample.
///
/// Examples that belong together (the images of a patient) are drawn together, since they tell less than as many from
/// apart: a cluster bootstrap (Davison and Hinkley 1997, section 3.8), within the groups that hold only positives, only
/// negatives, and both.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The number.
    pub value: f64,
    /// Both ends.
    pub interval: Option<[f64; 2]>,
}

/// One class against all others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassRanking {
    /// Examples of the class.
    pub positives: usize,
    /// Area under the ROC curve: the chance that a positive scores higher than a negative, ties counting half.
    pub auroc: Estimate,
    /// Mean precision at the positives, without interpolation, as scikit-learn has it.
    pub average_precision: Estimate,
    /// The greatest sensitivity at a threshold with at least the specificity that was asked for.
    pub sensitivity: Estimate,
    /// That threshold, in the units of the score: at or above it an example counts as positive. `None` when none does.
    pub threshold: Option<f64>,
}

impl ClassRanking {
    /// Measures `scores` of examples of which some are `positive`; `None` without positives or without negatives.
    pub fn of(scores: &[f64], positive: &[bool], config: RankingConfig) -> Option<Self> {
        Ranks::new(scores, positive, None).map(|ranks| Self::measure(&ranks, config))
    }

    /// As [`of`](Self::of), with intervals that draw groups in place of examples: `groups` has the number of each one's.
    pub fn grouped(scores: &[f64], positive: &[bool], groups: &[usize], config: RankingConfig) -> Option<Self> {
        Ranks::new(scores, positive, Some(groups)).map(|ranks| Self::measure(&ranks, config))
    }

    fn measure(ranks: &Ranks, config: RankingConfig) -> Self {
        let [auroc, average_precision, sensitivity] = measures(&ranks.counts, config.specificity);
        let mut resampled = [const { Vec::new() }; 3];
        let seed = Seed::new(config.seed).split("bootstrap");
        for resample in 0..config.resamples {
            let counts = ranks.resample(seed.split(resample));
            for (all, value) in resampled.iter_mut().zip(measures(&counts, config.specificity)) {
                all.push(value);
            }
        }
        let [first, second, third] = resampled.map(|mut values| interval(&mut values));
        let place = place_of(&ranks.counts, config.specificity);
        Self {
            positives: ranks.counts.iter().map(|count| count[0] as usize).sum(),
            auroc: Estimate { value: auroc, interval: first },
            average_precision: Estimate { value: average_precision, interval: second },
            sensitivity: Estimate { value: sensitivity, interval: third },
            threshold: place.map(|place| ranks.scores[place]),
        }
    }
}

/// Area under the ROC curve of scores of which some are positive; `None` without positives or without negatives.
pub fn auroc(scores: &[f64], positive: &[bool]) -> Option<f64> {
    Some(measures(&Ranks::new(scores, positive, None)?.counts, 1.0)[0])
}

/// Average precision of scores of which some are positive; `None` without positives or without negatives.
pub fn average_precision(scores: &[f64], positive: &[bool]) -> Option<f64> {
    Some(measures(&Ranks::new(scores, positive, None)?.counts, 1.0)[1])
}

/// Positives and negatives at each distinct score, the highest first.
struct Ranks {
    scores: Vec<f64>,
    counts: Vec<[u32; 2]>,
    /// The place of each example, and 0 for a positive, 1 for a negative; those of a group side by side.
    members: Vec<[usize; 2]>,
    /// The members of each group: of those that hold positives only, negatives only, both.
    strata: [Vec<Range<usize>>; 3],
}

impl Ranks {
    fn new(scores: &[f64], positive: &[bool], groups: Option<&[usize]>) -> Option<Self> {
        let count = scores.len().min(positive.len()).min(groups.map_or(usize::MAX, <[usize]>::len));
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by(|left, right| scores[*right].total_cmp(&scores[*left]));
        // Groups are numbered by their best example, so that groups of one are drawn as examples are.
        let mut numbers = HashMap::new();
        let mut examples = Vec::with_capacity(order.len());
        let (mut distinct, mut counts) = (Vec::new(), Vec::<[u32; 2]>::new());
        for (at, example) in order.into_iter().enumerate() {
            if distinct.last() != Some(&scores[example]) {
                distinct.push(scores[example]);
                counts.push([0; 2]);
            }
            let (place, kind) = (distinct.len() - 1, usize::from(!positive[example]));
            counts[place][kind] += 1;
            let next = numbers.len();
            let group = groups.map_or(at, |groups| *numbers.entry(groups[example]).or_insert(next));
            examples.push((group, [place, kind]));
        }
        examples.sort_by_key(|(group, _)| *group);
        let mut strata = [const { Vec::new() }; 3];
        let mut start = 0;
        for group in examples.chunk_by(|left, right| left.0 == right.0) {
            let holds = |kind: usize| group.iter().any(|(_, [_, own])| *own == kind);
            let stratum = match (holds(0), holds(1)) {
                (true, true) => 2,
                (_, negatives) => usize::from(negatives),
            };
            strata[stratum].push(start..start + group.len());
            start += group.len();
        }
        let held = |kind: usize| counts.iter().any(|count| count[kind] > 0);
        let both = held(0) && held(1);
        let members = examples.into_iter().map(|(_, member)| member).collect();
        both.then_some(Self { scores: distinct, counts, members, strata })
    }

    fn resample(&self, seed: Seed) -> Vec<[u32; 2]> {
        let mut counts = vec![[0; 2]; self.counts.len()];
        let mut draws = seed.rng();
        for groups in &self.strata {
            for _ in groups {
                // As 32 bits, so that every machine draws the same.
                let drawn = &groups[draws.random_range(0..groups.len() as u32) as usize];
                for [place, kind] in &self.members[drawn.clone()] {
                    counts[*place][*kind] += 1;
                }
            }
        }
        counts
    }
}

/// Area under the ROC curve, average precision, sensitivity at a specificity.
fn measures(counts: &[[u32; 2]], specificity: f64) -> [f64; 3] {
    let sum = |kind: usize| counts.iter().map(|count| f64::from(count[kind])).sum::<f64>();
    let (positives, negatives) = (sum(0), sum(1));
    let (mut above, mut wrong) = (0.0, 0.0);
    let (mut area, mut precision) = (0.0, 0.0);
    for count in counts {
        let [here, other] = count.map(f64::from);
        area += other * (above + here / 2.0);
        above += here;
        wrong += other;
        if here > 0.0 {
            precision += here * above / (above + wrong);
        }
    }
    let sensitivity = place_of(counts, specificity)
        .map_or(0.0, |place| counts[..=place].iter().map(|count| f64::from(count[0])).sum::<f64>() / positives);
    [area / (positives * negatives), precision / positives, sensitivity]
}

/// The last place whose score, as threshold, still has the specificity.
fn place_of(counts: &[[u32; 2]], specificity: f64) -> Option<usize> {
    let negatives: u32 = counts.iter().map(|count| count[1]).sum();
    let mut wrong = 0;
    let held = counts.iter().take_while(|count| {
        wrong += count[1];
        // In whole numbers but for the product, so that 0.9 of ten is nine.
        f64::from(negatives - wrong) >= specificity * f64::from(negatives) - 1e-9
    });
    held.count().checked_sub(1)
}

/// The middle [`CONFIDENCE`] of some values, by linear interpolation.
fn interval(values: &mut [f64]) -> Option<[f64; 2]> {
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    let at = |share: f64| {
        let place = share * last as f64;
        let (low, high) = (values[place.floor() as usize], values[place.ceil() as usize]);
        low + (high - low) * place.fract()
    };
    Some([at((1.0 - CONFIDENCE) / 2.0), at((1.0 + CONFIDENCE) / 2.0)])
}

#[cfg(test)]
mod tests {
    use super::{ClassRanking, RankingConfig, auroc, average_precision};

    const SCORES: [f64; 8] = [0.9, 0.8, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3];
    const POSITIVE: [bool; 8] = [true, true, false, true, false, false, true, false];

    #[test]
    fn eight_examples_by_hand() {
        // Pairs won by 0.9: 4, by 0.8: 3 and a half, by 0.7: 3, by 0.4: 1, of 16.
        assert_eq!(auroc(&SCORES, &POSITIVE), Some(11.5 / 16.0));
        // Precision 1 at 0.9; 2/3 at 0.8; 3/4 at 0.7; 4/7 at 0.4.
        let expected = (1.0 + 2.0 / 3.0 + 0.75 + 4.0 / 7.0) / 4.0;
        assert!((average_precision(&SCORES, &POSITIVE).unwrap() - expected).abs() < 1e-12);
        // One of four negatives may be taken: down to 0.7, three of four positives.
        let config = RankingConfig { specificity: 0.75, resamples: 0, seed: 1 };
        let found = ClassRanking::of(&SCORES, &POSITIVE, config).unwrap();
        assert_eq!((found.sensitivity.value, found.threshold, found.positives), (0.75, Some(0.7), 4));
        let strict = ClassRanking::of(&SCORES, &POSITIVE, RankingConfig { specificity: 1.0, ..config }).unwrap();
        assert_eq!((strict.sensitivity.value, strict.threshold, strict.auroc.interval), (0.25, Some(0.9), None));
        assert_eq!(auroc(&SCORES, &[true; 8]), None);
    }

    #[test]
    fn nothing_is_positive_where_the_best_scored_is_wrong() {
        let config = RankingConfig { specificity: 1.0, resamples: 0, seed: 1 };
        let found = ClassRanking::of(&[0.9, 0.1], &[false, true], config).unwrap();
        assert_eq!((found.sensitivity.value, found.threshold, found.auroc.value), (0.0, None, 0.0));
    }

    #[test]
    fn intervals_hold_the_value_narrow_with_examples_and_repeat() {
        let width = |copies: usize, seed: u64| {
            // Copies at scores of their own, so that the value stays about the same.
            let scores: Vec<f64> =
                (0..copies).flat_map(|copy| SCORES.map(|score| score + copy as f64 * 1e-6)).collect();
            let positive = POSITIVE.repeat(copies);
            let config = RankingConfig { seed, ..RankingConfig::default() };
            let found = ClassRanking::of(&scores, &positive, config).unwrap();
            let [low, high] = found.auroc.interval.unwrap();
            assert!(low < found.auroc.value && found.auroc.value < high);
            (high - low, found)
        };
        let (few, many) = (width(4, 1).0, width(64, 1).0);
        // The square root of 16 times the examples.
        assert!((few / many - 4.0).abs() < 1.0, "{few} {many}");
        assert_eq!(width(4, 1).1, width(4, 1).1);
        assert_ne!(width(4, 1).1.auroc.interval, width(4, 2).1.auroc.interval);
    }
    /// Some scores in both kinds, 60 of them, without ties.
    fn sixty() -> (Vec<f64>, Vec<bool>) {
        let scores: Vec<f64> = (0..60).map(|at| f64::from(at * 37 % 60)).collect();
        let positive = (0..60).map(|at| at % 3 == 0 || scores[at] > 45.0).collect();
        (scores, positive)
    }

    #[test]
    fn groups_of_one_are_drawn_as_examples_are() {
        let (scores, positive) = sixty();
        let groups: Vec<usize> = (0..60).map(|at| 1000 - at).collect();
        let config = RankingConfig::default();
        let found = ClassRanking::grouped(&scores, &positive, &groups, config);
        assert_eq!(found, ClassRanking::of(&scores, &positive, config));
    }

    #[test]
    fn copies_within_groups_tell_nothing_new() {
        let (scores, positive) = sixty();
        let config = RankingConfig::default();
        let once = ClassRanking::of(&scores, &positive, config).unwrap();
        let (scores, positive) = (scores.repeat(4), positive.repeat(4));
        let groups: Vec<usize> = (0..60).collect::<Vec<_>>().repeat(4);
        let found = ClassRanking::grouped(&scores, &positive, &groups, config).unwrap();
        let measures = |of: &ClassRanking| [of.auroc, of.average_precision, of.sensitivity];
        assert_eq!(measures(&found), measures(&once));
        assert_eq!(found.positives, 4 * once.positives);
        // Drawn one by one they would be taken for four times the patients.
        let width = |of: &ClassRanking| of.auroc.interval.map(|[low, high]| high - low).unwrap();
        let apart = ClassRanking::of(&scores, &positive, config).unwrap();
        assert!(width(&apart) < 0.6 * width(&found), "{} {}", width(&apart), width(&found));
    }

    #[test]
    fn groups_of_both_kinds_never_leave_one_out() {
        let (scores, positive) = ([0.9, 0.2, 0.8, 0.3, 0.1], [true, false, true, true, true]);
        // The only negative is in the group 7.
        let found = ClassRanking::grouped(&scores, &positive, &[7, 7, 7, 4, 5], RankingConfig::default()).unwrap();
        // 0.3 and 0.1 are drawn among themselves: none, one or both of them twice. The one at 0.1 loses.
        assert_eq!((found.auroc.value, found.auroc.interval), (0.75, Some([0.5, 1.0])));
    }
}
