//! What happened to an adapter, and how two of its versions differ.

use std::collections::BTreeMap;

use serde::Serialize;

use super::alias::AliasMove;
use super::{Registry, Version};
use crate::digest::Digest;
use crate::error::Result;
use crate::name::{Alias, Name};

/// Something that happened to an adapter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum Event {
    /// A version was published or taken in.
    Published {
        /// When, RFC 3339.
        at: String,
        /// The version.
        version: Version,
    },
    /// An alias moved.
    Moved {
        /// The alias.
        alias: Alias,
        /// Its move, which says when it happened.
        #[serde(flatten)]
        step: AliasMove,
    },
    /// Retention removed a version.
    Removed {
        /// When, RFC 3339.
        at: String,
        /// Its number.
        number: u64,
    },
}

impl Event {
    /// When it happened, RFC 3339.
    pub fn at(&self) -> &str {
        match self {
            Self::Published { at, .. } | Self::Removed { at, .. } => at,
            Self::Moved { step, .. } => &step.at,
        }
    }
}

/// How a file of one version differs in another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileChange {
    /// Its name.
    pub file: String,
    /// Its digest before; `null` when it is new.
    pub before: Option<Digest>,
    /// Its digest after; `null` when it is gone.
    pub after: Option<Digest>,
    /// Its size before, in bytes.
    pub bytes_before: u64,
    /// Its size after, in bytes.
    pub bytes_after: u64,
}

/// How two versions differ.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// The older side.
    pub before: Version,
    /// The newer side.
    pub after: Version,
    /// Facts that differ, each with its value before and after; empty where there is none.
    pub facts: BTreeMap<String, [String; 2]>,
    /// Files that differ.
    pub files: Vec<FileChange>,
    /// Bytes of files that are the same in both: they are stored and shipped once.
    pub shared_bytes: u64,
}

impl Registry {
    /// All that happened to an adapter, newest first.
    ///
    /// # Errors
    /// [`crate::Error::Unknown`] for a name without versions.
    pub fn log(&self, name: &Name) -> Result<Vec<Event>> {
        let shelf = self.shelf(name);
        let mut events = Vec::new();
        for number in shelf.numbers()? {
            let Some(record) = shelf.record(number)? else { continue };
            events.push(Event::Published { at: record.published.clone(), version: record.version(name) });
            if let Some(at) = record.removed {
                events.push(Event::Removed { at, number });
            }
        }
        if events.is_empty() {
            return Err(self.no_such_name(name));
        }
        for alias in shelf.alias_names()? {
            let moves = shelf.moves(&alias)?;
            events.extend(moves.into_iter().map(|step| Event::Moved { alias: alias.clone(), step }));
        }
        // Times of one machine; equal ones keep their order.
        events.sort_by_cached_key(|event| event.at().parse::<jiff::Timestamp>().unwrap_or(jiff::Timestamp::MIN));
        events.reverse();
        Ok(events)
    }

    /// How `after` differs from `before`.
    ///
    /// # Errors
    /// What is wrong with their manifests.
    pub fn diff(&self, before: &Version, after: &Version) -> Result<Difference> {
        let manifests = [self.manifest(&before.digest)?, self.manifest(&after.digest)?];
        let mut facts: BTreeMap<String, [String; 2]> = BTreeMap::new();
        for (side, manifest) in manifests.iter().enumerate() {
            for (key, value) in manifest.annotations() {
                let key = key.strip_prefix("dev.inarch.").unwrap_or(key);
                facts.entry(key.into()).or_default()[side].clone_from(value);
            }
        }
        facts.retain(|key, [before, after]| before != after && !key.starts_with("org.opencontainers"));
        let mut files: BTreeMap<String, FileChange> = BTreeMap::new();
        let mut shared_bytes = 0;
        for (side, manifest) in manifests.iter().enumerate() {
            for layer in &manifest.layers {
                let Some(title) = layer.title() else { continue };
                let change = files.entry(title.into()).or_insert_with(|| FileChange {
                    file: title.into(),
                    before: None,
                    after: None,
                    bytes_before: 0,
                    bytes_after: 0,
                });
                match side {
                    0 => (change.before, change.bytes_before) = (Some(layer.digest), layer.size),
                    _ => (change.after, change.bytes_after) = (Some(layer.digest), layer.size),
                }
            }
        }
        let mut changes = Vec::new();
        for change in files.into_values() {
            if change.before == change.after {
                shared_bytes += change.bytes_after;
            } else {
                changes.push(change);
            }
        }
        Ok(Difference { before: before.clone(), after: after.clone(), facts, files: changes, shared_bytes })
    }
}
