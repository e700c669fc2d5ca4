//! Layer normalisation of rows, and its gradient.

use super::rows::{sum, sum_pairs, zip_rows};

/// `(x - mean) / deviation * gain + shift` for each row of `gain.len()` values.
pub(super) fn forward(output: &mut [f32], input: &[f32], gain: &[f32], shift: &[f32], epsilon: f32) {
    zip_rows(
        output,
        input,
        gain.len(),
        #[inline(always)]
        |output, row| {
            let (mean, inverse) = moments(row, epsilon);
            for (((output, value), gain), shift) in output.iter_mut().zip(row).zip(gain).zip(shift) {
                *output = (value - mean) * inverse * gain + shift;
            }
        },
    );
}

/// Turns the gradient of the output into that of the input.
pub(super) fn backward(gradient: &mut [f32], input: &[f32], gain: &[f32], epsilon: f32) {
    zip_rows(
        gradient,
        input,
        gain.len(),
        #[inline(always)]
        |gradient, row| {
            let (mean, inverse) = moments(row, epsilon);
            for (gradient, gain) in gradient.iter_mut().zip(gain) {
                *gradient *= gain;
            }
            let count = row.len() as f32;
            let average = sum(gradient, |gradient| gradient) / count;
            let along = sum_pairs(gradient, row, |gradient, value| gradient * (value - mean)) * inverse / count;
            for (gradient, value) in gradient.iter_mut().zip(row) {
                *gradient = inverse * (*gradient - average - (value - mean) * inverse * along);
            }
        },
    );
}

/// Mean and inverse standard deviation of a row, in two passes: exact also where the mean is large.
#[inline(always)]
fn moments(row: &[f32], epsilon: f32) -> (f32, f32) {
    let count = row.len() as f32;
    let mean = sum(row, |value| value) / count;
    let variance = sum(row, |value| (value - mean) * (value - mean)) / count;
    (mean, 1.0 / (variance + epsilon).sqrt())
}
