//! Convolution over time, each channel by itself.

use burn::tensor::Tensor;

/// `y_t = sum_k w_k x_(t + k - kernel / 2)`, zeros beyond the ends: `[clips, frames, places, width]` to the same, with weights
/// `[kernel, width]` and an odd kernel.
pub(super) fn over_time(input: Tensor<4>, weights: Tensor<2>) -> Tensor<4> {
    let ([clips, frames, places, width], [kernel, _]) = (input.dims(), weights.dims());
    let reach = kernel / 2;
    let tap = |index: usize| weights.clone().narrow(0, index, 1).reshape([1, 1, 1, width]);
    // Taps that no two frames of the clip are apart read zeros only.
    let near = reach.min(frames - 1);
    let padding = Tensor::zeros([clips, near.max(1), places, width], &input.device().without_autodiff());
    let padded = match near {
        0 => input,
        _ => Tensor::cat(vec![padding.clone(), input, padding], 1),
    };
    let term = |offset: usize| padded.clone().narrow(1, offset, frames) * tap(reach - near + offset);
    (1..=2 * near).fold(term(0), |sum, offset| sum + term(offset))
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};
    use inarch_core::backbone::values;

    use super::over_time;

    #[test]
    fn a_tap_reads_its_neighbour_in_time_and_nothing_beyond_the_clip() {
        let device = Device::flex();
        // Two clips of three frames, one place, one channel.
        let input = Tensor::<1>::from_floats([1., 2., 3., 10., 20., 30.], &device).reshape([2, 3, 1, 1]);
        let weights = Tensor::<1>::from_floats([100., 1., 0.5], &device).reshape([3, 1]);
        let found = values(over_time(input.clone(), weights));
        assert_eq!(found, [2.0, 103.5, 203.0, 20.0, 1035.0, 2030.0]);
        // A kernel that is longer than the clip.
        let weights = Tensor::<1>::from_floats([7., 7., 100., 0., 1., 0., 0.5, 7., 7.], &device).reshape([9, 1]);
        assert_eq!(values(over_time(input, weights)), [2.5, 2.0, 103.0, 25.0, 20.0, 1030.0]);
    }
}
