//! Whether what arrives still looks like what was learned: tests on features, with a state that survives a restart.

mod adwin;
mod ks;
mod mmd;
mod monitor;
mod watch;

pub use adwin::Adwin;
pub use ks::KolmogorovSmirnov;
pub use mmd::MeanDiscrepancy;
pub use monitor::{DriftConfig, DriftMonitor, DriftVerdict};
pub use watch::DriftWatch;
