//! Methods that change pooled features; they need no towers.

mod linear_probe;

pub use linear_probe::{LinearProbe, LinearProbeConfig};
