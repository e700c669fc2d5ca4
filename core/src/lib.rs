//! Pixels and words to frozen features.
//!
//! In flow images and texts; out flow features of a frozen dual encoder, the data sets that they belong to and the
//! metrics taken over them. Adapters enter through [`backbone::Sites`]; this crate knows none of them by name.
#![forbid(unsafe_code)]

pub mod backbone;
pub mod checkpoint;
pub mod data;
mod device;
mod digest;
mod error;
pub mod file;
pub mod image;
mod kernel;
#[cfg(feature = "remote")]
mod lend;
pub mod metrics;
pub mod parallel;
mod seed;
pub mod text;

pub use device::{DevicePrecision, device, device_in, device_kind, devices, is_borrowed, workers};
pub use digest::{Digest, DigestBuilder};
pub use error::{Error, Result};
pub use kernel::gelu;
#[cfg(feature = "remote")]
pub use lend::{TOKEN_VARIABLE, device_token, lend};
pub use seed::Seed;
