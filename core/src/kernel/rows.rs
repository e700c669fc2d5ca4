//! Loops over rows: on all cores when there are several and enough work, with the widest vectors that the processor has.

use pulp::Arch;
use rayon::prelude::*;

/// Values that one thread should have at least.
const SHARE: usize = 1 << 14;
/// Lanes of sums: as many as the widest vectors hold, everywhere, so that the order of a sum is the same on any processor.
pub(super) const LANES: usize = 16;

/// Runs `work` on rows of `width` values of `output` and the rows of `input` beside them.
pub(super) fn zip_rows(
    output: &mut [f32],
    input: &[f32],
    width: usize,
    work: impl Fn(&mut [f32], &[f32]) + Sync + Send + Copy,
) {
    map_rows(
        output,
        width,
        #[inline(always)]
        |row, output| work(output, &input[row * width..][..width]),
    );
}

/// Runs `work` on rows of `width` values of `output`, given their index.
pub(super) fn map_rows(output: &mut [f32], width: usize, work: impl Fn(usize, &mut [f32]) + Sync + Send + Copy) {
    let share = share(output.len(), width);
    let each = |(chunk, output): (usize, &mut [f32])| {
        Arch::new().dispatch(
            #[inline(always)]
            || {
                for (row, output) in output.chunks_exact_mut(width).enumerate() {
                    work(chunk * (share / width) + row, output);
                }
            },
        );
    };
    if output.len() <= share {
        each((0, output));
    } else {
        output.par_chunks_mut(share).enumerate().for_each(each);
    }
}

/// How many values a thread takes at a time: whole rows.
fn share(values: usize, width: usize) -> usize {
    let threads = rayon::current_num_threads();
    let share = if threads == 1 { values } else { values.div_ceil(4 * threads).max(SHARE) };
    share.div_ceil(width).max(1) * width
}

/// The sum of what `term` gives for each position of a row.
#[inline(always)]
pub(super) fn sum(row: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (wide, rest) = row.as_chunks::<LANES>();
    for values in wide {
        for (lane, value) in lanes.iter_mut().zip(values) {
            *lane += term(*value);
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *lane += term(*value);
    }
    lanes.iter().sum()
}

/// The sum of what `term` gives for each pair of two rows.
#[inline(always)]
pub(super) fn sum_pairs(left: &[f32], right: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let ((wide_left, rest_left), (wide_right, rest_right)) = (left.as_chunks::<LANES>(), right.as_chunks::<LANES>());
    for (left, right) in wide_left.iter().zip(wide_right) {
        for lane in 0..LANES {
            lanes[lane] += term(left[lane], right[lane]);
        }
    }
    for ((lane, left), right) in lanes.iter_mut().zip(rest_left).zip(rest_right) {
        *lane += term(*left, *right);
    }
    lanes.iter().sum()
}

/// `e^x` to two units in the last place, without branches; NaN stays NaN, below -87.3 it is the smallest normal number.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // 2^n e^r with |r| <= ln 2 / 2 and a polynomial for e^r (the coefficients of Cephes' expf).
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer in the low bits
    let x = if x < -87.3 { -87.3 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let mut p = 1.987_569_2e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let value = p * r * r + r + 1.0;
    let power = f32::from_bits((shifted.to_bits().wrapping_add(127)) << 23);
    value * power
}

#[cfg(test)]
mod tests {
    use super::exp;

    #[test]
    fn exp_is_exact_to_two_units() {
        for step in -8700..8800 {
            let x = step as f32 / 100.0;
            let (found, expected) = (f64::from(exp(x)), f64::from(x).exp());
            assert!(((found - expected) / expected).abs() < 2.5e-7, "exp({x}) = {found}, not {expected}");
        }
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(f32::NEG_INFINITY) < 2e-38);
        assert_eq!(exp(0.0), 1.0);
    }
}
