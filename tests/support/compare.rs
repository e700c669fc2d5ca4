//! Comparison of tensors by value.

use burn::tensor::Tensor;
use inarch_core::backbone::values;

use super::reference::{Rows, flat};

/// The greatest difference, as a share of the greatest expected magnitude, and where it is.
fn distance(found: &[f32], expected: &[f32]) -> (f32, usize) {
    let greatest = expected.iter().fold(f32::MIN_POSITIVE, |greatest, value| greatest.max(value.abs()));
    let mut worst = (0.0, 0);
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        let distance = (found - expected).abs() / greatest;
        // A NaN is the worst of all.
        let distance = if distance.is_nan() { f32::INFINITY } else { distance };
        if distance > worst.0 {
            worst = (distance, at);
        }
    }
    worst
}

/// Fails unless every value is within `tolerance` of the expected one, relative to the greatest expected magnitude.
#[track_caller]
pub(crate) fn close(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{what}: number of values");
    assert!(expected.iter().any(|value| *value != 0.0), "{what}: nothing but zeros is expected, which proves nothing");
    let (distance, at) = distance(found, expected);
    assert!(
        distance <= tolerance,
        "{what}: element {at} of {}: expected {}, found {}; relative distance {distance:e}, allowed {tolerance:e}",
        expected.len(),
        expected[at],
        found[at],
    );
}

/// [`close`] for tensors, which must have the same shape.
#[track_caller]
pub(crate) fn same<const D: usize>(what: &str, found: Tensor<D>, expected: Tensor<D>, tolerance: f32) {
    assert_eq!(found.dims(), expected.dims(), "{what}: shape");
    close(what, &values(found), &values(expected), tolerance);
}

/// Fails when two tensors are close: guards a comparison against an adapter that does nothing.
#[track_caller]
pub(crate) fn differs<const D: usize>(what: &str, left: Tensor<D>, right: Tensor<D>) {
    differs_by(what, left, right, 1e-2);
}

/// [`differs`] where one layer of many moves a result less; `least` must stay well above the tolerance that it guards.
#[track_caller]
pub(crate) fn differs_by<const D: usize>(what: &str, left: Tensor<D>, right: Tensor<D>, least: f32) {
    assert_eq!(left.dims(), right.dims(), "{what}: shape");
    let (distance, _) = distance(&values(left), &values(right));
    assert!(distance > least, "{what}: the two should differ, the relative distance is {distance:e}");
}

/// [`same`] for the features of both towers.
#[track_caller]
pub(crate) fn same_features(what: &str, found: [Tensor<2>; 2], expected: [Tensor<2>; 2], tolerance: f32) {
    for ((tower, found), expected) in ["image", "text"].into_iter().zip(found).zip(expected) {
        same(&format!("{what}, {tower} features"), found, expected, tolerance);
    }
}

/// [`close`] for the features of both towers beside the naive reference.
#[track_caller]
pub(crate) fn like_reference(what: &str, found: [Tensor<2>; 2], expected: [Rows; 2]) {
    for ((tower, found), expected) in ["image", "text"].into_iter().zip(found).zip(expected) {
        // Single against double precision through the whole tower.
        close(&format!("{what}, {tower} features"), &values(found), &flat(&expected), 2e-5);
    }
}
