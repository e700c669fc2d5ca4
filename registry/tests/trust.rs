//! Signatures, policies, channels; the attacks that TUF is for, and the past faults of its clients.

use std::cell::RefCell;
use std::collections::HashMap;

use inarch_registry::{
    Channel, ChannelKeys, Error, Lifetimes, Offer, PublicKey, Publisher, SecretKey, Timestamp, open_remote,
    with_channel,
};
use serde_json::{Value, json};

use crate::support::Shelf;

pub(crate) fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed([seed; 32])
}

#[test]
fn keys_survive_their_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("release.key");
    let key = SecretKey::generate().expect("randomness");
    key.write(&path).expect("written");
    assert_eq!(SecretKey::read(&path).expect("a key").public(), key.public());
    assert_eq!(PublicKey::read(&folder.path().join("release.key.pub")).expect("a key"), key.public());
    assert!(key.write(&path).is_err(), "a key is never overwritten");
    let lone = folder.path().join("lone.key");
    std::fs::write(folder.path().join("lone.key.pub"), "of another key").expect("written");
    assert!(key.write(&lone).is_err() && !lone.exists(), "nor is half of one left");
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 3, "nothing else lies here");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o077, 0, "only the owner reads it");
    }
    std::fs::write(&path, "no key").expect("written");
    assert!(matches!(SecretKey::read(&path), Err(Error::Untrusted { .. })));
    assert!(!format!("{key:?}").contains("SigningKey"));
}

#[test]
fn with_a_policy_only_what_enough_trusted_keys_signed_is_used() {
    let shelf = Shelf::new();
    let registry = &shelf.registry;
    let version = shelf.publish("chest", 1).version;
    registry.checkout(&version).expect("no policy, no question");
    registry.trust(&key(1).public(), None).expect("trusted");
    registry.trust(&key(2).public(), Some(2)).expect("trusted");
    assert!(registry.trust(&key(3).public(), Some(4)).is_err(), "a threshold that cannot be met");
    let is_refused = || matches!(registry.checkout(&version), Err(Error::Untrusted { .. }));
    assert!(is_refused());
    registry.sign(&version, &key(1)).expect("signed");
    registry.sign(&version, &key(1)).expect("signed");
    assert!(is_refused(), "one key counts once");
    registry.sign(&version, &key(9)).expect("signed");
    assert!(is_refused(), "a stranger does not count");
    registry.sign(&version, &key(2)).expect("signed");
    registry.checkout(&version).expect("two trusted keys");

    // Signatures travel, and what comes without them is not let in.
    let there = Shelf::new();
    there.registry.trust(&key(2).public(), None).expect("trusted");
    let bundle = shelf.folder.path().join("bundle.tar");
    registry.export(std::slice::from_ref(&version), &bundle).expect("a bundle");
    assert_eq!(there.registry.import(&bundle, false).expect("an import").imported.len(), 1);
    let stranger = Shelf::new();
    stranger.registry.trust(&key(5).public(), None).expect("trusted");
    assert!(matches!(stranger.registry.import(&bundle, false), Err(Error::Untrusted { .. })));
    assert_eq!(stranger.registry.names().expect("readable"), []);

    // A policy that cannot be read lets nothing through.
    std::fs::write(registry.root().join("policy.json"), "{").expect("damaged");
    assert!(registry.checkout(&version).is_err());
    std::fs::write(registry.root().join("policy.json"), r#"{"threshold":0,"keys":[]}"#).expect("damaged");
    assert!(registry.checkout(&version).is_err());
}

#[test]
fn keys_are_rotated_by_trusting_the_new_and_distrusting_the_old() {
    let shelf = Shelf::new();
    let registry = &shelf.registry;
    let version = shelf.publish("chest", 1).version;
    registry.trust(&key(1).public(), None).expect("trusted");
    registry.sign(&version, &key(2)).expect("signed");
    assert!(registry.checkout(&version).is_err());
    registry.trust(&key(2).public(), None).expect("trusted");
    registry.checkout(&version).expect("the new key");
    assert!(registry.distrust(&key(1).public().id()).expect("distrusted").is_some());
    registry.checkout(&version).expect("the new key");
    assert!(registry.distrust(&key(1).public().id()).is_err(), "it is not trusted");
}

/// The files of a channel in memory, so that they can be tampered with.
#[derive(Default)]
pub(crate) struct Files(pub(crate) RefCell<HashMap<String, Vec<u8>>>);

impl Files {
    pub(crate) fn publisher<T>(
        &self,
        now: Timestamp,
        lifetimes: Lifetimes,
        work: impl FnOnce(&Publisher<'_>) -> inarch_registry::Result<T>,
    ) -> inarch_registry::Result<T> {
        let fetch = |name: &str, _: u64| Ok(self.0.borrow().get(name).cloned());
        let store = |name: &str, bytes: &[u8]| {
            self.0.borrow_mut().insert(name.into(), bytes.to_vec());
            Ok(())
        };
        work(&Publisher::new(&fetch, &store, lifetimes, now))
    }

    pub(crate) fn update(
        &self,
        channel: &mut Channel,
        now: Timestamp,
    ) -> inarch_registry::Result<inarch_registry::Trusted> {
        let fetch =
            |name: &str, limit: u64| Ok(self.0.borrow().get(name).cloned().filter(|bytes| bytes.len() as u64 <= limit));
        channel.update(&fetch, now)
    }

    pub(crate) fn get(&self, name: &str) -> Vec<u8> {
        self.0.borrow()[name].clone()
    }

    pub(crate) fn put(&self, name: &str, bytes: Vec<u8>) {
        self.0.borrow_mut().insert(name.into(), bytes);
    }

    pub(crate) fn edit(&self, name: &str, edit: impl FnOnce(&mut Value)) {
        let mut value: Value = serde_json::from_slice(&self.get(name)).expect("JSON");
        edit(&mut value);
        self.put(name, serde_json::to_vec(&value).expect("JSON"));
    }
}

pub(crate) fn offer(number: u64, share: u32) -> Offer {
    let digest = inarch_registry::Digest::of(&number.to_le_bytes());
    Offer { name: "chest".parse().expect("a name"), number, digest, manifest_bytes: 500, share }
}

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("a time")
}

pub(crate) struct Fleet {
    pub(crate) files: Files,
    root: Vec<u8>,
    folder: tempfile::TempDir,
}

/// A channel with two of three root keys and one online key, which offers version 1.
pub(crate) fn fleet() -> Fleet {
    let files = Files::default();
    let (roots, online) = ([key(1), key(2), key(3)], [key(10)]);
    let keys = ChannelKeys { root: &roots, root_threshold: 2, online: &online, online_threshold: 1 };
    let root = files.publisher(at(0), Lifetimes::default(), |publisher| publisher.create(&keys)).expect("a channel");
    files
        .publisher(at(0), Lifetimes::default(), |publisher| publisher.offer(offer(1, 10_000), &online))
        .expect("offered");
    Fleet { files, root, folder: tempfile::tempdir().expect("a folder") }
}

impl Fleet {
    pub(crate) fn channel(&self, name: &str) -> Channel {
        Channel::open(self.folder.path().join(name), Some(&self.root)).expect("a channel")
    }

    pub(crate) fn offer(&self, number: u64, share: u32, online: u8) -> inarch_registry::Result<()> {
        self.files
            .publisher(at(0), Lifetimes::default(), |publisher| publisher.offer(offer(number, share), &[key(online)]))
    }

    #[track_caller]
    fn assert_refused(&self, channel: &mut Channel, word: &str) {
        match self.files.update(channel, at(10)) {
            Err(error) => assert!(error.to_string().contains(word), "`{word}` is missing in: {error}"),
            Ok(trusted) => panic!("accepted: {trusted:?}"),
        }
    }
}

#[test]
fn a_device_learns_what_is_offered_and_remembers() {
    let fleet = fleet();
    let mut channel = fleet.channel("device");
    let trusted = fleet.files.update(&mut channel, at(10)).expect("trusted");
    assert_eq!(trusted.offers, [offer(1, 10_000)]);
    fleet.offer(2, 1_000, 10).expect("offered");
    let trusted = fleet.files.update(&mut channel, at(20)).expect("trusted");
    assert_eq!(trusted.offers, [offer(1, 10_000), offer(2, 1_000)]);
    let mut again = Channel::open(fleet.folder.path().join("device"), None).expect("remembered");
    assert_eq!(fleet.files.update(&mut again, at(30)).expect("trusted"), trusted);
    assert!(matches!(Channel::open(fleet.folder.path().join("new"), None), Err(Error::Untrusted { .. })));
    assert!(fleet.offer(3, 10_000, 11).is_err(), "a key that is none of the channel's");
}

#[test]
fn going_back_is_refused() {
    let fleet = fleet();
    let mut channel = fleet.channel("device");
    let old: Vec<(String, Vec<u8>)> = fleet.files.0.borrow().clone().into_iter().collect();
    fleet.offer(2, 10_000, 10).expect("offered");
    fleet.files.update(&mut channel, at(10)).expect("trusted");
    let new = fleet.files.0.borrow().clone();
    for (name, bytes) in old {
        fleet.files.put(&name, bytes);
    }
    fleet.assert_refused(&mut channel, "go back");
    // A crash must not forget what protects: the state is one file, and a damaged one is an error, not a fresh start.
    let path = fleet.folder.path().join("device");
    let state = std::fs::read(&path).expect("a file");
    std::fs::write(&path, &state[..state.len() / 2]).expect("torn");
    assert!(Channel::open(path.clone(), Some(&fleet.root)).is_err());
    std::fs::write(&path, &state).expect("restored");
    // A snapshot that is older than the one the device knows, under a newer timestamp, signed by the right key.
    *fleet.files.0.borrow_mut() = new;
    let mut channel = Channel::open(path, None).expect("a channel");
    fleet.files.update(&mut channel, at(10)).expect("trusted");
    let resign = |name: &str, edit: &dyn Fn(&mut Value)| {
        fleet.files.edit(name, |envelope| {
            edit(&mut envelope["signed"]);
            *envelope = resigned(&envelope["signed"], 10);
        });
    };
    resign("timestamp.json", &|signed| {
        signed["version"] = json!(99);
        signed["meta"]["snapshot.json"] = json!({ "version": 1 });
    });
    fleet.assert_refused(&mut channel, "go back");
    // It was refused before it was remembered: the next honest one, of a lower version than 99, is welcome.
    fleet.offer_again();
    fleet.files.update(&mut channel, at(10)).expect("trusted");
}

impl Fleet {
    /// Lets the honest publisher write over what was tampered with.
    fn offer_again(&self) {
        let fresh = self::fleet();
        for number in 2..8 {
            fresh.offer(number, 10_000, 10).expect("offered");
        }
        *self.files.0.borrow_mut() = fresh.files.0.into_inner();
    }
}

/// A document signed anew by a key, as only its owner could.
pub(crate) fn resigned(signed: &Value, seed: u8) -> Value {
    let signature = inarch_registry::sign_document(signed, &key(seed));
    json!({ "signatures": [{ "keyid": key(seed).public().id(), "sig": signature }], "signed": signed })
}

#[test]
fn frozen_mixed_and_forged_metadata_is_refused() {
    let fleet = fleet();
    let mut channel = fleet.channel("device");
    fleet.files.update(&mut channel, at(10)).expect("trusted");
    // Frozen: nothing new for longer than the timestamp lives.
    let late = at(31 * 24 * 3600);
    let error = fleet.files.update(&mut channel, late).expect_err("frozen").to_string();
    assert!(error.contains("expired") && error.contains("clock"), "{error}");

    fleet.offer(2, 10_000, 10).expect("offered");
    let whole = fleet.files.0.borrow().clone();
    let check = |name: &str, word: &str, edit: &dyn Fn(&mut Value)| {
        *fleet.files.0.borrow_mut() = whole.clone();
        let mut channel = fleet.channel("device");
        fleet.files.edit(name, edit);
        fleet.assert_refused(&mut channel, word);
    };
    // Forged: any change of what was signed.
    check("timestamp.json", "signatures", &|envelope| envelope["signed"]["version"] = json!(1000));
    check("3.snapshot.json", "not the one", &|envelope| envelope["signed"]["version"] = json!(4));
    check("3.targets.json", "not the one", &|envelope| envelope["signed"]["targets"] = json!({}));
    // Mixed: a snapshot of one time with targets of another, though both are signed.
    *fleet.files.0.borrow_mut() = whole.clone();
    fleet.files.put("3.targets.json", fleet.files.get("2.targets.json"));
    fleet.assert_refused(&mut fleet.channel("device"), "not the one");
    // A target that disappears from the snapshot, a delegation, no snapshot at all; all signed by the right key.
    let resign = |name: &str, word: &str, edit: &dyn Fn(&mut Value)| {
        *fleet.files.0.borrow_mut() = whole.clone();
        fleet.files.edit(name, |envelope| {
            edit(&mut envelope["signed"]);
            *envelope = resigned(&envelope["signed"], 10);
        });
        fleet.assert_refused(&mut fleet.channel("device"), word);
    };
    resign("timestamp.json", "nothing else", &|signed| signed["meta"]["other.json"] = json!({ "version": 1 }));
    resign("timestamp.json", "nothing else", &|signed| signed["meta"] = json!({}));
    resign("timestamp.json", "it is `targets`", &|signed| signed["_type"] = json!("targets"));
    resign("timestamp.json", "version 0", &|signed| signed["version"] = json!(0));
    // The same key many times, or under many ids, is one key.
    *fleet.files.0.borrow_mut() = whole.clone();
    let mut root: Value = serde_json::from_slice(&fleet.root).expect("JSON");
    let first = root["signatures"][0].clone();
    root["signatures"] = json!([first, first, first]);
    let repeated = serde_json::to_vec(&root).expect("JSON");
    assert!(Channel::open(fleet.folder.path().join("other"), Some(&repeated)).is_err());
}

#[test]
fn roots_follow_one_another_and_replaced_keys_lose_their_power() {
    let fleet = fleet();
    let mut channel = fleet.channel("device");
    fleet.files.update(&mut channel, at(10)).expect("trusted");
    let (roots, online) = ([key(2), key(3), key(4)], [key(20)]);
    let keys = ChannelKeys { root: &roots, root_threshold: 2, online: &online, online_threshold: 1 };
    let rotate = |old: &[SecretKey]| {
        fleet.files.publisher(at(0), Lifetimes::default(), |publisher| publisher.rotate(&keys, old))
    };
    rotate(&[]).expect("keys 2 and 3 are of both roots");
    let trusted = fleet.files.update(&mut channel, at(20)).expect("trusted");
    assert_eq!(trusted.offers, [offer(1, 10_000)]);
    assert!(fleet.offer(2, 10_000, 10).is_err(), "the old online key is gone");
    fleet.offer(2, 10_000, 20).expect("offered");
    fleet.files.update(&mut channel, at(20)).expect("trusted");
    let strangers = [key(5), key(6)];
    let keys = ChannelKeys { root: &strangers, root_threshold: 2, online: &online, online_threshold: 1 };
    let foreign = fleet.files.publisher(at(0), Lifetimes::default(), |publisher| publisher.rotate(&keys, &[key(4)]));
    assert!(foreign.is_err(), "one old key of two that are needed");
    assert!(!fleet.files.0.borrow().contains_key("3.root.json"), "nothing was written");
    // A root that skips a version is not followed.
    fleet.files.put("3.root.json", fleet.files.get("2.root.json"));
    fleet.assert_refused(&mut channel, "version 2 where 3 must be");
    let error = fleet.offer(3, 10_000, 20).expect_err("nor by the publisher").to_string();
    assert!(error.contains("version 2 where 3 must be"), "{error}");
}

#[test]
fn an_older_list_is_not_signed_again_as_the_newest() {
    let fleet = fleet();
    fleet.offer(2, 10_000, 10).expect("offered");
    let whole = fleet.files.0.borrow().clone();
    for role in ["targets", "snapshot"] {
        *fleet.files.0.borrow_mut() = whole.clone();
        // By somebody who may write there, and has no key.
        fleet.files.put(&format!("3.{role}.json"), fleet.files.get(&format!("2.{role}.json")));
        let error = fleet.offer(3, 100, 10).expect_err(role).to_string();
        assert!(error.contains("version 2 where 3 must be"), "{error}");
        assert!(!fleet.files.0.borrow().contains_key("4.targets.json"), "nothing was written");
    }
}

#[test]
fn a_channel_that_was_begun_can_be_made_again() {
    let files = Files::default();
    let (roots, online) = ([key(1)], [key(10)]);
    let keys = ChannelKeys { root: &roots, root_threshold: 1, online: &online, online_threshold: 1 };
    for cut in ["1.targets.json", "1.snapshot.json", "timestamp.json", "1.root.json"] {
        let fetch = |name: &str, _: u64| Ok(files.0.borrow().get(name).cloned());
        let store = |name: &str, bytes: &[u8]| {
            if name == cut {
                let (address, reason) = ("memory".into(), "the network is gone".into());
                return Err(Error::Remote { action: "push", address, reason, transient: true });
            }
            files.put(name, bytes.to_vec());
            Ok(())
        };
        assert!(Publisher::new(&fetch, &store, Lifetimes::default(), at(0)).create(&keys).is_err(), "{cut}");
    }
    files.publisher(at(0), Lifetimes::default(), |publisher| publisher.create(&keys)).expect("a channel");
    let offered = |publisher: &Publisher<'_>| publisher.offer(offer(1, 10_000), &online);
    files.publisher(at(0), Lifetimes::default(), offered).expect("offered");
}

#[test]
fn a_channel_lives_on_a_remote() {
    let folder = tempfile::tempdir().expect("a folder");
    let remote = open_remote(&folder.path().display().to_string(), None).expect("a remote");
    let (roots, online) = ([key(1)], [key(10)]);
    let keys = ChannelKeys { root: &roots, root_threshold: 1, online: &online, online_threshold: 1 };
    let lifetimes = Lifetimes::default();
    with_channel(&*remote, "stable", lifetimes, at(0), |publisher| publisher.create(&keys)).expect("a channel");
    let again = with_channel(&*remote, "stable", lifetimes, at(0), |publisher| publisher.create(&keys));
    assert!(matches!(again, Err(Error::Conflict { .. })));
    with_channel(&*remote, "stable", lifetimes, at(0), |publisher| {
        publisher.offer(offer(1, 10_000), &online)?;
        publisher.offer(offer(2, 100), &online)?;
        assert!(publisher.withdraw(&"chest".parse()?, 1, &online).is_err(), "nothing would be left for all");
        publisher.withdraw(&"chest".parse()?, 2, &online)?;
        publisher.refresh(&online)?;
        assert_eq!(publisher.offers()?, [offer(1, 10_000)]);
        Ok(())
    })
    .expect("published");
}

/// Any byte of any file changed: an error or the truth, never a panic, never anything else.
#[test]
fn no_mutation_of_a_channel_is_believed() {
    let fleet = fleet();
    fleet.offer(2, 1_000, 10).expect("offered");
    let truth = [offer(1, 10_000), offer(2, 1_000)];
    let whole = fleet.files.0.borrow().clone();
    let mut names: Vec<&String> = whole.keys().collect();
    names.sort();
    let mut draws = crate::support::Draws::new(11);
    for case in 0..400 {
        *fleet.files.0.borrow_mut() = whole.clone();
        let name = names[draws.below(names.len() as u64) as usize];
        let mut bytes = whole[name].clone();
        let at = draws.below(bytes.len() as u64) as usize;
        match draws.below(3) {
            0 => bytes[at] = draws.below(256) as u8,
            1 => drop(bytes.remove(at)),
            _ => bytes.truncate(at),
        }
        fleet.files.put(name, bytes);
        let mut channel = fleet.channel(&format!("device-{case}"));
        if let Ok(trusted) = fleet.files.update(&mut channel, at_ten()) {
            assert_eq!(trusted.offers, truth, "case {case}: {name}");
        }
    }
}

fn at_ten() -> Timestamp {
    at(10)
}
