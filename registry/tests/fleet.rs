//! A thousand devices in one process on one remote, with cut connections, corrupt bytes, wrong clocks, power cuts, versions
//! that do not pass their self-test and versions that break in use.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use inarch_registry::{
    Agent, AgentOptions, Candidate, ChannelKeys, Descriptor, Device, Digest, Error, Lifetimes, Name, Offer, Outcome,
    PushOptions, Registry, Remote, Result, RolloutDecision, RolloutLimits, SecretKey, StepReport, Timestamp, Transfer,
    Version, decide, draw, with_channel,
};

use crate::support::{Draws, Shelf, sized};

/// A remote in memory.
#[derive(Debug, Default)]
struct Memory {
    blobs: Mutex<HashMap<Digest, Vec<u8>>>,
    tags: Mutex<HashMap<String, Digest>>,
}

impl Remote for Memory {
    fn address(&self) -> &str {
        "memory"
    }

    fn manifest(&self, repository: &str, tag: &str, _limit: u64) -> Result<Option<Vec<u8>>> {
        let tagged = || self.tags.lock().expect("no panic").get(&format!("{repository}:{tag}")).copied();
        let digest = if tag.starts_with("sha256:") { Some(tag.parse()?) } else { tagged() };
        Ok(digest.and_then(|digest: Digest| self.blobs.lock().expect("no panic").get(&digest).cloned()))
    }

    fn put_manifest(&self, repository: &str, tag: &str, _media_type: &str, bytes: &[u8]) -> Result<()> {
        let digest = Digest::of(bytes);
        self.blobs.lock().expect("no panic").insert(digest, bytes.to_vec());
        self.tags.lock().expect("no panic").insert(format!("{repository}:{tag}"), digest);
        Ok(())
    }

    fn has_blob(&self, _repository: &str, blob: &Descriptor) -> Result<bool> {
        Ok(self.blobs.lock().expect("no panic").contains_key(&blob.digest))
    }

    fn blob(
        &self,
        _repository: &str,
        blob: &Descriptor,
        offset: u64,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let bytes = self.blobs.lock().expect("no panic").get(&blob.digest).cloned().unwrap_or_default();
        bytes[(offset as usize).min(bytes.len())..].chunks(4096).try_for_each(sink)
    }

    fn put_blob(&self, _repository: &str, blob: &Descriptor, path: &Path) -> Result<()> {
        let bytes = std::fs::read(path).expect("a blob");
        self.blobs.lock().expect("no panic").insert(blob.digest, bytes);
        Ok(())
    }
}

/// The way of one device to the remote, which is not always good.
#[derive(Debug)]
struct BadLine<'a> {
    remote: &'a Memory,
    draws: Mutex<Draws>,
    /// One in so many requests goes wrong.
    rarity: u64,
    moved: &'a AtomicU64,
}

impl BadLine<'_> {
    fn draw(&self, bound: u64) -> u64 {
        self.draws.lock().expect("no panic").below(bound)
    }

    fn broken(&self) -> Result<()> {
        if self.draw(self.rarity) > 0 {
            return Ok(());
        }
        Err(Error::Remote {
            action: "reach",
            address: "memory".into(),
            reason: "the line is down".into(),
            transient: true,
        })
    }
}

impl Remote for BadLine<'_> {
    fn address(&self) -> &str {
        "memory"
    }

    fn manifest(&self, repository: &str, tag: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        self.broken()?;
        let mut bytes = self.remote.manifest(repository, tag, limit)?;
        if let Some(bytes) = bytes.as_mut().filter(|_| self.draw(self.rarity) == 0) {
            let at = self.draw(bytes.len() as u64) as usize;
            bytes[at] ^= 1;
        }
        self.moved.fetch_add(bytes.as_ref().map_or(0, Vec::len) as u64, Ordering::Relaxed);
        Ok(bytes)
    }

    fn put_manifest(&self, _: &str, _: &str, _: &str, _: &[u8]) -> Result<()> {
        unreachable!("devices do not write")
    }

    fn has_blob(&self, repository: &str, blob: &Descriptor) -> Result<bool> {
        self.remote.has_blob(repository, blob)
    }

    fn blob(
        &self,
        repository: &str,
        blob: &Descriptor,
        offset: u64,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let fault = self.draw(self.rarity * 3);
        self.remote.blob(repository, blob, offset, &mut |bytes| {
            self.moved.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            match fault {
                // Cut in the middle.
                0 => {
                    sink(&bytes[..bytes.len() / 2])?;
                    Err(Error::Remote {
                        action: "pull",
                        address: "memory".into(),
                        reason: "cut".into(),
                        transient: true,
                    })
                }
                // One bit turned over.
                1 => {
                    let mut bytes = bytes.to_vec();
                    bytes[0] ^= 4;
                    sink(&bytes)
                }
                _ => sink(bytes),
            }
        })
    }

    fn put_blob(&self, _: &str, _: &Descriptor, _: &Path) -> Result<()> {
        unreachable!("devices do not write")
    }
}

/// Version 3 fails its self-test on some devices; version 4 passes, and breaks in use on all.
struct Model {
    device: usize,
}

const PICKY: u64 = 3;
const BROKEN: u64 = 4;

impl Device for Model {
    fn self_test(&self, candidate: &Candidate<'_>) -> std::result::Result<(), String> {
        assert!(candidate.folder.join("adapter.safetensors").is_file());
        match candidate.version.number == PICKY && self.device.is_multiple_of(7) {
            true => Err("its golden test gives other numbers here".into()),
            false => Ok(()),
        }
    }

    fn health(&self, version: &Version) -> std::result::Result<(), String> {
        if version.number == BROKEN { Err("requests fail".into()) } else { Ok(()) }
    }
}

struct Fleet {
    home: tempfile::TempDir,
    publisher: Shelf,
    remote: Memory,
    root: Vec<u8>,
    devices: usize,
    moved: AtomicU64,
    full: AtomicU64,
    content: AtomicU64,
}

fn name() -> Name {
    "chest".parse().expect("a name")
}

fn online() -> [SecretKey; 1] {
    [SecretKey::from_seed([10; 32])]
}

fn at(minute: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + 60 * minute).expect("a time")
}

impl Fleet {
    fn new(devices: usize) -> Self {
        let remote = Memory::default();
        let (roots, online) = ([SecretKey::from_seed([1; 32])], online());
        let keys = ChannelKeys { root: &roots, root_threshold: 1, online: &online, online_threshold: 1 };
        let root = with_channel(&remote, "stable", Lifetimes::default(), at(0), |publisher| publisher.create(&keys));
        // Thousands of devices on one disk would mostly wait for it; in memory they do not.
        let memory = Path::new("/dev/shm");
        let home = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let home = home.expect("a folder");
        let [moved, full, content] = [const { AtomicU64::new(0) }; 3];
        Self { home, publisher: Shelf::new(), remote, root: root.expect("a channel"), devices, moved, full, content }
    }

    /// Publishes the next version, with the difference to the one before.
    fn publish(&self) -> Version {
        let registry = &self.publisher.registry;
        let seed = registry.versions(&name()).map_or(0, |versions| versions.len()) as u64;
        let version = registry.publish(sized("chest", seed, 6_000)).expect("published").version;
        if version.number > 1 {
            let before = registry.resolve(&format!("chest@{}", version.number - 1)).expect("a version");
            registry.make_delta(&before, &version).expect("a difference").expect("worth it");
        }
        registry.push(&version, &self.remote, &PushOptions::default(), &Transfer::default()).expect("pushed");
        version
    }

    fn offer(&self, version: &Version, share: u32) {
        let (name, number, digest) = (name(), version.number, version.digest);
        let offer = Offer { name, number, digest, manifest_bytes: version.manifest_bytes, share };
        let work = |publisher: &inarch_registry::Publisher<'_>| publisher.offer(offer, &online());
        with_channel(&self.remote, "stable", Lifetimes::default(), at(0), work).expect("offered");
    }

    fn withdraw(&self, number: u64) {
        let work = |publisher: &inarch_registry::Publisher<'_>| publisher.withdraw(&name(), number, &online());
        with_channel(&self.remote, "stable", Lifetimes::default(), at(0), work).expect("withdrawn");
    }

    fn registry(&self, device: usize) -> Registry {
        Registry::open(self.home.path().join(format!("{device}/registry"))).expect("a registry")
    }

    fn agent(&self, device: usize) -> Agent {
        self.open(device).expect("an agent")
    }

    fn open(&self, device: usize) -> Result<Agent> {
        let options = AgentOptions {
            folder: self.home.path().join(format!("{device}/agent")),
            device: format!("device-{device}"),
            channel: "stable".into(),
            alias: "active".parse().expect("an alias"),
            checks: 1,
            max_bytes: 1 << 20,
            transfer: Transfer { pause: Duration::ZERO, parallel: 1, attempts: 4, deltas: true },
        };
        Agent::open(self.registry(device), options, Some(&self.root))
    }

    /// One step of every device; the agents are opened anew, as after a power cut.
    fn round(&self, round: u64, rarity: u64) -> Vec<StepReport> {
        let next = AtomicU64::new(0);
        let reports = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    loop {
                        let device = next.fetch_add(1, Ordering::Relaxed) as usize;
                        if device >= self.devices {
                            break;
                        }
                        let draws = Mutex::new(Draws::new(round * 1_000_003 + device as u64));
                        let line = BadLine { remote: &self.remote, draws, rarity, moved: &self.moved };
                        // Some clocks are minutes off; one in fifty has lost its battery and is years ahead.
                        let skew = if device % 50 == 7 && round.is_multiple_of(2) {
                            60 * 24 * 365 * 9
                        } else {
                            device as i64 % 21 - 10
                        };
                        let report =
                            self.agent(device).step(&line, &Model { device }, at(30 + skew)).expect("books are kept");
                        for outcome in &report.outcomes {
                            if let Outcome::Activated { full_bytes, moved_bytes, .. } = outcome {
                                self.content.fetch_add(*moved_bytes, Ordering::Relaxed);
                                self.full.fetch_add(*full_bytes, Ordering::Relaxed);
                            }
                        }
                        reports.lock().expect("no panic").push(report);
                    }
                });
            }
        });
        reports.into_inner().expect("no panic")
    }

    fn active(&self, device: usize) -> Option<u64> {
        self.registry(device).alias(&name(), &"active".parse().expect("an alias")).expect("readable")
    }

    /// Rounds until every device is where it should be.
    fn settle(&self, first_round: u64, rarity: u64, target: impl Fn(usize) -> u64) -> u64 {
        for round in first_round..first_round + 12 {
            self.round(round, rarity);
            if (0..self.devices).all(|device| self.active(device) == Some(target(device))) {
                return round + 1;
            }
        }
        let lost: Vec<_> =
            (0..self.devices).filter(|device| self.active(*device) != Some(target(*device))).take(9).collect();
        panic!("devices {lost:?} did not arrive");
    }
}

/// `INARCH_FLEET_DEVICES` sets how many; a thousand by default.
#[test]
fn every_device_of_a_faulty_fleet_ends_on_a_version_that_works() {
    let devices = std::env::var("INARCH_FLEET_DEVICES").ok().and_then(|text| text.parse().ok()).unwrap_or(1000);
    let fleet = Fleet::new(devices);
    let limits = RolloutLimits { least_reports: 1, failures: 0.2 };
    let rarity = 25;

    let first = fleet.publish();
    fleet.offer(&first, 10_000);
    let mut round = fleet.settle(1, rarity, |_| 1);
    let first_bytes = fleet.moved.swap(0, Ordering::Relaxed);
    let first_full = fleet.full.swap(0, Ordering::Relaxed);
    fleet.content.store(0, Ordering::Relaxed);

    // In stages; the second stage adds to the first.
    let second = fleet.publish();
    for share in [1_000, 10_000] {
        fleet.offer(&second, share);
        let is_in = |device: usize| draw(&format!("device-{device}"), &name(), 2) < share;
        round = fleet.settle(round, rarity, |device| if is_in(device) { 2 } else { 1 });
    }
    let [delta_bytes, delta_full, content] =
        [&fleet.moved, &fleet.full, &fleet.content].map(|counter| counter.load(Ordering::Relaxed));
    assert!(delta_bytes < delta_full, "{delta_bytes} of {delta_full} bytes, metadata and repetitions included");
    eprintln!(
        "{devices} devices: first version {first_bytes} bytes for {first_full}; update by difference {content} for {delta_full}, {delta_bytes} with all metadata and repetitions"
    );

    // A version that some devices refuse: they stay, the others go.
    let picky = fleet.publish();
    fleet.offer(&picky, 10_000);
    round = fleet.settle(round, rarity, |device| if device % 7 == 0 { 2 } else { PICKY });

    // A version that breaks in use: the first devices go back by themselves, and the rest never see it.
    let broken = fleet.publish();
    fleet.offer(&broken, 500);
    let before: Vec<_> = (0..devices).map(|device| fleet.active(device)).collect();
    let mut reports: HashMap<String, StepReport> = HashMap::new();
    let mut halted = false;
    for _ in 0..8 {
        for report in fleet.round(round, rarity) {
            if report.outcomes.iter().any(|outcome| matches!(outcome, Outcome::Failed { number: BROKEN, .. })) {
                reports.insert(report.device.clone(), report);
            }
        }
        round += 1;
        if matches!(decide(reports.values(), &name(), BROKEN, &limits), RolloutDecision::Halt { .. }) {
            fleet.withdraw(BROKEN);
            halted = true;
            break;
        }
    }
    assert!(halted, "{} reports", reports.len());
    for _ in 0..3 {
        fleet.round(round, rarity);
        round += 1;
    }
    let after: Vec<_> = (0..devices).map(|device| fleet.active(device)).collect();
    assert_eq!(after, before, "all are back");

    // Good again, for all, over a good line at last.
    let last = fleet.publish();
    fleet.offer(&last, 10_000);
    fleet.settle(round, rarity, |_| 5);
    fleet.round(round + 100, u64::MAX);
    for device in (0..devices).step_by(if devices > 100 { 37 } else { 1 }) {
        let registry = fleet.registry(device);
        assert_eq!(registry.verify().expect("a verification").problems, [], "device {device}");
        let kept = registry.versions(&name()).expect("versions").len();
        assert!(kept <= 3, "device {device} keeps {kept} versions: disk is bounded");
    }
}

#[test]
fn a_version_that_takes_the_device_down_is_given_up() {
    /// The power goes during every health check.
    struct Crashing;

    impl Device for Crashing {
        fn self_test(&self, _: &Candidate<'_>) -> std::result::Result<(), String> {
            Ok(())
        }

        fn health(&self, version: &Version) -> std::result::Result<(), String> {
            assert_ne!(version.number, 2, "the power goes");
            Ok(())
        }
    }

    let fleet = Fleet::new(1);
    let first = fleet.publish();
    fleet.offer(&first, 10_000);
    fleet.settle(1, u64::MAX, |_| 1);
    fleet.round(5, u64::MAX);
    let second = fleet.publish();
    fleet.offer(&second, 10_000);
    let step = || {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            fleet.agent(0).step(&fleet.remote, &Crashing, at(30)).expect("books are kept")
        }))
    };
    step().expect("activated");
    assert_eq!(fleet.active(0), Some(2));
    for _ in 0..3 {
        assert!(step().is_err(), "down");
    }
    let report = step().expect("up again");
    assert!(matches!(&report.outcomes[0], Outcome::Failed { number: 2, active: Some(1), .. }), "{report:?}");
    assert_eq!(fleet.active(0), Some(1));
    let report = step().expect("up");
    assert!(
        matches!(&report.outcomes[0], Outcome::Failed { number: 2, reason, .. } if reason.contains("before")),
        "{report:?}"
    );
    assert_eq!(fleet.active(0), Some(1));
}

#[test]
fn a_device_never_goes_back_to_a_version_that_it_gave_up() {
    /// Only the third version works.
    struct Picky;

    impl Device for Picky {
        fn self_test(&self, _: &Candidate<'_>) -> std::result::Result<(), String> {
            Ok(())
        }

        fn health(&self, version: &Version) -> std::result::Result<(), String> {
            if version.number == 3 { Ok(()) } else { Err("requests fail".into()) }
        }
    }

    let fleet = Fleet::new(1);
    let step = || fleet.agent(0).step(&fleet.remote, &Picky, at(30)).expect("books are kept").outcomes.remove(0);
    // Offers a version, lets the device try it, and tells what it says after its check, and at the next step.
    let tried = || {
        let version = fleet.publish();
        fleet.offer(&version, 10_000);
        assert!(matches!(step(), Outcome::Activated { number, .. } if number == version.number));
        [step(), step()]
    };
    let is_failed = |outcome: &Outcome, version: u64, left: Option<u64>| matches!(outcome, Outcome::Failed { number, active, .. } if (*number, *active) == (version, left));
    for version in [1, 2] {
        let outcomes = tried();
        assert!(outcomes.iter().all(|outcome| is_failed(outcome, version, None)), "{outcomes:?}");
        assert_eq!(fleet.active(0), None);
    }
    let outcomes = tried();
    assert_eq!(outcomes[0], Outcome::Committed { name: name(), number: 3 });
    let outcomes = tried();
    assert!(outcomes.iter().all(|outcome| is_failed(outcome, 4, Some(3))), "{outcomes:?}");
    assert_eq!(fleet.active(0), Some(3));
}

#[test]
fn two_agents_do_not_work_in_one_folder() {
    let fleet = Fleet::new(2);
    let first = fleet.agent(0);
    let Err(Error::Refused { what, reason }) = fleet.open(0) else { panic!("two agents remember in one folder") };
    assert!(what.contains(&fleet.home.path().join("0/agent").display().to_string()), "{what}");
    assert!(reason.contains(&std::process::id().to_string()), "{reason}");
    fleet.agent(1);
    drop(first);
    // What the first one leaves is a file that nobody has locked.
    fleet.agent(0);
}
