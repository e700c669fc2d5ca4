//! Scores among the classes of an experience.

use burn::tensor::{Tensor, TensorData};
use inarch_core::data::Example;
use inarch_peft::{Adapter, Loss, Step};

use super::Episode;

/// Takes a class out of a softmax.
const OUT: f32 = -1e4;

/// Whether each class is among those of an experience.
pub(super) fn classes_of(episode: &Episode<'_>) -> Vec<bool> {
    arriving(episode.classes, episode.train)
}

/// Whether each class is among those of some examples.
pub(super) fn arriving(classes: &[String], examples: &[Example]) -> Vec<bool> {
    let mut arrives = vec![false; classes.len()];
    examples.iter().for_each(|example| arrives[example.label] = true);
    arrives
}

/// Scores `[rows, classes]` of which only those of some classes count.
pub(super) fn among(logits: Tensor<2>, classes: &[bool]) -> Tensor<2> {
    let mask = row(&logits, classes, (0.0, OUT));
    logits + mask
}

/// Scores `[rows, classes]` with zero for those of all other classes.
pub(super) fn only(logits: Tensor<2>, classes: &[bool]) -> Tensor<2> {
    let mask = row(&logits, classes, (1.0, 0.0));
    logits * mask
}

/// A row `[1, classes]` of one value for some classes and of another for all others.
fn row(like: &Tensor<2>, classes: &[bool], (inside, outside): (f32, f32)) -> Tensor<2> {
    let values: Vec<f32> = classes.iter().map(|counts| if *counts { inside } else { outside }).collect();
    let columns = values.len();
    Tensor::from_data(TensorData::new(values, [1, columns]), &like.device().without_autodiff())
}

/// The adapter's own loss of a step, with what its method adds to the task's, in which some classes alone compete.
pub(super) fn own_loss(adapter: &Adapter, step: &Step<'_>, classes: &[bool]) -> Loss {
    adapter.learner().loss(&Step {
        image: step.image.clone(),
        text: step.text.clone(),
        prompts: step.prompts.clone(),
        logits: among(step.logits.clone(), classes),
        frozen_image: step.frozen_image.clone(),
        ..*step
    })
}
