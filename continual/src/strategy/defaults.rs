//! Defaults of the settings of strategies, by what they are used for.

pub(super) fn replay() -> usize {
    32
}
pub(super) fn reference() -> usize {
    256
}
pub(super) fn candidates() -> usize {
    200
}
pub(super) fn compare() -> usize {
    10
}
pub(super) fn tenth() -> f64 {
    0.1
}
pub(super) fn slow() -> f64 {
    0.01
}
pub(super) fn five() -> usize {
    5
}
pub(super) fn hold() -> f64 {
    1e-3
}
pub(super) fn der_alpha() -> f64 {
    0.3
}
pub(super) fn der_beta() -> f64 {
    0.5
}
pub(super) fn kept() -> f64 {
    0.95
}
pub(super) fn ewc_weight() -> f64 {
    10.0
}
pub(super) fn fisher_samples() -> usize {
    200
}
pub(super) fn one() -> f64 {
    1.0
}
pub(super) fn two() -> f64 {
    2.0
}
pub(super) fn half() -> f64 {
    0.5
}
pub(super) fn damping() -> f64 {
    1e-3
}
pub(super) fn zscl_hold() -> f64 {
    1e-3
}
pub(super) fn ema_decay() -> f64 {
    0.99
}
pub(super) fn density() -> f64 {
    0.2
}
pub(super) fn twentieth() -> f64 {
    0.05
}
pub(super) fn magnitude() -> f64 {
    0.8
}
