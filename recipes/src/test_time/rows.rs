//! Rows of equal width on the host: features and scores as methods without gradients use them.

use burn::tensor::{Device, Tensor, TensorData};
use inarch_core::backbone::values;

/// A row-major matrix on the host.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rows {
    width: usize,
    values: Vec<f32>,
}

impl Rows {
    /// Rows of `width` values.
    ///
    /// # Panics
    /// When the number of values is no multiple of the width.
    pub fn new(width: usize, values: Vec<f32>) -> Self {
        assert!(width > 0 && values.len().is_multiple_of(width), "{} values in rows of {width}", values.len());
        Self { width, values }
    }

    /// The values of a tensor `[rows, width]`.
    pub fn from_tensor(tensor: Tensor<2>) -> Self {
        let [_, width] = tensor.dims();
        Self::new(width, values(tensor))
    }

    /// The same on a device, `[rows, width]`.
    pub fn tensor(&self, device: &Device) -> Tensor<2> {
        Tensor::from_data(TensorData::new(self.values.clone(), [self.count(), self.width]), device)
    }

    /// Number of rows.
    pub fn count(&self) -> usize {
        self.values.len() / self.width.max(1)
    }

    /// Values in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// One row.
    pub fn row(&self, at: usize) -> &[f32] {
        &self.values[at * self.width..(at + 1) * self.width]
    }

    /// All rows.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.values.chunks_exact(self.width)
    }

    /// Some rows, in this order.
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> Self {
        Self { width: self.width, values: rows.iter().flat_map(|row| self.row(*row)).copied().collect() }
    }

    /// The mean of all rows.
    pub fn mean(&self) -> Vec<f32> {
        let mut mean = vec![0.0; self.width];
        for row in self.iter() {
            mean.iter_mut().zip(row).for_each(|(mean, value)| *mean += value);
        }
        let count = self.count().max(1) as f32;
        mean.iter_mut().for_each(|value| *value /= count);
        mean
    }

    /// All values, row by row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// All values, row by row.
    pub fn into_values(self) -> Vec<f32> {
        self.values
    }
}

/// Inner product. Eight partial sums, so that it runs in vector registers.
pub(super) fn dot(left: &[f32], right: &[f32]) -> f32 {
    let mut sums = [0.0f32; 8];
    let (left_chunks, right_chunks) = (left.chunks_exact(8), right.chunks_exact(8));
    let rest: f32 = left_chunks.remainder().iter().zip(right_chunks.remainder()).map(|(a, b)| a * b).sum();
    for (left, right) in left_chunks.zip(right_chunks) {
        for at in 0..8 {
            sums[at] += left[at] * right[at];
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// Scales a row to Euclidean length 1.
pub(super) fn to_unit(row: &mut [f32]) {
    let length = dot(row, row).sqrt().max(1e-12);
    row.iter_mut().for_each(|value| *value /= length);
}

/// `into += factor * row`.
pub(super) fn add_scaled(into: &mut [f32], factor: f32, row: &[f32]) {
    into.iter_mut().zip(row).for_each(|(into, value)| *into += factor * value);
}
