//! The quadratic programme of gradient episodic memory (Lopez-Paz and Ranzato, 2017, arXiv 1706.08840).

/// Added to the diagonal in proportion to its greatest entry, so that guides that say the same are no trouble.
const RIDGE: f64 = 1e-9;

/// The weights `v >= margin` that make `t + sum_k v_k g_k` shortest, from the products `g_j . g_k` and `t . g_k`: the minimum of
/// `1/2 v^T G v + p^T v`. With margin 0 it is the dual of the projection of `t` onto the cone of gradients that work against
/// no guide. Found by an active set (Lawson and Hanson, 1974), exact up to rounding.
pub(crate) fn cone_weights(gram: &[Vec<f64>], products: &[f64], margin: f64) -> Vec<f64> {
    let count = products.len();
    let greatest = (0..count).map(|at| gram[at][at]).fold(0.0, f64::max);
    let at = |row: usize, column: usize| gram[row][column] + if row == column { RIDGE * greatest } else { 0.0 };
    // Over u = v - margin >= 0 the linear term takes in the margin's share.
    let linear: Vec<f64> =
        (0..count).map(|row| products[row] + margin * (0..count).map(|column| at(row, column)).sum::<f64>()).collect();
    let scale = linear.iter().fold(0.0f64, |greatest, value| greatest.max(value.abs()));
    let mut weights = vec![0.0f64; count];
    let mut free: Vec<usize> = Vec::new();
    // Each guide enters and leaves a few times at most; the bound is for inputs that are no numbers.
    for _ in 0..16 * count.max(1) {
        let descent =
            |row: usize| -linear[row] - free.iter().map(|column| at(row, *column) * weights[*column]).sum::<f64>();
        let held = (0..count).filter(|row| !free.contains(row));
        let Some(enters) = held.max_by(|a, b| descent(*a).total_cmp(&descent(*b)).then(b.cmp(a))) else { break };
        let fall = descent(enters);
        if fall.is_nan() || fall <= 1e-12 * scale {
            break;
        }
        free.push(enters);
        loop {
            let Some(wanted) = solved(&free, &at, &linear) else {
                free.pop();
                return weights.iter().map(|weight| weight + margin).collect();
            };
            // As far as the first weight that would fall below zero.
            let reach = |(place, row): (usize, &usize)| match wanted[place] <= 0.0 {
                true => weights[*row] / (weights[*row] - wanted[place]).max(f64::MIN_POSITIVE),
                false => 1.0,
            };
            let step = free.iter().enumerate().map(reach).fold(1.0, f64::min);
            for (row, wanted) in free.iter().zip(&wanted) {
                weights[*row] += step * (wanted - weights[*row]);
            }
            if step >= 1.0 {
                break;
            }
            free.retain(|row| {
                let stays = weights[*row] > 1e-14 * scale / greatest.max(f64::MIN_POSITIVE);
                if !stays {
                    weights[*row] = 0.0;
                }
                stays
            });
            if free.is_empty() {
                break;
            }
        }
    }
    weights.iter().map(|weight| weight + margin).collect()
}

/// The solution of `G u = -linear` over some rows, by Cholesky's factors; `None` where it has none.
fn solved(rows: &[usize], at: &dyn Fn(usize, usize) -> f64, linear: &[f64]) -> Option<Vec<f64>> {
    let count = rows.len();
    let mut lower = vec![vec![0.0f64; count]; count];
    for row in 0..count {
        for column in 0..=row {
            let inner: f64 = (0..column).map(|inner| lower[row][inner] * lower[column][inner]).sum();
            let value = at(rows[row], rows[column]) - inner;
            if row == column {
                if value.is_nan() || value <= 0.0 {
                    return None;
                }
                lower[row][row] = value.sqrt();
            } else {
                lower[row][column] = value / lower[column][column];
            }
        }
    }
    let mut half = vec![0.0; count];
    for row in 0..count {
        let inner: f64 = (0..row).map(|column| lower[row][column] * half[column]).sum();
        half[row] = (-linear[rows[row]] - inner) / lower[row][row];
    }
    let mut solution = vec![0.0; count];
    for row in (0..count).rev() {
        let inner: f64 = (row + 1..count).map(|below| lower[below][row] * solution[below]).sum();
        solution[row] = (half[row] - inner) / lower[row][row];
    }
    Some(solution)
}

#[cfg(test)]
mod tests {
    use inarch_core::Seed;

    use super::{cone_weights, solved};

    fn gram(guides: &[Vec<f64>]) -> Vec<Vec<f64>> {
        guides.iter().map(|left| guides.iter().map(|right| dot(left, right)).collect()).collect()
    }

    fn dot(left: &[f64], right: &[f64]) -> f64 {
        left.iter().zip(right).map(|(left, right)| left * right).sum()
    }

    /// The value of the programme at `v`.
    fn value(gram: &[Vec<f64>], products: &[f64], v: &[f64]) -> f64 {
        let square: f64 = v.iter().zip(gram).map(|(weight, row)| weight * dot(row, v)).sum();
        square / 2.0 + dot(products, v)
    }

    /// The best of the solutions over all sets of free weights.
    fn brute_force(gram: &[Vec<f64>], products: &[f64], margin: f64) -> Vec<f64> {
        let count = products.len();
        let shifted: Vec<f64> = (0..count).map(|row| products[row] + margin * gram[row].iter().sum::<f64>()).collect();
        let mut best = vec![margin; count];
        for set in 1..1usize << count {
            let rows: Vec<usize> = (0..count).filter(|row| set >> row & 1 == 1).collect();
            let Some(found) = solved(&rows, &|row, column| gram[row][column], &shifted) else { continue };
            let mut all = vec![margin; count];
            rows.iter().zip(&found).for_each(|(row, weight)| all[*row] += weight);
            if found.iter().all(|weight| *weight >= 0.0) && value(gram, products, &all) < value(gram, products, &best) {
                best = all;
            }
        }
        best
    }

    #[test]
    fn the_weights_are_the_best_of_all_active_sets() {
        for case in 0..300u64 {
            let (count, dim) = (1 + case as usize % 6, 4 + case as usize % 9);
            let seed = Seed::new(case);
            let rows = |name: &str, count: usize| -> Vec<Vec<f64>> {
                let all = seed.split(name).normals(count * dim, 1.0);
                all.chunks(dim).map(|row| row.iter().map(|value| f64::from(*value)).collect()).collect()
            };
            let (guides, task) = (rows("guides", count), rows("task", 1).remove(0));
            if count > dim {
                continue;
            }
            let gram = gram(&guides);
            let products: Vec<f64> = guides.iter().map(|guide| dot(guide, &task)).collect();
            for margin in [0.0, 0.5] {
                let found = cone_weights(&gram, &products, margin);
                let expected = brute_force(&gram, &products, margin);
                for (found, expected) in found.iter().zip(&expected) {
                    assert!((found - expected).abs() < 1e-5, "case {case}: {found} {expected}");
                }
                // The projected gradient works against no guide.
                let apart = |guide: &Vec<f64>| {
                    dot(guide, &task) + guides.iter().zip(&found).map(|(other, v)| v * dot(guide, other)).sum::<f64>()
                };
                assert!(guides.iter().map(apart).all(|product| product > -1e-5), "case {case}");
            }
        }
    }

    #[test]
    fn guides_that_say_the_same_and_guides_that_say_nothing_are_no_trouble() {
        // Both are (1, 0), the task's gradient is (-1, 2): the part along them is taken out.
        let found = cone_weights(&[vec![1.0, 1.0], vec![1.0, 1.0]], &[-1.0, -1.0], 0.0);
        assert!((found[0] + found[1] - 1.0).abs() < 1e-6, "{found:?}");
        assert_eq!(cone_weights(&[vec![0.0]], &[0.0], 0.0), [0.0]);
        let broken = cone_weights(&[vec![f64::NAN]], &[f64::NAN], 0.0);
        assert_eq!(broken.len(), 1);
    }
}
