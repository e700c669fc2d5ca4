//! Heads in closed form over frozen features. What they learn from is a sum over samples ([`Statistics`]), so training in
//! parts, in any order or on several machines gives the head of all data, and a sample can be taken out again.

mod cholesky;
mod expansion;
mod fecam;
mod kernel_ridge;
mod lambda;
mod ridge;
mod simple_cil;
mod statistics;
mod statistics_file;
mod support;

pub use fecam::{Fecam, FecamConfig};
pub use kernel_ridge::{KernelRidge, RailDualConfig};
pub use ridge::{AcilConfig, RailConfig, RanPacConfig, Ridge};
pub use simple_cil::SimpleCilConfig;
pub use statistics::{Rows, Statistics};

use crate::adapter::Adapter;
use crate::error::Result;
use crate::method::Start;

/// A method whose head is a function of [`Statistics`].
pub trait Analytic {
    /// Statistics of no samples, for features of length `dim`.
    ///
    /// # Errors
    /// A setting outside its domain.
    fn statistics(&self, dim: usize) -> Result<Statistics>;

    /// The head for `classes`, in their order. A class without samples gets a row that says nothing.
    ///
    /// # Errors
    /// Statistics of other settings, or too many samples for this method.
    fn solve(&self, statistics: &Statistics, classes: &[String], start: &Start<'_>) -> Result<Adapter>;
}
