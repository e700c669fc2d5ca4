//! Versions from here to there and back: OCI registries, S3, folders. Whatever the way, content is known by its digest, so
//! nothing that is moved has to be believed.

mod bucket;
mod delta;
mod oci;
mod pull;
mod push;
mod remote;
mod retry;

pub use pull::PullReport;
pub use push::{PushOptions, PushReport};
pub use remote::{Credentials, Remote, open_remote};
pub use retry::Transfer;

pub(crate) use remote::{file, put_file};
pub(crate) use retry::runtime;
