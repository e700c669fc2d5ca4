//! Durable files: content-addressed blobs, atomic replacement, locks between processes.

mod blobs;
mod disk;
mod lock;

pub use blobs::Blobs;
pub use disk::{Observer, Step, Verdict};

pub(crate) use disk::{Disk, beside, list, read_bounded, read_if_present};
pub(crate) use lock::Lock;
