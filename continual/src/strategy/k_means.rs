//! Centroids of a set of points: K-means (Lloyd, 1982) from seeds that are drawn far apart (k-means++: Arthur and
//! Vassilvitskii, 2007).

use inarch_core::Seed;

/// More rounds than it ever takes to settle.
const ROUNDS: usize = 100;

fn distance(left: &[f64], right: &[f64]) -> f64 {
    left.iter().zip(right).map(|(left, right)| (left - right).powi(2)).sum()
}

/// The nearest centroid of a point, and its squared distance.
fn nearest(point: &[f64], centroids: &[Vec<f64>]) -> (usize, f64) {
    let distances = centroids.iter().map(|centroid| distance(point, centroid)).enumerate();
    distances.min_by(|left, right| left.1.total_cmp(&right.1)).unwrap_or((0, f64::INFINITY))
}

/// `count` centroids of points `[points, dim]`; of fewer points some are there more than once.
pub(super) fn centroids(points: &[Vec<f64>], count: usize, seed: Seed) -> Vec<Vec<f64>> {
    let Some(first) = points.first() else { return Vec::new() };
    let draws = seed.uniforms(count, 1.0);
    let mut found: Vec<Vec<f64>> = Vec::with_capacity(count);
    for draw in draws {
        let weights: Vec<f64> =
            points.iter().map(|point| if found.is_empty() { 1.0 } else { nearest(point, &found).1 }).collect();
        // A draw in [-1, 1), brought into [0, 1).
        let mut left = f64::from(draw.midpoint(1.0)) * weights.iter().sum::<f64>();
        let chosen = weights.iter().position(|weight| {
            left -= weight;
            left < 0.0
        });
        found.push(points[chosen.unwrap_or(0)].clone());
    }
    for _ in 0..ROUNDS {
        let mut sums = vec![(vec![0.0; first.len()], 0.0); found.len()];
        for point in points {
            let (sum, members) = &mut sums[nearest(point, &found).0];
            sum.iter_mut().zip(point).for_each(|(sum, value)| *sum += value);
            *members += 1.0;
        }
        let mean = |((sum, members), before): ((Vec<f64>, f64), &Vec<f64>)| match members {
            0.0 => before.clone(),
            members => sum.into_iter().map(|sum| sum / members).collect(),
        };
        let next: Vec<Vec<f64>> = sums.into_iter().zip(&found).map(mean).collect();
        if next == found {
            break;
        }
        found = next;
    }
    found
}

#[cfg(test)]
mod tests {
    use inarch_core::Seed;

    use super::centroids;

    #[test]
    fn centroids_are_the_means_of_clusters_that_lie_apart() {
        let centres = [[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]];
        let around = [[0.1, 0.0], [-0.1, 0.0], [0.0, 0.2], [0.0, -0.2]];
        let points: Vec<Vec<f64>> =
            centres.iter().flat_map(|c| around.iter().map(|a| vec![c[0] + a[0], c[1] + a[1]])).collect();
        for seed in 0..10 {
            let mut found = centroids(&points, 3, Seed::new(seed));
            found.sort_by(|left, right| (left[0] + 2.0 * left[1]).total_cmp(&(right[0] + 2.0 * right[1])));
            for (found, expected) in found.iter().zip(&centres) {
                assert!(
                    found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-9),
                    "{found:?}"
                );
            }
            assert_eq!(centroids(&points, 3, Seed::new(seed)), centroids(&points, 3, Seed::new(seed)));
        }
        assert_eq!(centroids(&points[..1], 3, Seed::new(1)), vec![points[0].clone(); 3]);
        assert!(centroids(&[], 3, Seed::new(1)).is_empty());
    }
}
