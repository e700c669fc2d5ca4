//! What test-time adaptation minimises.

use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::{Tensor, TensorData};

use super::episode::Episode;

/// Entropy `[1]` of the mean probability of scores `[views, classes]`.
pub(super) fn marginal_entropy(logits: Tensor<2>) -> Tensor<1> {
    let [views, _] = logits.dims();
    let shares = log_softmax(logits, 1);
    let greatest = shares.clone().without_autodiff().max_dim(0);
    let mean = (shares - greatest.clone()).exp().sum_dim(0).log() + greatest - (views as f64).ln();
    (mean.clone().exp() * mean).sum() * -1.0
}

/// Entropy `[rows]` of each row of scores `[rows, classes]`.
pub(super) fn row_entropies(logits: Tensor<2>) -> Tensor<1> {
    let shares = log_softmax(logits.clone(), 1);
    (softmax(logits, 1) * shares).sum_dim(1).squeeze_dim::<1>(1) * -1.0
}

/// Mean distance `[1]` of class features `[classes, dim]` from their mean: what C-TPT keeps large.
pub(super) fn dispersion(text: Tensor<2>) -> Tensor<1> {
    let mean = text.clone().mean_dim(0);
    let distance = text - mean;
    (distance.clone() * distance).sum_dim(1).sqrt().mean()
}

/// The gradient of a leaf; `None` where the loss does not depend on it, such as that of a prompt beneath an adapter that
/// replaces the text features.
pub(super) fn gradient_of<const D: usize>(leaf: &Tensor<D>, loss: &Tensor<1>) -> Option<Tensor<D>> {
    if loss.is_tracked() { leaf.grad(&loss.backward()) } else { None }
}

/// Features of some views of an image, `[rows, dim]`, as a constant.
pub(super) fn views_of(episode: &Episode, rows: &[usize], device: &burn::tensor::Device) -> Tensor<2> {
    episode.features.select(rows).tensor(device)
}

/// A vector on a device.
pub(super) fn vector(values: Vec<f32>, device: &burn::tensor::Device) -> Tensor<1> {
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), device)
}
