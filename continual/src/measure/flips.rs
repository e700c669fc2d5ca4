//! What an update takes away from its users.

/// Share of examples that were answered right before and are answered wrong now (negative flip rate: Yan et al., 2021,
/// arXiv 2011.09161). Both lists hold one entry for each example; 0 for none.
pub fn negative_flips(before: &[bool], after: &[bool]) -> f64 {
    let flips = before.iter().zip(after).filter(|(before, after)| **before && !**after).count();
    flips as f64 / before.len().min(after.len()).max(1) as f64
}
