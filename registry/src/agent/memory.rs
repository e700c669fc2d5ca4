//! What a device remembers: one file, replaced as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::Result;
use crate::name::Name;
use crate::oci::parse;
use crate::store::{Disk, read_if_present};

/// How many failed versions of a name are remembered.
const MAX_FAILED: usize = 64;

/// A version that is in use and has not proved itself yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Probation {
    pub(super) number: u64,
    pub(super) digest: Digest,
    /// How many good health checks are still needed.
    pub(super) checks_left: u32,
    /// How often the device began a step with it without ending one: a version that takes the device down with it.
    pub(super) starts: u32,
}

/// What is remembered of one adapter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Slot {
    #[serde(default)]
    pub(super) probation: Option<Probation>,
    /// Versions that did not work here, by digest: they are not tried again.
    #[serde(default)]
    pub(super) failed: BTreeSet<Digest>,
}

impl Slot {
    pub(super) fn note_failure(&mut self, digest: Digest) {
        if self.failed.len() >= MAX_FAILED {
            self.failed.pop_first();
        }
        self.failed.insert(digest);
    }
}

/// The memory of a device.
#[derive(Debug)]
pub(super) struct Memory {
    path: PathBuf,
    disk: Disk,
    slots: BTreeMap<Name, Slot>,
}

impl Memory {
    pub(super) fn open(path: PathBuf, disk: Disk) -> Result<Self> {
        let slots = match read_if_present(&path, 16 << 20)? {
            Some(bytes) => parse(&bytes, "memory of an agent", path.display())?,
            None => BTreeMap::new(),
        };
        Ok(Self { path, disk, slots })
    }

    pub(super) fn slot(&self, name: &Name) -> Slot {
        self.slots.get(name).cloned().unwrap_or_default()
    }

    pub(super) fn names(&self) -> Vec<Name> {
        self.slots.keys().cloned().collect()
    }

    /// Remembers, durably, before it returns.
    pub(super) fn set(&mut self, name: &Name, slot: Slot) -> Result<()> {
        if self.slots.get(name) != Some(&slot) {
            self.slots.insert(name.clone(), slot);
            self.disk.replace(&self.path, &serde_json::to_vec(&self.slots).expect("strings make JSON"))?;
        }
        Ok(())
    }
}
