//! Repositories of a model hub: listed and downloaded over the HTTP API of the Hugging Face hub, kept in the layout of
//! its own libraries, so that what they downloaded is found here, and the other way round.

mod cache;
mod client;
mod id;
mod pull;

pub use cache::Snapshot;
pub use id::{DEFAULT_REVISION, HubId};
pub use pull::{Hub, Pulled, Wanted};
