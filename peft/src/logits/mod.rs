//! Methods that change the scores; they need no towers.

mod linear_head;
mod temperature;
mod tip_adapter;
mod vector_scaling;

pub use linear_head::{LinearHead, LinearHeadConfig};
pub use temperature::{Temperature, TemperatureConfig};
pub use tip_adapter::{TipAdapter, TipAdapterConfig, TipAdapterF, TipAdapterFConfig};
pub use vector_scaling::{VectorScaling, VectorScalingConfig};
