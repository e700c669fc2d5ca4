//! The rehearsal memory: latents of the frozen backbone, chosen under a budget of bytes, tied to the backbone that made them.

mod config;
mod fingerprint;
mod herding;
mod ledger;
mod rehearsal;
mod removal;
mod sample;
mod sampler;
mod seal;
mod snapshot;
mod store;

pub use config::{Content, MemoryConfig, Sampler};
pub use fingerprint::Fingerprint;
pub use herding::herding;
pub use ledger::Ledger;
pub use rehearsal::Memory;
pub(crate) use rehearsal::drawn;
pub use removal::{Cause, Removal};
pub use sample::{Precision, Sample};
pub use seal::Key;
pub(crate) use seal::opened;
pub use store::MemoryStore;
