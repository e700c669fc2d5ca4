//! Herding: exemplars whose mean follows the mean of all.

/// The order in which herding chooses rows of `[rows, dim]`: each next row brings the mean of the chosen ones closest to
/// the mean of all (Rebuffi et al., 2017, arXiv 1611.07725, algorithm 4). Of equals the first. At most `count` rows.
pub fn herding(rows: &[f32], dim: usize, count: usize) -> Vec<usize> {
    let total = rows.len() / dim.max(1);
    let row = |at: usize| rows[at * dim..(at + 1) * dim].iter().map(|value| f64::from(*value));
    let mut mean = vec![0.0; dim];
    for at in 0..total {
        mean.iter_mut().zip(row(at)).for_each(|(sum, value)| *sum += value / total as f64);
    }
    let mut chosen: Vec<usize> = Vec::new();
    let mut left: Vec<usize> = (0..total).collect();
    let mut sum = vec![0.0; dim];
    while chosen.len() < count.min(total) {
        let next = (chosen.len() + 1) as f64;
        let distance = |at: usize| -> f64 {
            row(at).zip(&sum).zip(&mean).map(|((value, sum), mean)| (mean - (sum + value) / next).powi(2)).sum()
        };
        let (mut best, mut least) = (0, f64::INFINITY);
        for (place, at) in left.iter().enumerate() {
            let found = distance(*at);
            if found < least {
                (best, least) = (place, found);
            }
        }
        let at = left.remove(best);
        sum.iter_mut().zip(row(at)).for_each(|(sum, value)| *sum += value);
        chosen.push(at);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::herding;

    #[test]
    fn the_order_is_that_of_the_published_fixture() {
        // Avalanche's test of its herding buffer: features 0, 4, 5 (mean 3) are chosen as 4, 0, 5.
        assert_eq!(herding(&[0.0, 4.0, 5.0], 1, 3), [1, 0, 2]);
        assert_eq!(herding(&[0.0, 4.0, 5.0], 1, 2), [1, 0]);
        assert_eq!(herding(&[], 1, 2), [0usize; 0]);
        // Two dimensions, mean (1, 1): the row on the mean first, then the pair that keeps it.
        assert_eq!(herding(&[0.0, 2.0, 1.0, 1.0, 2.0, 0.0], 2, 3), [1, 0, 2]);
    }
}
