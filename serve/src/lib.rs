//! HTTP over one frozen backbone and many adapters.
//!
//! In flow images, texts and names of adapters; out flow probabilities and features. Requests wait in a bounded queue and
//! are computed in batches whose rows may use different adapters. Adapters are loaded when they are first asked for and
//! leave memory when others are asked for more recently; a request ends with the version that it began with.
#![forbid(unsafe_code)]

mod adapters;
mod engine;
mod error;
mod http;
mod metrics;
mod server;
mod settings;
mod streams;

pub use adapters::{Files, Source, Version};
pub use error::{Error, Result};
pub use server::{Preload, Running, Server};
pub use settings::{Settings, Tls};
