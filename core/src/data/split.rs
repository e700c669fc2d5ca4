//! The three parts of a data set, and how they are made where a source does not give them.

use std::collections::HashMap;
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
    /// The split of a folder or column value, in upper or lower case: `train`, `training`, `val`, `valid`, `validation`, `test` or
    /// `testing`.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "train" | "training" => Self::Train,
            "val" | "validation" | "valid" => Self::Val,
            "test" | "testing" => Self::Test,
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

/// Splits examples, given as (id, label), into about 50 % train, 20 % val and 30 % test of each class; see
/// [`assign_group_splits`].
pub fn assign_splits(examples: &[(&str, usize)]) -> Vec<Split> {
    assign_group_splits(examples)
}

/// Splits examples, given as (group, label), into about 50 % train, 20 % val and 30 % test of the groups of each class. A
/// group goes into one split as a whole; an example without others is a group of its own, named by its id.
///
/// A group's hash decides, so its split does not depend on what else there is, and a file added later never moves
/// another one from test to train. Only where this would leave a class without a group to train on does the one with
/// the smallest hash move to train, and where a class of two groups or more would have none to test, the one with the
/// greatest hash to test.
pub fn assign_group_splits(examples: &[(&str, usize)]) -> Vec<Split> {
    let seed = Seed::new(0).split("dataset-split");
    let share = |hash: u64| hash as f64 / u64::MAX as f64;
    let mut hashes: HashMap<&str, u64> = HashMap::new();
    for (group, _) in examples {
        hashes.entry(group).or_insert_with(|| seed.hash(group));
    }
    let mut splits: HashMap<&str, Split> = hashes
        .iter()
        .map(|(group, hash)| match share(*hash) {
            low if low < 0.5 => (*group, Split::Train),
            middle if middle < 0.7 => (*group, Split::Val),
            _ => (*group, Split::Test),
        })
        .collect();
    let classes = examples.iter().map(|(_, label)| label + 1).max().unwrap_or(0);
    let mut members: Vec<Vec<&str>> = vec![Vec::new(); classes];
    for (group, label) in examples {
        members[*label].push(group);
    }
    for groups in &mut members {
        groups.sort_by_key(|group| (hashes[group], *group));
        groups.dedup();
        if let [_, .., last] = groups[..]
            && groups.iter().all(|group| splits[group] != Split::Test)
        {
            splits.insert(last, Split::Test);
        }
    }
    // Last, because a class that cannot be learned is worse than one that is not tested; a group may have several classes.
    for groups in &members {
        if let Some(first) = groups.first()
            && groups.iter().all(|group| splits[group] != Split::Train)
        {
            splits.insert(first, Split::Train);
        }
    }
    examples.iter().map(|(group, _)| splits[group]).collect()
}

#[cfg(test)]
mod tests {
    use super::{Split, assign_group_splits, assign_splits};

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

    #[test]
    fn groups_stay_together_and_classes_can_be_learned_and_tested() {
        let mut examples = Vec::new();
        let groups: Vec<String> = (0..60).map(|number| format!("patient {number}")).collect();
        for (number, group) in groups.iter().enumerate() {
            // Most have both classes; the third class has two patients only.
            examples.extend([(group.as_str(), number % 2), (group.as_str(), (number + 1) % 2)]);
            if number < 2 {
                examples.push((group.as_str(), 2));
            }
        }
        let splits = assign_group_splits(&examples);
        for (place, (group, _)) in examples.iter().enumerate() {
            let same = examples.iter().position(|(other, _)| other == group).unwrap();
            assert_eq!(splits[place], splits[same], "{group}");
        }
        for class in 0..3 {
            for split in [Split::Train, Split::Test] {
                let held = examples.iter().zip(&splits).any(|((_, label), found)| *label == class && *found == split);
                assert!(held, "class {class} has nothing in {split}");
            }
        }
    }
}
