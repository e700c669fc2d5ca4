//! The features that a head sees: the normalised feature itself, random non-linear ones, a constant.

use burn::tensor::{Device, Tensor, TensorData};
use inarch_core::Seed;
use nalgebra::DMatrix;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// More random features than anyone can solve for; a manifest must not ask for all memory.
const MOST: usize = 1 << 15;

/// `h(f) = [1, u, relu(u W)]` with `u = f / |f|` and `W` `[dim, projections]` drawn from N(0, 1).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expansion {
    /// Length of a feature.
    pub(super) dim: usize,
    /// Whether the constant and the feature itself are there.
    pub(super) raw: bool,
    /// Number of random features.
    pub(super) projections: usize,
    /// Decides `W`.
    pub(super) seed: u64,
}

impl Expansion {
    /// [`Error::Setting`] for too many random features, or no feature at all.
    pub(super) fn check(&self) -> Result<()> {
        if self.projections > MOST || self.width() == 0 {
            let reason = format!("must be 1 to {MOST}, found {}", self.projections);
            return Err(Error::Setting { setting: "projections", reason });
        }
        Ok(())
    }

    /// Number of features that do not come from `W`.
    pub(super) fn raw_width(&self) -> usize {
        if self.raw { self.dim + 1 } else { 0 }
    }

    /// Number of all features.
    pub(super) fn width(&self) -> usize {
        self.raw_width() + self.projections
    }

    /// `W`, row by row.
    fn draws(&self) -> Vec<f32> {
        Seed::new(self.seed).split("random projection").normals(self.dim * self.projections, 1.0)
    }

    /// `W` `[dim, projections]` as a tensor.
    pub(super) fn projection(&self, device: &Device) -> Tensor<2> {
        Tensor::from_data(TensorData::new(self.draws(), [self.dim, self.projections]), device)
    }

    /// The map in double precision.
    pub(super) fn on_host(&self) -> HostExpansion {
        let draws = self.draws().into_iter().map(f64::from);
        HostExpansion { expansion: *self, projection: DMatrix::from_row_iterator(self.dim, self.projections, draws) }
    }
}

/// The map in double precision, ready for many rows.
pub(super) struct HostExpansion {
    expansion: Expansion,
    projection: DMatrix<f64>,
}

impl HostExpansion {
    /// `[rows, width]` of normalised features `[rows, dim]`. The features of a row do not depend on the other rows.
    pub(super) fn expand(&self, unit: &DMatrix<f64>) -> DMatrix<f64> {
        let raw = self.expansion.raw_width();
        let mut all = DMatrix::zeros(unit.nrows(), self.expansion.width());
        if self.expansion.raw {
            all.column_mut(0).fill(1.0);
            all.columns_mut(1, raw - 1).copy_from(unit);
        }
        if self.expansion.projections > 0 {
            let random = unit * &self.projection;
            all.columns_mut(raw, self.expansion.projections).copy_from(&random.map(|value| value.max(0.0)));
        }
        all
    }
}

/// Features `[rows, dim]` in double precision, normalised.
pub(super) fn unit_rows(values: &[f32], dim: usize) -> DMatrix<f64> {
    let rows = values.len() / dim.max(1);
    let mut unit = DMatrix::from_row_iterator(rows, dim, values.iter().map(|value| f64::from(*value)));
    for mut row in unit.row_iter_mut() {
        let norm = row.norm().max(1e-12);
        row.unscale_mut(norm);
    }
    unit
}
