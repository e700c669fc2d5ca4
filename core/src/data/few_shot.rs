//! Few examples of each class, chosen by hash: the choice is the same on every machine, in every order, and whatever
//! else the data set holds.

use std::collections::HashSet;

use super::dataset::{Dataset, Example};
use crate::error::{Error, Result};
use crate::seed::Seed;

/// The `shots` examples of each class with the smallest hash of their id, all of them where a class has fewer; class
/// after class, smallest hash first.
///
/// More shots with the same seed only add to the choice. An image with several labels counts for each of them and is there
/// once; one without any is never chosen.
///
/// # Errors
/// [`Error::Invalid`] when `shots` is 0, a label is not below `classes`, or a class has no example.
pub fn few_shot(examples: &[Example], classes: usize, shots: usize, seed: Seed) -> Result<Vec<Example>> {
    if shots == 0 {
        return Err(Error::invalid("shots", "must be at least 1"));
    }
    let ranked = rank(examples, classes, seed)?;
    if let Some(empty) = ranked.iter().position(Vec::is_empty) {
        return Err(Error::invalid(
            "few-shot selection",
            format!("class number {empty} has no example to choose from"),
        ));
    }
    Ok(pick(&ranked, 0, shots))
}

/// Examples to choose settings on: `min(shots, 4)` of each class from val; where val is empty, from train, but none
/// that [`few_shot`] gives to training with the same `shots` and `seed`, and none of the same group. Never from test.
///
/// A class that has no such example is left out, so the result can be empty.
///
/// # Errors
/// [`Error::Invalid`] when `shots` is 0 or a label is out of range.
pub fn validation_shots(dataset: &Dataset, shots: usize, seed: Seed) -> Result<Vec<Example>> {
    if shots == 0 {
        return Err(Error::invalid("shots", "must be at least 1"));
    }
    let classes = dataset.classes.len();
    if !dataset.val.is_empty() {
        return Ok(pick(&rank(&dataset.val, classes, seed)?, 0, shots.min(4)));
    }
    let mut ranked = rank(&dataset.train, classes, seed)?;
    let taken = pick(&ranked, 0, shots);
    let taken: HashSet<&str> = taken.iter().map(Example::unit).collect();
    ranked.iter_mut().for_each(|class| class.retain(|example| !taken.contains(example.unit())));
    Ok(pick(&ranked, 0, shots.min(4)))
}

/// The first half of the classes, rounded up, and the rest, each a data set with labels from 0: the base-to-new
/// protocol.
///
/// # Errors
/// [`Error::Invalid`] when there are fewer than two classes.
pub fn base_new(dataset: &Dataset) -> Result<(Dataset, Dataset)> {
    let count = dataset.classes.len();
    if count < 2 {
        return Err(Error::invalid("base and new classes", format!("at least two classes are needed, found {count}")));
    }
    let (base, new) = dataset.classes.split_at(count.div_ceil(2));
    Ok((dataset.restrict(base)?, dataset.restrict(new)?))
}

/// The examples of each class by the hash of their id.
fn rank(examples: &[Example], classes: usize, seed: Seed) -> Result<Vec<Vec<&Example>>> {
    let mut ranked: Vec<Vec<(u64, &Example)>> = vec![Vec::new(); classes];
    let several = examples.iter().any(|example| !example.labels.is_empty());
    for example in examples {
        let own = [example.label];
        for label in if several { &example.labels[..] } else { &own } {
            let class = ranked.get_mut(*label).ok_or_else(|| {
                let reason = format!("`{}` has label {label}, there are {classes} classes", example.id);
                Error::invalid("labels", reason)
            })?;
            class.push((seed.hash(&example.id), example));
        }
    }
    let sorted = ranked.into_iter().map(|mut class| {
        class.sort_by(|a, b| (a.0, &a.1.id).cmp(&(b.0, &b.1.id)));
        class.into_iter().map(|(_, example)| example).collect()
    });
    Ok(sorted.collect())
}

fn pick(ranked: &[Vec<&Example>], skip: usize, take: usize) -> Vec<Example> {
    let mut seen = HashSet::new();
    let picked = ranked.iter().flat_map(|class| class.iter().skip(skip).take(take));
    // An image with several labels is picked once.
    picked.filter(|example| seen.insert(example.id.as_str())).map(|example| (*example).clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::{base_new, few_shot, validation_shots};
    use crate::data::dataset::{Example, Source, sample};
    use crate::seed::Seed;

    fn pool(class: &str, label: usize, count: usize) -> Vec<Example> {
        let ids = (0..count).map(|number| format!("{class}/{number}.jpg"));
        ids.map(|id| Example::new(id.clone(), Source::Image(id.into()), label)).collect()
    }

    fn ids(examples: &[Example], label: usize) -> Vec<&str> {
        examples.iter().filter(|example| example.label == label).map(|example| example.id.as_str()).collect()
    }

    #[test]
    fn a_class_or_a_file_elsewhere_changes_no_pick() {
        let seed = Seed::new(7);
        let mut examples = [pool("cat", 0, 30), pool("dog", 1, 20)].concat();
        let before = few_shot(&examples, 2, 4, seed).unwrap();
        assert_eq!(before.len(), 8);
        examples.extend(pool("bird", 2, 9));
        examples.extend(pool("stray-dog", 1, 5));
        examples.reverse();
        let after = few_shot(&examples, 3, 4, seed).unwrap();
        assert_eq!(ids(&before, 0), ids(&after, 0));
        let more = few_shot(&examples, 3, 8, seed).unwrap();
        assert!(ids(&after, 1).iter().all(|id| ids(&more, 1).contains(id)));
        assert_ne!(few_shot(&examples, 3, 4, Seed::new(8)).unwrap(), after);
    }

    #[test]
    fn the_pick_is_the_smallest_hashes() {
        let seed = Seed::new(1);
        let examples = pool("cat", 0, 12);
        let mut hashes: Vec<u64> = examples.iter().map(|example| seed.hash(&example.id)).collect();
        hashes.sort_unstable();
        let picked = few_shot(&examples, 1, 5, seed).unwrap();
        let found: Vec<u64> = picked.iter().map(|example| seed.hash(&example.id)).collect();
        assert_eq!(found, hashes[..5]);
        assert_eq!(few_shot(&examples, 1, 99, seed).unwrap().len(), 12);
        assert!(few_shot(&examples, 2, 5, seed).is_err());
        assert!(few_shot(&examples, 1, 0, seed).is_err());
    }

    #[test]
    fn validation_is_never_what_is_trained_or_tested_on() {
        let seed = Seed::new(3);
        let mut dataset = sample(&["cat", "dog"]);
        dataset.train = [pool("cat", 0, 11), pool("dog", 1, 3)].concat();
        for shots in [1, 2, 8] {
            let train = few_shot(&dataset.train, 2, shots, seed).unwrap();
            let chosen = validation_shots(&dataset, shots, seed).unwrap();
            assert!(chosen.iter().all(|example| !train.contains(example) && dataset.train.contains(example)));
            assert_eq!(ids(&chosen, 0).len(), shots.min(4).min(11 - shots));
        }
        // The other images of a patient that is trained on do not count as unseen.
        dataset.train.iter_mut().enumerate().for_each(|(at, example)| example.group = Some(format!("p{}", at % 4)));
        let train = few_shot(&dataset.train, 2, 1, seed).unwrap();
        let chosen = validation_shots(&dataset, 1, seed).unwrap();
        assert!(!chosen.is_empty());
        assert!(chosen.iter().all(|example| train.iter().all(|other| other.group != example.group)));
        dataset.val = pool("valid", 1, 6);
        let chosen = validation_shots(&dataset, 16, seed).unwrap();
        assert_eq!((ids(&chosen, 0).len(), ids(&chosen, 1).len()), (0, 4));
    }

    #[test]
    fn base_classes_are_the_first_half_rounded_up() {
        let (base, new) = base_new(&sample(&["a", "b", "c", "d", "e"])).unwrap();
        assert_eq!(
            (base.classes, new.classes),
            (["a", "b", "c"].map(String::from).into(), ["d", "e"].map(String::from).into())
        );
        assert_eq!(new.test.iter().map(|example| example.label).collect::<Vec<_>>(), [0, 1]);
        assert!(base_new(&sample(&["a"])).is_err());
    }
}
