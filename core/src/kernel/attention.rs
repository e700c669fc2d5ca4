//! The row-wise half of attention: softmax over scores, and its gradient. The products are the backend's.

use super::rows::{LANES, exp, map_rows, sum, sum_pairs, zip_rows};

/// Shape of the scores of one head.
#[derive(Clone, Copy)]
pub(super) struct Scores {
    pub(super) queries: usize,
    pub(super) keys: usize,
    pub(super) scale: f32,
    pub(super) causal: bool,
}

impl Scores {
    /// How many keys a row of scores may see.
    #[inline(always)]
    fn visible(&self, row: usize) -> usize {
        if !self.causal {
            return self.keys;
        }
        (row % self.queries + 1 + self.keys).saturating_sub(self.queries).min(self.keys)
    }
}

/// Softmax of `scale * score` over the visible keys of each row, in place; zero elsewhere.
pub(super) fn softmax(values: &mut [f32], scores: Scores) {
    map_rows(
        values,
        scores.keys,
        #[inline(always)]
        |row, values| {
            let (seen, hidden) = values.split_at_mut(scores.visible(row));
            hidden.fill(0.0);
            let largest = largest(seen);
            for value in &mut *seen {
                *value = exp((*value - largest) * scores.scale);
            }
            let whole = 1.0 / sum(seen, |value| value);
            for value in seen {
                *value *= whole;
            }
        },
    );
}

/// Turns the gradient of the probabilities into that of the scores before scaling.
pub(super) fn softmax_backward(gradient: &mut [f32], probabilities: &[f32], scores: Scores) {
    zip_rows(
        gradient,
        probabilities,
        scores.keys,
        #[inline(always)]
        |gradient, probabilities| {
            let along = sum_pairs(gradient, probabilities, |gradient, probability| gradient * probability);
            for (gradient, probability) in gradient.iter_mut().zip(probabilities) {
                *gradient = probability * (*gradient - along) * scores.scale;
            }
        },
    );
}

/// Moves heads of `[batch, heads, tokens, dim]` side by side: `[batch, tokens, heads * dim]`.
pub(super) fn join_heads(output: &mut [f32], input: &[f32], heads: usize, tokens: usize, dim: usize) {
    map_rows(
        output,
        heads * dim,
        #[inline(always)]
        |row, output| {
            let (batch, token) = (row / tokens, row % tokens);
            for (head, output) in output.chunks_exact_mut(dim).enumerate() {
                let from = ((batch * heads + head) * tokens + token) * dim;
                output.copy_from_slice(&input[from..from + dim]);
            }
        },
    );
}

/// The largest value; NaN never is.
#[inline(always)]
fn largest(row: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (wide, rest) = row.as_chunks::<LANES>();
    for values in wide {
        for (lane, value) in lanes.iter_mut().zip(values) {
            *lane = if *value > *lane { *value } else { *lane };
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *lane = if *value > *lane { *value } else { *lane };
    }
    lanes.iter().fold(f32::NEG_INFINITY, |largest, lane| if *lane > largest { *lane } else { largest })
}
