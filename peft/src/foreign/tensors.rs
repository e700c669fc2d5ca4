//! Tensors of another program on their way into ours.

use inarch_core::backbone::HostTensor;
use inarch_core::checkpoint::{TorchValue, read_torch};

use super::import::Import;
use crate::error::Result;
use crate::parameters::Parameters;

/// The tensors of a file that have not been used yet.
pub(super) struct Unused<'a> {
    import: &'a Import<'a>,
    tensors: Parameters,
}

impl<'a> Unused<'a> {
    pub(super) fn new(import: &'a Import<'a>, tensors: Parameters) -> Self {
        Self { import, tensors }
    }

    /// The state dict of a checkpoint as Dassl writes it, or of a bare one.
    ///
    /// # Errors
    /// What stops the reader, or something else than tensors in the state dict.
    pub(super) fn of_checkpoint(import: &'a Import<'a>) -> Result<Self> {
        let mut value = read_torch(import.path)?;
        if let TorchValue::Dict(entries) = &mut value
            && let Some(state) = entries.remove("state_dict")
        {
            value = state;
        }
        let TorchValue::Dict(entries) = value else {
            return Err(import.malformed("expected a dictionary of tensors, or one with a `state_dict`"));
        };
        let mut tensors = Parameters::new();
        for (name, value) in entries {
            let TorchValue::Tensor(tensor) = value else {
                return Err(import.malformed(format!("`{name}` is no tensor")));
            };
            // Data-parallel training leaves a prefix on every name.
            let name = name.strip_prefix("module.").unwrap_or(&name).to_string();
            tensors.insert(name.clone(), HostTensor { origin: name, ..tensor });
        }
        Ok(Self { import, tensors })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Takes a tensor that may be there.
    pub(super) fn take(&mut self, name: &str) -> Option<HostTensor> {
        self.tensors.remove(name)
    }

    /// Takes a tensor with so many axes that must be there.
    pub(super) fn need(&mut self, name: &str, axes: usize) -> Result<HostTensor> {
        match self.tensors.remove(name) {
            Some(tensor) if tensor.shape.len() == axes => Ok(tensor),
            Some(tensor) => {
                let shape = tensor.shape;
                Err(self.import.malformed(format!("`{name}`: expected {axes} axes, found shape {shape:?}")))
            }
            None => Err(self.import.malformed(format!("`{name}` is missing"))),
        }
    }

    /// Takes `name.0`, `name.1`, .. as far as they go.
    pub(super) fn run(&mut self, name: impl Fn(usize) -> String) -> Vec<HostTensor> {
        (0..).map_while(|at| self.tensors.remove(&name(at))).collect()
    }

    /// Takes whatever is left.
    pub(super) fn rest(&mut self) -> Parameters {
        std::mem::take(&mut self.tensors)
    }

    /// Refuses a file of which something is left.
    pub(super) fn finish(self, what: &str) -> Result<()> {
        match self.tensors.keys().next() {
            None => Ok(()),
            Some(name) => {
                let count = self.tensors.len();
                Err(self.import.malformed(format!("`{name}` belongs to no {what} ({count} such tensors)")))
            }
        }
    }
}

/// `[rows, columns]` to `[columns, rows]`: a linear weight of PyTorch to one of burn, and back.
pub(super) fn transposed(tensor: HostTensor) -> Result<HostTensor, String> {
    let [rows, columns] = tensor.shape[..] else {
        return Err(format!("`{}`: expected a matrix, found shape {:?}", tensor.origin, tensor.shape));
    };
    let places = (0..columns).flat_map(|column| (0..rows).map(move |row| (row, column)));
    let data = places.map(|(row, column)| tensor.data[row * columns + column]).collect();
    Ok(HostTensor { shape: vec![columns, rows], data, ..tensor })
}

/// A vector that may be stored as a row or column.
pub(super) fn flat(tensor: HostTensor) -> HostTensor {
    HostTensor { shape: vec![tensor.data.len()], ..tensor }
}

/// Blocks `[factors, blocks, width, width]`, of which the skew-symmetric part counts, to rows of upper triangles
/// `[factors * blocks, width (width - 1) / 2]`.
pub(super) fn upper_triangles(tensor: HostTensor) -> Result<HostTensor, String> {
    let [factors, blocks, width, columns] = tensor.shape[..] else {
        return Err(format!("`{}`: expected blocks with four axes, found shape {:?}", tensor.origin, tensor.shape));
    };
    if width < 2 || width != columns {
        return Err(format!("`{}`: expected square blocks, found shape {:?}", tensor.origin, tensor.shape));
    }
    let above = |block: &[f32], at: (usize, usize)| 0.5 * (block[at.0 * width + at.1] - block[at.1 * width + at.0]);
    let blocks_of = tensor.data.chunks(width * width);
    let data = blocks_of.flat_map(|block| places_above(width).map(move |at| above(block, at))).collect();
    Ok(HostTensor { shape: vec![factors * blocks, width * (width - 1) / 2], data, ..tensor })
}

/// The way back.
pub(super) fn skew_blocks(tensor: HostTensor, factors: usize, width: usize) -> HostTensor {
    let mut data = Vec::with_capacity(tensor.shape[0] * width * width);
    for row in tensor.data.chunks(width * (width - 1) / 2) {
        let mut block = vec![0.0; width * width];
        for (value, (i, j)) in row.iter().zip(places_above(width)) {
            block[i * width + j] = *value;
            block[j * width + i] = -value;
        }
        data.extend(block);
    }
    HostTensor { shape: vec![factors, tensor.shape[0] / factors, width, width], data, ..tensor }
}

/// The places above the diagonal, row by row.
fn places_above(width: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..width).flat_map(move |row| (row + 1..width).map(move |column| (row, column)))
}
