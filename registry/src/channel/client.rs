//! The device's side of TUF: what to believe, in the order of the specification (section 5). Each check comes before what
//! it guards is kept. What is believed is one file, replaced as a whole, so a crash never loses what protects from going
//! back.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::metadata::{Common, Listing, Offer, Root, Targets};
use crate::error::{Error, Result};
use crate::oci::parse;
use crate::store::{Disk, read_if_present};

/// The most new roots that are followed at once.
const MAX_ROOTS: u64 = 1024;
/// The largest metadata, in bytes.
const MAX_BYTES: u64 = 4 << 20;
/// The largest `timestamp.json`, in bytes; nothing signed says its size beforehand.
const MAX_TIMESTAMP_BYTES: u64 = 1 << 16;

/// Where metadata comes from: a name and the most bytes to read. None when there is no such file.
pub type Fetch<'a> = dyn Fn(&str, u64) -> Result<Option<Vec<u8>>> + 'a;

/// What a device believes about a channel. The texts are kept as they were signed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct State {
    root: String,
    #[serde(default)]
    timestamp: Option<String>,
    #[serde(default)]
    snapshot: Option<String>,
    #[serde(default)]
    targets: Option<String>,
}

/// What a channel offers, verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trusted {
    /// All offers.
    pub offers: Vec<Offer>,
    /// Version of the list; it only grows.
    pub version: u64,
    /// When the device must have heard of the channel again.
    pub expires: Timestamp,
}

/// A channel as one device follows it.
#[derive(Debug)]
pub struct Channel {
    path: PathBuf,
    disk: Disk,
    state: State,
}

impl Channel {
    /// Opens what is believed so far, in the file `path`, or begins with a root that the device was given.
    ///
    /// # Errors
    /// [`Error::Untrusted`] without either, or when what is believed cannot be read: then the device must be given a root
    /// again, since nothing else could protect it from going back.
    pub fn open(path: PathBuf, root: Option<&[u8]>) -> Result<Self> {
        let folder = path.parent().map_or_else(|| PathBuf::from("."), PathBuf::from);
        std::fs::create_dir_all(&folder).map_err(Error::io("create folder", &folder))?;
        let disk = Disk::new(folder, None);
        let state = match (read_if_present(&path, 4 * MAX_BYTES)?, root) {
            (Some(bytes), _) => parse(&bytes, "state of a channel", path.display())?,
            (None, Some(root)) => {
                Root::read(root)?;
                State { root: String::from_utf8_lossy(root).into_owned(), ..State::default() }
            }
            (None, None) => {
                let reason = "this device has no root of it: give `root.json` of the channel with `--root`";
                return Err(Error::Untrusted { what: "the channel".into(), reason: reason.into() });
            }
        };
        Ok(Self { path, disk, state })
    }

    /// Learns what is new and returns what is offered at time `now`.
    ///
    /// # Errors
    /// [`Error::Untrusted`] for metadata that is not signed, expired, older than what is known or mixed;
    /// what fetching says.
    pub fn update(&mut self, fetch: &Fetch<'_>, now: Timestamp) -> Result<Trusted> {
        let root = self.update_root(fetch, now)?;
        let snapshot_meta = self.update_timestamp(&root, fetch, now)?;
        let targets_meta = self.update_snapshot(&root, &snapshot_meta, fetch, now)?;
        self.update_targets(&root, &targets_meta, fetch, now)
    }

    fn keep(&mut self, change: impl FnOnce(&mut State)) -> Result<()> {
        let before = self.state.clone();
        change(&mut self.state);
        if self.state == before {
            return Ok(());
        }
        self.disk.replace(&self.path, &serde_json::to_vec(&self.state).expect("strings make JSON"))
    }

    /// Section 5.3: every root, one by one, signed by the one before and by itself.
    fn update_root(&mut self, fetch: &Fetch<'_>, now: Timestamp) -> Result<Root> {
        let mut root = Root::read(self.state.root.as_bytes())?;
        let first = root.clone();
        for _ in 0..MAX_ROOTS {
            let next = root.common.version + 1;
            let Some(bytes) = fetch(&format!("{next}.root.json"), MAX_BYTES)? else { break };
            let envelope = parse(&bytes, "TUF metadata", "`root.json`")?;
            root.verify("root", &envelope)?;
            let candidate = Root::read(&bytes)?;
            if candidate.common.version != next {
                return Err(untrusted(
                    "root",
                    format!("it is version {} where {next} must be", candidate.common.version),
                ));
            }
            root = candidate;
            let text = String::from_utf8_lossy(&bytes).into_owned();
            // Keys that were replaced may have signed a far too high version: what they said is forgotten.
            let replaced = ["timestamp", "snapshot"].iter().any(|role| first.roles.get(*role) != root.roles.get(*role));
            self.keep(|state| {
                state.root = text;
                if replaced {
                    (state.timestamp, state.snapshot) = (None, None);
                }
            })?;
        }
        fresh("root", &root.common, now)?;
        Ok(root)
    }

    /// Section 5.4.
    fn update_timestamp(
        &mut self,
        root: &Root,
        fetch: &Fetch<'_>,
        now: Timestamp,
    ) -> Result<super::metadata::MetaFile> {
        let bytes = needed("timestamp.json", fetch, MAX_TIMESTAMP_BYTES)?;
        let (new, common): (Listing, Common) = root.open("timestamp", &bytes)?;
        let meta = |listing: &Listing| listing.meta.get("snapshot.json").cloned();
        let new_meta = meta(&new).filter(|_| new.meta.len() == 1);
        let new_meta =
            new_meta.ok_or_else(|| untrusted("timestamp", "it must name `snapshot.json` and nothing else".into()))?;
        if let Some(old) = self.state.timestamp.as_ref() {
            let (old, old_common): (Listing, Common) = root.open("timestamp", old.as_bytes())?;
            let old_meta = meta(&old).map_or(0, |meta| meta.version);
            if common.version < old_common.version || new_meta.version < old_meta {
                let reason =
                    format!("it is version {}, {} is known: an attempt to go back", common.version, old_common.version);
                return Err(untrusted("timestamp", reason));
            }
        }
        fresh("timestamp", &new.common, now)?;
        self.keep(|state| state.timestamp = Some(String::from_utf8_lossy(&bytes).into_owned()))?;
        Ok(new_meta)
    }

    /// Section 5.5.
    fn update_snapshot(
        &mut self,
        root: &Root,
        expected: &super::metadata::MetaFile,
        fetch: &Fetch<'_>,
        now: Timestamp,
    ) -> Result<super::metadata::MetaFile> {
        let limit = expected.length.unwrap_or(MAX_BYTES).min(MAX_BYTES);
        let bytes = needed(&format!("{}.snapshot.json", expected.version), fetch, limit)?;
        if !expected.matches(&bytes) {
            return Err(untrusted("snapshot", "it is not the one that the timestamp names".into()));
        }
        let (new, common): (Listing, Common) = root.open("snapshot", &bytes)?;
        if common.version != expected.version {
            return Err(untrusted(
                "snapshot",
                format!("it is version {} where {} must be", common.version, expected.version),
            ));
        }
        if let Some(old) = &self.state.snapshot {
            let (old, _): (Listing, Common) = root.open("snapshot", old.as_bytes())?;
            for (name, known) in &old.meta {
                // What was listed must stay listed, and never go back.
                if new.meta.get(name).is_none_or(|meta| meta.version < known.version) {
                    return Err(untrusted("snapshot", format!("`{name}` is missing or older than what is known")));
                }
            }
        }
        fresh("snapshot", &new.common, now)?;
        let meta = new.meta.get("targets.json").cloned();
        let meta = meta.ok_or_else(|| untrusted("snapshot", "it does not name `targets.json`".into()))?;
        self.keep(|state| state.snapshot = Some(String::from_utf8_lossy(&bytes).into_owned()))?;
        Ok(meta)
    }

    /// Section 5.6, without delegations.
    fn update_targets(
        &mut self,
        root: &Root,
        expected: &super::metadata::MetaFile,
        fetch: &Fetch<'_>,
        now: Timestamp,
    ) -> Result<Trusted> {
        let limit = expected.length.unwrap_or(MAX_BYTES).min(MAX_BYTES);
        // What is known already need not be fetched again.
        let known =
            self.state.targets.as_ref().filter(|text| expected.hashes.is_some() && expected.matches(text.as_bytes()));
        let bytes = match known {
            Some(text) => text.clone().into_bytes(),
            None => needed(&format!("{}.targets.json", expected.version), fetch, limit)?,
        };
        if !expected.matches(&bytes) {
            return Err(untrusted("targets", "it is not the one that the snapshot names".into()));
        }
        let (targets, common): (Targets, Common) = root.open("targets", &bytes)?;
        if common.version != expected.version {
            return Err(untrusted(
                "targets",
                format!("it is version {} where {} must be", common.version, expected.version),
            ));
        }
        if targets.delegations.as_ref().is_some_and(|delegations| !delegations.roles.is_empty()) {
            return Err(untrusted("targets", "it delegates, which channels do not".into()));
        }
        fresh("targets", &targets.common, now)?;
        self.keep(|state| state.targets = Some(String::from_utf8_lossy(&bytes).into_owned()))?;
        let offers = targets.targets.iter().filter_map(|(path, entry)| Offer::of(path, entry)).collect();
        Ok(Trusted { offers, version: common.version, expires: common.expires })
    }
}

fn untrusted(role: &str, reason: String) -> Error {
    Error::Untrusted { what: format!("`{role}.json` of the channel"), reason }
}

fn needed(name: &str, fetch: &Fetch<'_>, limit: u64) -> Result<Vec<u8>> {
    fetch(name, limit)?.ok_or_else(|| Error::unknown("file", name, " in the channel"))
}

fn fresh(role: &str, common: &Common, now: Timestamp) -> Result<()> {
    if common.expires > now {
        return Ok(());
    }
    Err(untrusted(
        role,
        format!(
            "it expired at {}, and it is {now} here: the channel is frozen, or this clock is wrong",
            common.expires
        ),
    ))
}
