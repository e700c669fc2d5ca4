//! The weight of the ridge, chosen on samples that were summed apart.

use nalgebra::DMatrix;

use super::cholesky::Cholesky;
use super::statistics::{Part, Statistics};
use crate::error::Result;

/// Candidates, as multiples of the mean squared feature `tr(G) / width`.
const CANDIDATES: [f64; 8] = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0];
/// The candidate where there is nothing to choose on.
const DEFAULT: f64 = 1e-3;

/// Weights `[width, classes]` that minimise `|Y - H W|^2 + lambda |W - W0|^2` over all samples, for the one-hot classes
/// `Y`. Without a given `lambda`, the one with the least squared error on the held samples when fitted to the others; all
/// of it is computed from sums, over everything that was ever added.
pub(super) fn ridge_weights(
    statistics: &Statistics,
    classes: &[String],
    prior: &DMatrix<f64>,
    lambda: Option<f64>,
) -> Result<DMatrix<f64>> {
    let whole = statistics.whole();
    let Some(gram) = &whole.gram else { return Ok(prior.clone()) };
    let lambda = match lambda {
        Some(lambda) => lambda,
        None => mean_diagonal(gram) * chosen(statistics, classes, prior)?,
    };
    solve(&whole, classes, prior, lambda)
}

/// The best candidate.
fn chosen(statistics: &Statistics, classes: &[String], prior: &DMatrix<f64>) -> Result<f64> {
    let (fit, held) = (&statistics.fit, &statistics.held);
    let (Some(gram), Some(held_gram)) = (&fit.gram, &held.gram) else { return Ok(DEFAULT) };
    let scale = mean_diagonal(gram);
    let cross = held.cross(classes, prior.nrows());
    let mut best = (f64::INFINITY, DEFAULT);
    for candidate in CANDIDATES {
        let weights = solve(fit, classes, prior, candidate * scale)?;
        // The sum over held samples of |y - W^T h|^2, short of its constant.
        let error = (held_gram * &weights).dot(&weights) - 2.0 * cross.dot(&weights);
        if error < best.0 {
            best = (error, candidate);
        }
    }
    Ok(best.1)
}

fn solve(part: &Part, classes: &[String], prior: &DMatrix<f64>, lambda: f64) -> Result<DMatrix<f64>> {
    let Some(gram) = &part.gram else { return Ok(prior.clone()) };
    let right = part.cross(classes, prior.nrows()) - gram * prior;
    let mut left = gram.clone();
    (0..left.nrows()).for_each(|at| left[(at, at)] += lambda);
    let factor = Cholesky::new(left).ok_or_else(|| {
        let reason = format!("the ridge of {lambda:.3e} is too small for these samples; give a larger `lambda`");
        inarch_core::Error::invalid("statistics", reason)
    })?;
    Ok(prior + factor.solve(right))
}

fn mean_diagonal(gram: &DMatrix<f64>) -> f64 {
    (gram.trace() / gram.nrows() as f64).max(1e-12)
}
