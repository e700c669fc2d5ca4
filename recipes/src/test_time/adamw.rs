//! AdamW on one tensor, with PyTorch's arithmetic. Every element has moments of its own, so one step over the values of
//! many images equals one step for each.

use burn::tensor::Tensor;

/// Settings of the optimizer.
#[derive(Debug, Clone, Copy)]
pub(super) struct AdamW {
    pub(super) lr: f64,
    pub(super) weight_decay: f64,
    pub(super) epsilon: f64,
}

/// Decay of the moments.
const BETAS: (f64, f64) = (0.9, 0.999);

impl AdamW {
    /// PyTorch's defaults.
    pub(super) fn new(lr: f64) -> Self {
        Self { lr, weight_decay: 0.01, epsilon: 1e-8 }
    }
}

/// The moments of one tensor.
pub(super) struct Moments<const D: usize> {
    steps: i32,
    both: Option<(Tensor<D>, Tensor<D>)>,
}

impl<const D: usize> Moments<D> {
    /// Before the first step.
    pub(super) fn new() -> Self {
        Self { steps: 0, both: None }
    }

    /// The value after a step along `gradient`; both without autodiff.
    pub(super) fn step(&mut self, optimizer: &AdamW, value: Tensor<D>, gradient: Tensor<D>) -> Tensor<D> {
        let (first, second) = match self.both.take() {
            Some((first, second)) => (
                first * BETAS.0 + gradient.clone() * (1.0 - BETAS.0),
                second * BETAS.1 + gradient.clone() * gradient * (1.0 - BETAS.1),
            ),
            None => (gradient.clone() * (1.0 - BETAS.0), gradient.clone() * gradient * (1.0 - BETAS.1)),
        };
        self.steps += 1;
        let (bias_1, bias_2) = (1.0 - BETAS.0.powi(self.steps), 1.0 - BETAS.1.powi(self.steps));
        let denominator = second.clone().sqrt() / bias_2.sqrt() + optimizer.epsilon;
        let change = first.clone() / denominator * (optimizer.lr / bias_1);
        self.both = Some((first, second));
        value * (1.0 - optimizer.lr * optimizer.weight_decay) - change
    }
}
