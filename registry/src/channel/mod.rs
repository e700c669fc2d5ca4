//! Channels: what a fleet shall run, as The Update Framework (TUF) has it. A device trusts a root file; everything else it
//! learns from metadata that is signed by threshold keys, expires, and never goes back.

mod client;
mod metadata;
mod publisher;
mod remote;

pub use client::{Channel, Fetch, Trusted};
pub use metadata::{Offer, RoleKeys, sign_document};
pub use publisher::{ChannelKeys, Lifetimes, Publisher, Store};
pub use remote::with_channel;

pub(crate) use metadata::canonical;
