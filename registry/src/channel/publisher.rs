//! The publisher's side of TUF: what a fleet shall run, signed.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::Fetch;
use super::metadata::{Common, Envelope, Listing, MetaFile, Offer, Root, SPECIFICATION, Targets};
use crate::error::{Error, Result};
use crate::trust::SecretKey;

/// Where metadata goes: a name and its bytes.
pub type Store<'a> = dyn Fn(&str, &[u8]) -> Result<()> + 'a;

/// The largest metadata, in bytes.
const MAX_BYTES: u64 = 4 << 20;
/// The most snapshots that changes of keys that were cut off leave in a row.
const MAX_CUT_OFF: u64 = 1024;

/// Versions of targets, snapshot and timestamp.
type Versions = (u64, u64, u64);

/// The keys of a new channel.
#[derive(Debug)]
pub struct ChannelKeys<'a> {
    /// Keys that may change all keys; keep them off the network.
    pub root: &'a [SecretKey],
    /// How many root keys must sign.
    pub root_threshold: u64,
    /// Keys that say what is offered and that it is fresh.
    pub online: &'a [SecretKey],
    /// How many of those must sign.
    pub online_threshold: u64,
}

/// How long metadata is believed.
#[derive(Debug, Clone, Copy)]
pub struct Lifetimes {
    /// Days of a root.
    pub root_days: i64,
    /// Days of what is offered.
    pub targets_days: i64,
    /// Days of a timestamp: the longest that a device can be kept from news without noticing.
    pub timestamp_days: i64,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self { root_days: 730, targets_days: 365, timestamp_days: 30 }
    }
}

/// Signs the metadata of a channel.
pub struct Publisher<'a> {
    /// Where metadata is read.
    pub(crate) fetch: &'a Fetch<'a>,
    /// Where metadata is written.
    pub(crate) store: &'a Store<'a>,
    /// How long it is believed.
    pub(crate) lifetimes: Lifetimes,
    /// The time of signing.
    pub(crate) now: Timestamp,
}

impl std::fmt::Debug for Publisher<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Publisher({:?})", self.lifetimes)
    }
}

impl<'a> Publisher<'a> {
    /// A publisher whose metadata is read and written by these functions.
    pub fn new(fetch: &'a Fetch<'a>, store: &'a Store<'a>, lifetimes: Lifetimes, now: Timestamp) -> Self {
        Self { fetch, store, lifetimes, now }
    }
}

impl Publisher<'_> {
    /// Makes a channel that offers nothing yet, and returns its root, which devices must be given.
    ///
    /// # Errors
    /// [`Error::Conflict`] when there is one already, [`Error::Refused`] for thresholds that cannot be met.
    pub fn create(&self, keys: &ChannelKeys<'_>) -> Result<Vec<u8>> {
        if (self.fetch)("1.root.json", MAX_BYTES)?.is_some() {
            return Err(Error::Conflict { what: "the channel".into(), expected: "none".into(), found: "one".into() });
        }
        let root = self.root(1, keys, &[])?;
        self.write(&Root::read(&root)?, &BTreeMap::new(), keys.online, (1, 1, 1))?;
        // The root comes last: with it the channel is whole, and until then it can be made again.
        (self.store)("1.root.json", &root)?;
        Ok(root)
    }

    /// Changes the keys. The old root keys, as many as their threshold, must sign besides the new ones.
    ///
    /// Where it is cut off before the new root is there, nothing has changed. Between the new root and the timestamp, devices that
    /// have followed the root believe nothing new and keep what they have; any work with the new keys, such as the same
    /// change again, goes on from there.
    ///
    /// # Errors
    /// [`Error::Untrusted`] when they do not suffice.
    pub fn rotate(&self, keys: &ChannelKeys<'_>, old_root: &[SecretKey]) -> Result<Vec<u8>> {
        let (root, offers, versions) = self.read()?;
        let next = root.common.version + 1;
        let bytes = self.root(next, keys, old_root)?;
        root.verify("root", &serde_json::from_slice(&bytes).expect("what was just written"))?;
        // All is signed before anything is written: keys that do not suffice change nothing.
        let new_root = Root::read(&bytes)?;
        let [targets, snapshot, timestamp] = self.encode(&new_root, &offers, keys.online, versions)?;
        // The lists are there before the root that they need: the old timestamp does not name them, and by the new root
        // nothing but them is believed any more.
        self.put(&[targets, snapshot, (format!("{next}.root.json"), bytes.clone()), timestamp])?;
        Ok(bytes)
    }

    /// What the channel offers, as it stands; signatures are checked, times are not.
    ///
    /// # Errors
    /// [`Error::Unknown`] when there is no channel.
    pub fn offers(&self) -> Result<Vec<Offer>> {
        Ok(self.read()?.1.into_values().collect())
    }

    /// Offers a version to a share of the devices. Once all have it, older versions of the name are no longer offered.
    ///
    /// # Errors
    /// [`Error::Untrusted`] when the keys do not suffice.
    pub fn offer(&self, offer: Offer, keys: &[SecretKey]) -> Result<()> {
        self.change(keys, |offers| {
            if offer.share == 10_000 {
                offers.retain(|_, other| other.name != offer.name);
            }
            offers.insert(offer.path(), offer);
        })
    }

    /// Offers a version no longer: devices that have it go back to what else is offered of that name.
    ///
    /// # Errors
    /// [`Error::Unknown`] when it is not offered, [`Error::Refused`] when nothing else of that name is.
    pub fn withdraw(&self, name: &crate::name::Name, number: u64, keys: &[SecretKey]) -> Result<()> {
        let offers = self.offers()?;
        let of_name = |offer: &&Offer| offer.name == *name;
        if !offers.iter().filter(of_name).any(|offer| offer.number == number) {
            return Err(Error::unknown("offer", format!("{name}@{number}"), " in the channel"));
        }
        if !offers.iter().filter(of_name).any(|offer| offer.number != number && offer.share == 10_000) {
            let reason = "no other version of it is offered to all devices: offer one first";
            return Err(Error::refused(format!("withdrawal of `{name}@{number}`"), reason));
        }
        self.change(keys, |offers| offers.retain(|_, offer| offer.name != *name || offer.number != number))
    }

    /// Signs everything again, so that it does not expire.
    ///
    /// # Errors
    /// [`Error::Untrusted`] when the keys do not suffice.
    pub fn refresh(&self, keys: &[SecretKey]) -> Result<()> {
        self.change(keys, |_| {})
    }

    fn change(&self, keys: &[SecretKey], change: impl FnOnce(&mut BTreeMap<String, Offer>)) -> Result<()> {
        let (root, mut offers, versions) = self.read()?;
        change(&mut offers);
        self.write(&root, &offers, keys, versions)
    }

    /// The newest root, what is offered, and the next versions of targets, snapshot and timestamp.
    fn read(&self) -> Result<(Root, BTreeMap<String, Offer>, Versions)> {
        let missing = || Error::unknown("channel", "", ": make one with `inarch registry channel create`");
        let mut root = Root::read(&(self.fetch)("1.root.json", MAX_BYTES)?.ok_or_else(missing)?)?;
        let mut before = Vec::new();
        loop {
            let next = root.common.version + 1;
            let name = format!("{next}.root.json");
            let Some(bytes) = (self.fetch)(&name, MAX_BYTES)? else { break };
            root.verify("root", &crate::oci::parse(&bytes, "TUF metadata", "`root.json`")?)?;
            let newer = Root::read(&bytes)?;
            expect_version(&name, &newer.common, next)?;
            before.push(std::mem::replace(&mut root, newer));
        }
        let bytes = self.needed("timestamp.json")?;
        let (listing, snapshot, timestamp) = match root.open::<Listing>("timestamp", &bytes) {
            Ok((timestamp, common)) => {
                let snapshot = snapshot_of(&timestamp);
                (self.version_of::<Listing>(&root, "snapshot", snapshot)?, snapshot, common.version)
            }
            Err(error) => self.cut_off(&root, &before, &bytes)?.ok_or(error)?,
        };
        let targets = listing.meta.get("targets.json").map_or(0, |meta| meta.version);
        let list: Targets = self.version_of(&root, "targets", targets)?;
        let offers =
            list.targets.iter().filter_map(|(path, entry)| Some((path.clone(), Offer::of(path, entry)?))).collect();
        Ok((root, offers, (following(targets)?, following(snapshot)?, following(timestamp)?)))
    }

    /// The newest snapshot that the keys of `root` signed, where a change of keys was cut off before its timestamp, with its
    /// version and that of the timestamp that it lacks. The timestamp there is of a root `before`: it tells where to look and
    /// nothing else, since keys that were replaced are not believed.
    fn cut_off(&self, root: &Root, before: &[Root], timestamp: &[u8]) -> Result<Option<(Listing, u64, u64)>> {
        let of = |root: &Root| Some(snapshot_of(&root.open::<Listing>("timestamp", timestamp).ok()?.0));
        let Some(old) = before.iter().rev().find_map(of) else { return Ok(None) };
        let mut newest = None;
        for ahead in 1..=MAX_CUT_OFF {
            let version = old.saturating_add(ahead);
            let Some(bytes) = (self.fetch)(&format!("{version}.snapshot.json"), MAX_BYTES)? else { return Ok(newest) };
            // By other keys: of a change that was cut off before its root.
            let Ok((listing, found)) = root.open::<Listing>("snapshot", &bytes) else { continue };
            if found.version == version {
                // Both rise together, and what a replaced key says of its number is not believed.
                newest = Some((listing, version, version));
            }
        }
        // So many are no changes of keys, but an old timestamp that was put back.
        Ok(None)
    }

    fn needed(&self, name: &str) -> Result<Vec<u8>> {
        (self.fetch)(name, MAX_BYTES)?.ok_or_else(|| Error::unknown("file", name, " in the channel"))
    }

    /// A version of a document. An older one in its place, which was signed as well, would be signed again as the newest.
    fn version_of<T: for<'de> Deserialize<'de>>(&self, root: &Root, role: &str, version: u64) -> Result<T> {
        let name = format!("{version}.{role}.json");
        let (document, common): (T, Common) = root.open(role, &self.needed(&name)?)?;
        expect_version(&name, &common, version)?;
        Ok(document)
    }

    fn write(
        &self,
        root: &Root,
        offers: &BTreeMap<String, Offer>,
        keys: &[SecretKey],
        versions: Versions,
    ) -> Result<()> {
        self.put(&self.encode(root, offers, keys, versions)?)
    }

    /// The timestamp comes last: until then, devices see what was there before.
    fn put(&self, files: &[(String, Vec<u8>)]) -> Result<()> {
        files.iter().try_for_each(|(name, bytes)| (self.store)(name, bytes))
    }

    fn encode(
        &self,
        root: &Root,
        offers: &BTreeMap<String, Offer>,
        keys: &[SecretKey],
        versions: Versions,
    ) -> Result<[(String, Vec<u8>); 3]> {
        let (targets_version, snapshot_version, timestamp_version) = versions;
        let entries: BTreeMap<&String, _> = offers.iter().map(|(path, offer)| (path, offer.entry())).collect();
        let mut targets = self.document("targets", targets_version, self.lifetimes.targets_days);
        targets["targets"] = serde_json::to_value(entries).expect("offers make JSON");
        let listing = |kind: &str, version: u64, days: i64, name: &str, meta: MetaFile| {
            let mut document = self.document(kind, version, days);
            document["meta"] = json!({ name: meta });
            Envelope::sign(document, keys)
        };
        let sign = |envelope: Envelope, role: &str| root.verify(role, &envelope).map(|()| envelope.encode());
        let targets = sign(Envelope::sign(targets, keys), "targets")?;
        let meta = MetaFile::of(targets_version, &targets);
        let snapshot =
            sign(listing("snapshot", snapshot_version, self.lifetimes.targets_days, "targets.json", meta), "snapshot")?;
        let meta = MetaFile::of(snapshot_version, &snapshot);
        let timestamp = sign(
            listing("timestamp", timestamp_version, self.lifetimes.timestamp_days, "snapshot.json", meta),
            "timestamp",
        )?;
        Ok([
            (format!("{targets_version}.targets.json"), targets),
            (format!("{snapshot_version}.snapshot.json"), snapshot),
            ("timestamp.json".into(), timestamp),
        ])
    }

    fn document(&self, kind: &str, version: u64, days: i64) -> Value {
        let expires = self.now.checked_add(SignedDuration::from_hours(24 * days)).unwrap_or(Timestamp::MAX);
        // Whole seconds, as the specification has it.
        let expires = Timestamp::from_second(expires.as_second()).unwrap_or(expires).to_string();
        json!({ "_type": kind, "spec_version": SPECIFICATION, "version": version, "expires": expires })
    }

    fn root(&self, version: u64, keys: &ChannelKeys<'_>, also: &[SecretKey]) -> Result<Vec<u8>> {
        for (what, keys, threshold) in
            [("root", keys.root, keys.root_threshold), ("online", keys.online, keys.online_threshold)]
        {
            if !(1..=keys.len() as u64).contains(&threshold) {
                let reason = format!("{threshold} signatures cannot come from {} keys", keys.len());
                return Err(Error::refused(format!("the {what} keys"), reason));
            }
        }
        let ids = |keys: &[SecretKey]| keys.iter().map(|key| key.public().id().to_string()).collect::<Vec<_>>();
        let all = keys.root.iter().chain(keys.online).map(SecretKey::public);
        let descriptions: BTreeMap<String, Value> = all.map(|key| (key.id().to_string(), key.description())).collect();
        let root = json!({ "keyids": ids(keys.root), "threshold": keys.root_threshold });
        let online = json!({ "keyids": ids(keys.online), "threshold": keys.online_threshold });
        let mut document = self.document("root", version, self.lifetimes.root_days);
        document["consistent_snapshot"] = json!(true);
        document["keys"] = json!(descriptions);
        document["roles"] = json!({ "root": root, "targets": online, "snapshot": online, "timestamp": online });
        let mut signers: Vec<SecretKey> = keys.root.to_vec();
        signers.extend(also.iter().filter(|key| !keys.root.iter().any(|new| new.public() == key.public())).cloned());
        Ok(Envelope::sign(document, &signers).encode())
    }
}

/// The version of the snapshot that a timestamp names.
fn snapshot_of(timestamp: &Listing) -> u64 {
    timestamp.meta.get("snapshot.json").map_or(0, |meta| meta.version)
}

/// The version after one.
fn following(version: u64) -> Result<u64> {
    let worn_out =
        || Error::Untrusted { what: "the channel".into(), reason: format!("version {version} has none after it") };
    version.checked_add(1).ok_or_else(worn_out)
}

fn expect_version(name: &str, found: &Common, expected: u64) -> Result<()> {
    if found.version == expected {
        return Ok(());
    }
    let reason = format!("it is version {} where {expected} must be", found.version);
    Err(Error::Untrusted { what: format!("`{name}` of the channel"), reason })
}
