//! Data in the order in which it arrives.

mod config;
mod corruption;
mod experience;
mod joined;
mod split;

pub use config::{LabelSpace, Order, StreamConfig, StreamKind};
pub use corruption::Corruption;
pub use experience::{Experience, Stream};
