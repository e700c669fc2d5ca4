//! A tensor that is part of an adapter and never trained.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

/// A part of the path of every fixed tensor, by which files and optimizers tell it from a trained one.
const FIELD: &str = "fixed";

/// A stored tensor without a gradient: cached keys, random projections, statistics. Saved as `<path>.fixed`.
#[derive(Module, Debug)]
pub struct Fixed<const D: usize> {
    fixed: Param<Tensor<D>>,
}

impl<const D: usize> Fixed<D> {
    /// Holds `value`.
    pub fn new(value: Tensor<D>) -> Self {
        Self { fixed: Param::from_tensor(value.without_autodiff()).set_require_grad(false) }
    }

    /// The value, without a gradient.
    pub fn val(&self) -> Tensor<D> {
        self.fixed.val().without_autodiff()
    }
}

/// Whether a parameter of this path is stored but not trained.
pub(crate) fn is_fixed(path: &str) -> bool {
    path.split('.').any(|part| part == FIELD)
}
