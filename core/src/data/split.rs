//! The three parts of a data set, and how they are made where a source does not give them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::seed::Seed;

/// A part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// What is learned from.
    Train,
    /// What choices are made on.
    Val,
    /// What is reported on.
    Test,
}

impl Split {
    /// The split of a folder or column value: `train`, `val`, `validation`, `valid` or `test`.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "train" => Self::Train,
            "val" | "validation" | "valid" => Self::Val,
            "test" => Self::Test,
            _ => return None,
        })
    }

    /// The names that [`Split::from_name`] knows, for messages.
    pub const NAMES: &str = "`train`, `val` (or `validation`, `valid`), `test`";
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
        })
    }
}

/// Splits examples, given as (id, label), into about 50 % train, 20 % val and 30 % test of each class.
///
/// An example's hash decides, so its split does not depend on what else there is, and a file added later never moves
/// another one from test to train. Only where this would leave a class without a training example does the one with
/// the smallest hash move to train, and where a class of two or more would have none to test, the one with the greatest
/// hash to test.
pub fn assign_splits(examples: &[(&str, usize)]) -> Vec<Split> {
    let seed = Seed::new(0).split("dataset-split");
    let hashes: Vec<u64> = examples.iter().map(|(id, _)| seed.hash(id)).collect();
    let share = |hash: u64| hash as f64 / u64::MAX as f64;
    let mut splits: Vec<Split> = hashes
        .iter()
        .map(|&hash| match share(hash) {
            low if low < 0.5 => Split::Train,
            middle if middle < 0.7 => Split::Val,
            _ => Split::Test,
        })
        .collect();
    let classes = examples.iter().map(|(_, label)| label + 1).max().unwrap_or(0);
    let mut members = vec![Vec::new(); classes];
    for (place, (_, label)) in examples.iter().enumerate() {
        members[*label].push(place);
    }
    for mut places in members {
        places.sort_by_key(|&place| (hashes[place], examples[place].0));
        if let Some(&first) = places.first() {
            splits[first] = Split::Train;
        }
        if let [_, .., last] = places[..] {
            splits[last] = Split::Test;
        }
    }
    splits
}

#[cfg(test)]
mod tests {
    use super::{Split, assign_splits};

    #[test]
    fn shares_are_about_50_20_30() {
        let ids: Vec<String> = (0..3000).map(|number| format!("class/{number}.jpg")).collect();
        let examples: Vec<(&str, usize)> = ids.iter().map(|id| (id.as_str(), 0)).collect();
        let splits = assign_splits(&examples);
        let count = |split| splits.iter().filter(|&&found| found == split).count() as f64 / 3000.0;
        assert!((count(Split::Train) - 0.5).abs() < 0.03 && (count(Split::Val) - 0.2).abs() < 0.03);
    }

    #[test]
    fn a_new_file_moves_no_other() {
        let ids: Vec<String> = (0..40).map(|number| format!("a/{number}.jpg")).collect();
        let mut examples: Vec<(&str, usize)> = ids.iter().map(|id| (id.as_str(), 0)).collect();
        let before = assign_splits(&examples);
        examples.push(("b/new.jpg", 1));
        examples.push(("a/new.jpg", 0));
        assert_eq!(assign_splits(&examples)[..40], before);
    }

    #[test]
    fn small_classes_can_be_learned_and_tested() {
        for class in 0..50 {
            let ids = [format!("{class}/1.png"), format!("{class}/2.png")];
            let mut splits = assign_splits(&[(&ids[0], 0), (&ids[1], 0)]);
            splits.sort();
            assert_eq!(splits, [Split::Train, Split::Test]);
            assert_eq!(assign_splits(&[(&ids[0], 0)]), [Split::Train]);
        }
    }
}
