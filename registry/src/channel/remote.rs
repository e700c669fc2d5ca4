//! Channels on a remote.

use jiff::Timestamp;

use super::publisher::{Lifetimes, Publisher};
use crate::error::Result;
use crate::name::Name;
use crate::transport::{Remote, file, put_file};

/// Works on a channel of a remote, at time `now`.
///
/// # Errors
/// [`crate::Error::Reference`] for a name that is none; what the work says.
pub fn with_channel<T>(
    remote: &dyn Remote,
    channel: &str,
    lifetimes: Lifetimes,
    now: Timestamp,
    work: impl FnOnce(&Publisher<'_>) -> Result<T>,
) -> Result<T> {
    let name: Name = channel.parse()?;
    let repository = format!("channel/{name}");
    let fetch = |name: &str, limit: u64| file(remote, &repository, name, limit);
    let store = |name: &str, bytes: &[u8]| put_file(remote, &repository, name, bytes);
    work(&Publisher { fetch: &fetch, store: &store, lifetimes, now })
}
