//! The classes that a checkpoint itself tells apart.

use super::state_dict::HostTensor;
use crate::error::{Error, Result};

/// A dense layer on the feature of a tower: `logits = W f + b`. It is not part of the backbone's identity; an adapter is made of
/// it (`inarch_peft`).
#[derive(Debug, Clone)]
pub struct ClassHead {
    /// The classes, one for each row.
    pub classes: Vec<String>,
    /// `[classes, dim]`.
    pub weight: HostTensor,
    /// `[classes]`.
    pub bias: Option<HostTensor>,
}

impl ClassHead {
    /// Checks the shapes for features of width `dim`.
    ///
    /// # Errors
    /// [`Error::Mismatch`] naming the tensor.
    pub(super) fn check(&self, dim: usize) -> Result<()> {
        let count = self.classes.len();
        let expected = [(Some(&self.weight), vec![count, dim]), (self.bias.as_ref(), vec![count])];
        for (tensor, shape) in expected {
            let Some(tensor) = tensor else { continue };
            let fault =
                |found: String| Error::mismatch(format!("tensor `{}`", tensor.origin), format!("{shape:?}"), found);
            if tensor.shape != shape || tensor.data.len() != shape.iter().product::<usize>() {
                return Err(fault(format!("{:?}", tensor.shape)));
            }
            if tensor.data.iter().any(|value| !value.is_finite()) {
                return Err(fault("values that are not finite".into()));
            }
        }
        Ok(())
    }
}
