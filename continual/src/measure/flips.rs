//! What an update takes away from its users, and what it gives them.

/// Share of examples that were answered right before and are answered wrong now (negative flip rate: Yan et al., 2021,
/// arXiv 2011.09161). Both lists hold one entry for each example; 0 for none.
pub fn negative_flips(before: &[bool], after: &[bool]) -> f64 {
    share(before, after, |before, after| before && !after)
}

/// Share of examples that were answered wrong before and are answered right now. With [`negative_flips`] it tells a change of
/// accuracy apart: accuracy after = before + positive - negative.
pub fn positive_flips(before: &[bool], after: &[bool]) -> f64 {
    share(before, after, |before, after| !before && after)
}

fn share(before: &[bool], after: &[bool], flipped: impl Fn(bool, bool) -> bool) -> f64 {
    let flips = before.iter().zip(after).filter(|(before, after)| flipped(**before, **after)).count();
    flips as f64 / before.len().min(after.len()).max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::{negative_flips, positive_flips};

    #[test]
    fn flips_by_hand_tell_a_change_of_accuracy_apart() {
        let before = [true, true, true, false, false, false, false, true];
        let after = [true, false, true, true, true, true, false, false];
        let (negative, positive) = (negative_flips(&before, &after), positive_flips(&before, &after));
        assert_eq!((negative, positive), (2.0 / 8.0, 3.0 / 8.0));
        let accuracy = |right: &[bool]| right.iter().filter(|right| **right).count() as f64 / right.len() as f64;
        assert_eq!(accuracy(&after), accuracy(&before) + positive - negative);
        assert_eq!((negative_flips(&[], &[]), positive_flips(&[], &[])), (0.0, 0.0));
    }
}
