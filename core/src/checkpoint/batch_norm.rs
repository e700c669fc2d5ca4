//! Batch normalisations that do not change any more, as part of the convolutions before them: `w' = w g / sqrt(v + e)`,
//! `b' = b - m g / sqrt(v + e)`.

use std::collections::BTreeMap;
use std::path::Path;

use crate::backbone::{HostTensor, StateDict};
use crate::error::{Error, Result};

/// Convolutions by canonical name, each with its tensors: `filters`, and `weight`, `bias`, `running_mean` and `running_var` of the
/// normalisation behind it.
#[derive(Default)]
pub(super) struct Normalised(BTreeMap<String, BTreeMap<String, HostTensor>>);

impl Normalised {
    /// Takes a tensor of the convolution `layer`.
    pub(super) fn insert(&mut self, layer: String, part: &str, tensor: HostTensor) {
        self.0.entry(layer).or_default().insert(part.into(), tensor);
    }

    /// The convolutions with offsets, `LAYER.weight` and `LAYER.bias`; `epsilon` is added to the variances.
    ///
    /// # Errors
    /// [`Error::Tensor`] naming a tensor that is missing or of another size.
    pub(super) fn folded(self, epsilon: f64, weights: &Path) -> Result<StateDict> {
        let mut canonical = StateDict::new();
        for (layer, mut parts) in self.0 {
            let mut take = |part: &str| {
                parts.remove(part).ok_or_else(|| Error::Tensor {
                    path: weights.to_path_buf(),
                    name: format!("{part} of {layer}"),
                    expected: "a convolution and its batch normalisation".into(),
                    found: "no such tensor".into(),
                })
            };
            let mut filters = take("filters")?;
            let [gain, shift, mean, variance] =
                [take("weight")?, take("bias")?, take("running_mean")?, take("running_var")?];
            let count = filters.shape.first().copied().unwrap_or(0);
            for tensor in [&gain, &shift, &mean, &variance] {
                if tensor.data.len() != count {
                    return Err(Error::Tensor {
                        path: weights.to_path_buf(),
                        name: tensor.origin.clone(),
                        expected: format!("shape [{count}]"),
                        found: format!("shape {:?}", tensor.shape),
                    });
                }
            }
            let each = filters.data.len().checked_div(count).unwrap_or(0);
            let mut bias = Vec::with_capacity(count);
            for channel in 0..count {
                let scale = f64::from(gain.data[channel]) / (f64::from(variance.data[channel]) + epsilon).sqrt();
                bias.push((f64::from(shift.data[channel]) - f64::from(mean.data[channel]) * scale) as f32);
                let own = &mut filters.data[channel * each..][..each];
                own.iter_mut().for_each(|value| *value = (f64::from(*value) * scale) as f32);
            }
            let bias = HostTensor { shape: vec![count], data: bias, origin: shift.origin };
            canonical.insert(format!("{layer}.weight"), filters);
            canonical.insert(format!("{layer}.bias"), bias);
        }
        Ok(canonical)
    }
}
