//! `x * sigmoid(1.702 x)`, and its gradient.

use super::rows::{exp, zip_rows};

const SLOPE: f32 = 1.702;

/// `width` only says how the values are dealt out.
pub(super) fn forward(output: &mut [f32], input: &[f32], width: usize) {
    zip_rows(
        output,
        input,
        width,
        #[inline(always)]
        |output, input| {
            for (output, value) in output.iter_mut().zip(input) {
                *output = value / (1.0 + exp(-SLOPE * value));
            }
        },
    );
}

/// Turns the gradient of the output into that of the input.
pub(super) fn backward(gradient: &mut [f32], input: &[f32], width: usize) {
    zip_rows(
        gradient,
        input,
        width,
        #[inline(always)]
        |gradient, input| {
            for (gradient, value) in gradient.iter_mut().zip(input) {
                let gate = 1.0 / (1.0 + exp(-SLOPE * value));
                *gradient *= gate + SLOPE * value * gate * (1.0 - gate);
            }
        },
    );
}
