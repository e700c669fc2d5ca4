//! Methods that change the scores; they need no towers.

mod temperature;
mod tip_adapter;
mod vector_scaling;

pub use temperature::{Temperature, TemperatureConfig};
pub use tip_adapter::{TipAdapter, TipAdapterConfig, TipAdapterF, TipAdapterFConfig};
pub use vector_scaling::{VectorScaling, VectorScalingConfig};
