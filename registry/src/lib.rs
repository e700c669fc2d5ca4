//! Named, verified, immutable adapters.
//!
//! In flow the files that training wrote; out flow versions that never change, found by name, number, alias or digest, as
//! folders that the other crates open. A registry is a folder, and the folder is an OCI image layout, so standard tools
//! read it. Several processes use one registry at once; a process that is killed leaves the old or the new state.
//! Backbones are none of its content: [`Hub`] brings them from a model hub into that hub's own cache.
//!
//! ```
//! use inarch_registry::{Digest, Expect, PublishRequest, Registry, Selector, Source};
//!
//! # fn main() -> inarch_registry::Result<()> {
//! # let folder = tempfile::tempdir().unwrap();
//! # let tensors = [&2_u64.to_le_bytes()[..], b"{}"].concat();
//! # let card = format!(r#"{{"schema":1,"method":{{"name":"lora"}},"backbone":{{"name":"pocket","digest":"sha256:00"}},"tensors":"{}"}}"#, Digest::of(&tensors));
//! let registry = Registry::open(folder.path())?;
//! let request = PublishRequest {
//!     files: vec![
//!         ("adapter.safetensors".into(), Source::Bytes(tensors)),
//!         ("adapter.json".into(), Source::Bytes(card.into_bytes())),
//!     ],
//!     ..PublishRequest::new("chest".parse()?)
//! };
//! let first = registry.publish(request)?.version;
//! registry.tag(&first.name, &"prod".parse()?, Some(first.number), Expect::Absent, "the first one")?;
//! let checkout = registry.checkout(&registry.resolve("chest@prod")?)?;
//! assert!(checkout.folder().join("adapter.safetensors").is_file());
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod agent;
mod channel;
mod digest;
mod error;
mod hub;
mod name;
mod oci;
mod registry;
mod store;
mod transport;
mod trust;

pub use agent::{Agent, AgentOptions, Device, Outcome, RolloutDecision, RolloutLimits, StepReport, decide, draw};
pub use channel::{
    Channel, ChannelKeys, Fetch, Lifetimes, Offer, Publisher, RoleKeys, Store, Trusted, sign_document, with_channel,
};
pub use digest::{Digest, Hasher};
pub use error::{Error, Result};
pub use hub::{DEFAULT_REVISION, Hub, HubId, Pulled, Snapshot, Wanted};
pub use jiff::Timestamp;
pub use name::{Alias, LATEST, Name, Reference, Release, Selector};
pub use oci::{ARTIFACT_TYPE, Card, Descriptor, GateVerdict, Manifest, annotation, media_type};
pub use registry::*;
pub use store::{Blobs, Observer, Step, Verdict};
pub use transport::{Credentials, PullReport, PushOptions, PushReport, Remote, Transfer, open_remote};
pub use trust::{KeyId, Policy, PublicKey, SecretKey};
