//! The agent: one step asks the channel, takes, tests, activates, watches, goes back.
//!
//! What is in use is an alias of the local registry, so activation is one atomic move that a server follows without
//! dropping a request, and going back is the same move.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::memory::{Memory, Probation, Slot};
use super::rollout::choose;
use crate::channel::{Channel, Offer};
use crate::error::{Error, Result};
use crate::name::{Alias, Name};
use crate::oci::MAX_MANIFEST_BYTES;
use crate::registry::{Candidate, Check, Expect, GcPolicy, Registry, Version};
use crate::store::Lock;
use crate::transport::{PullReport, Remote, Transfer, file};

/// What an agent locks in its folder.
const LOCK: &str = "lock";
/// How long an agent that is ending is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often a version may take the device down before it is given up.
const MAX_STARTS: u32 = 3;

/// What only the device itself can tell.
pub trait Device {
    /// Runs the golden self-test on this device.
    ///
    /// # Errors
    /// Why the candidate must not be used.
    fn self_test(&self, candidate: &Candidate<'_>) -> std::result::Result<(), String>;

    /// Whether the version that is in use works.
    ///
    /// # Errors
    /// Why it does not.
    fn health(&self, version: &Version) -> std::result::Result<(), String>;
}

/// How an agent works.
#[derive(Debug, Clone)]
pub struct AgentOptions {
    /// Folder for what the agent remembers; one agent at a time works in it.
    pub folder: PathBuf,
    /// What this device is called; decides its place in staged rollouts.
    pub device: String,
    /// Name of the channel.
    pub channel: String,
    /// The alias that says what is in use.
    pub alias: Alias,
    /// How many health checks in a row a new version must pass.
    pub checks: u32,
    /// The most bytes of one version.
    pub max_bytes: u64,
    /// How content is moved.
    pub transfer: Transfer,
}

/// What came of one adapter in one step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Outcome {
    /// It is what it should be.
    Current {
        /// The adapter.
        name: Name,
        /// The version in use.
        number: u64,
    },
    /// A version was put to use and is being watched.
    Activated {
        /// The adapter.
        name: Name,
        /// The version in use.
        number: u64,
        /// Bytes that were moved for it.
        moved_bytes: u64,
        /// Its size, in bytes.
        full_bytes: u64,
    },
    /// A version is still being watched.
    Watching {
        /// The adapter.
        name: Name,
        /// The version in use.
        number: u64,
    },
    /// A version has proved itself.
    Committed {
        /// The adapter.
        name: Name,
        /// The version in use.
        number: u64,
    },
    /// A version does not work here; the last one before it that did is in use.
    Failed {
        /// The adapter.
        name: Name,
        /// The version that failed.
        number: u64,
        /// Why.
        reason: String,
        /// The version in use; none when none before it worked.
        active: Option<u64>,
    },
    /// A version could not be had this time.
    Delayed {
        /// The adapter.
        name: Name,
        /// The version that was wanted.
        number: u64,
        /// Why.
        reason: String,
    },
}

impl Outcome {
    /// Whether it says something about this version.
    pub fn is_about(&self, of: &Name, at: u64) -> bool {
        let (name, number) = match self {
            Self::Current { name, number }
            | Self::Activated { name, number, .. }
            | Self::Watching { name, number }
            | Self::Committed { name, number }
            | Self::Failed { name, number, .. }
            | Self::Delayed { name, number, .. } => (name, *number),
        };
        name == of && number == at
    }
}

/// What came of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepReport {
    /// The device.
    pub device: String,
    /// When, by the device's clock.
    pub at: String,
    /// One for each adapter.
    pub outcomes: Vec<Outcome>,
    /// Why the channel could not be followed; what is in use stays in use.
    pub channel_fault: Option<String>,
    /// Whether that is something which was heard and is not believed, and not that nothing could be heard.
    #[serde(skip)]
    pub is_distrusted: bool,
}

/// A device of a fleet.
#[derive(Debug)]
pub struct Agent {
    registry: Registry,
    options: AgentOptions,
    channel: Channel,
    memory: Memory,
    _lock: Lock,
}

impl Agent {
    /// Opens an agent; `root` is the channel's root file, needed the first time.
    ///
    /// # Errors
    /// [`Error::Untrusted`] without a root, [`Error::Refused`] where another agent works in the folder.
    pub fn open(registry: Registry, options: AgentOptions, root: Option<&[u8]>) -> Result<Self> {
        std::fs::create_dir_all(&options.folder).map_err(Error::io("create folder", &options.folder))?;
        let lock = alone_in(&options.folder)?;
        let channel = Channel::open(options.folder.join("channel.json"), root)?;
        let disk = crate::store::Disk::new(options.folder.clone(), None);
        let memory = Memory::open(options.folder.join("memory.json"), disk)?;
        Ok(Self { registry, options, channel, memory, _lock: lock })
    }

    /// One step. Whatever goes wrong with the channel or a version is in the report, and what works stays in use.
    ///
    /// # Errors
    /// Only when this device cannot keep its own books: a full disk, a damaged registry.
    pub fn step(&mut self, remote: &dyn Remote, device: &dyn Device, now: Timestamp) -> Result<StepReport> {
        let mut report = StepReport {
            device: self.options.device.clone(),
            at: now.to_string(),
            outcomes: Vec::new(),
            channel_fault: None,
            is_distrusted: false,
        };
        // What is in use is watched first, with or without a network.
        let mut watched = Vec::new();
        for name in self.memory.names() {
            if let Some(outcome) = self.watch(&name, device)? {
                watched.push(name);
                report.outcomes.push(outcome);
            }
        }
        let repository = format!("channel/{}", self.options.channel);
        let fetch =
            |name: &str, limit: u64| self.options.transfer.retry(name, || file(remote, &repository, name, limit));
        let trusted = match self.channel.update(&fetch, now) {
            Ok(trusted) => trusted,
            Err(error) => {
                report.is_distrusted = matches!(error, Error::Untrusted { .. });
                report.channel_fault = Some(error.to_string());
                return Ok(report);
            }
        };
        let mut names: Vec<Name> = trusted.offers.iter().map(|offer| offer.name.clone()).collect();
        names.sort();
        names.dedup();
        for name in names.into_iter().filter(|name| !watched.contains(name)) {
            if let Some(offer) = choose(&trusted.offers, &self.options.device, &name) {
                report.outcomes.push(self.follow(offer, remote, device)?);
            }
        }
        Ok(report)
    }

    /// The version that is in use.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn active(&self, name: &Name) -> Result<Option<u64>> {
        self.registry.alias(name, &self.options.alias)
    }

    /// Watches a version that has not proved itself; none when there is no such one.
    fn watch(&mut self, name: &Name, device: &dyn Device) -> Result<Option<Outcome>> {
        let slot = self.memory.slot(name);
        let Some(mut probation) = slot.probation.clone() else { return Ok(None) };
        if self.active(name)? != Some(probation.number) {
            // It was written down before it was activated, and then the power went; or somebody else moved the alias.
            self.memory.set(name, Slot { probation: None, ..slot })?;
            return Ok(None);
        }
        probation.starts += 1;
        self.memory.set(name, Slot { probation: Some(probation.clone()), ..slot.clone() })?;
        if probation.starts > MAX_STARTS {
            let reason = format!("the device went down {MAX_STARTS} times with it");
            return self.go_back(name, &probation, reason).map(Some);
        }
        let version = self.registry.resolve(&format!("{name}@{}", probation.number))?;
        if let Err(reason) = device.health(&version) {
            return self.go_back(name, &probation, reason).map(Some);
        }
        probation.starts = 0;
        probation.checks_left = probation.checks_left.saturating_sub(1);
        let number = probation.number;
        if probation.checks_left > 0 {
            self.memory.set(name, Slot { probation: Some(probation), ..slot })?;
            return Ok(Some(Outcome::Watching { name: name.clone(), number }));
        }
        self.memory.set(name, Slot { probation: None, ..slot })?;
        // Only what is in use and what it could go back to is kept.
        self.registry.gc(&GcPolicy { keep: Some(1), dry_run: false })?;
        Ok(Some(Outcome::Committed { name: name.clone(), number }))
    }

    fn go_back(&mut self, name: &Name, probation: &Probation, reason: String) -> Result<Outcome> {
        let mut slot = self.memory.slot(name);
        slot.note_failure(probation.digest);
        slot.probation = None;
        let (alias, expect) = (self.options.alias.clone(), Expect::Is(probation.number));
        // What was in use before was watched, too, and has either proved itself or was given up.
        let works = |number: &u64| {
            let version = self.registry.resolve(&format!("{name}@{number}"));
            *number != probation.number && version.is_ok_and(|version| !slot.failed.contains(&version.digest))
        };
        let active = match self.registry.alias_past(name, &alias)?.into_iter().rev().find(works) {
            Some(number) => self.registry.rollback(name, &alias, Some(number), expect, &reason)?.to,
            None => self.registry.tag(name, &alias, None, expect, &reason)?.to,
        };
        self.memory.set(name, slot)?;
        Ok(Outcome::Failed { name: name.clone(), number: probation.number, reason, active })
    }

    /// Brings an adapter to the version that is offered.
    fn follow(&mut self, offer: &Offer, remote: &dyn Remote, device: &dyn Device) -> Result<Outcome> {
        let (name, number) = (offer.name.clone(), offer.number);
        let active = self.active(&name)?;
        let mut slot = self.memory.slot(&name);
        let is_active = active == Some(number)
            && self.registry.resolve(&format!("{name}@{number}")).is_ok_and(|version| version.digest == offer.digest);
        if is_active {
            return Ok(Outcome::Current { name, number });
        }
        let failed = |reason: String| Outcome::Failed { name: name.clone(), number, reason, active };
        if slot.failed.contains(&offer.digest) {
            return Ok(failed("it failed here before".into()));
        }
        let pulled = match self.pull(offer, remote) {
            Ok(pulled) => pulled,
            // What is signed and yet not acceptable will not become so; everything else may.
            Err(error @ (Error::Refused { .. } | Error::Untrusted { .. } | Error::TooLarge { .. })) => {
                return Ok(failed(error.to_string()));
            }
            Err(error) => return Ok(Outcome::Delayed { name, number, reason: error.to_string() }),
        };
        let test = |candidate: &Candidate<'_>| device.self_test(candidate);
        match self.registry.check(&pulled.version, &[&test as &dyn Check]) {
            Ok(_) => {}
            Err(error @ (Error::Refused { .. } | Error::Untrusted { .. })) => {
                slot.note_failure(offer.digest);
                self.memory.set(&name, slot)?;
                return Ok(failed(error.to_string()));
            }
            Err(error) => return Ok(Outcome::Delayed { name, number, reason: error.to_string() }),
        }
        // First the memory: a version that takes the device down at once is known when it comes up again.
        let probation = Probation { number, digest: offer.digest, checks_left: self.options.checks.max(1), starts: 0 };
        self.memory.set(&name, Slot { probation: Some(probation), ..slot })?;
        let expect = active.map_or(Expect::Absent, Expect::Is);
        self.registry.tag(
            &name,
            &self.options.alias,
            Some(number),
            expect,
            &format!("channel {}", self.options.channel),
        )?;
        Ok(Outcome::Activated { name, number, moved_bytes: pulled.moved_bytes, full_bytes: pulled.full_bytes })
    }

    fn pull(&self, offer: &Offer, remote: &dyn Remote) -> Result<PullReport> {
        let digest = offer.digest.to_string();
        let read = || remote.manifest(offer.name.as_str(), &digest, offer.manifest_bytes.min(MAX_MANIFEST_BYTES));
        let missing = || {
            Error::unknown("version", format!("{}@{}", offer.name, offer.number), format!(" at `{}`", remote.address()))
        };
        let bytes = self.options.transfer.retry(&digest, read)?.ok_or_else(missing)?;
        let manifest = crate::oci::Manifest::parse(&bytes, &digest)?;
        let found = manifest.bytes();
        if found > self.options.max_bytes {
            let what = format!("`{}@{}`", offer.name, offer.number);
            return Err(Error::TooLarge { what, unit: "bytes", limit: self.options.max_bytes, found });
        }
        self.registry.pull_bytes(&offer.name, &bytes, Some(&offer.digest), remote, &self.options.transfer)
    }
}

/// Locks the folder of an agent: of two in one folder, each would write over what the other remembers.
fn alone_in(folder: &Path) -> Result<Lock> {
    Lock::exclusive(&folder.join(LOCK), PATIENCE).map_err(|error| match error {
        Error::Busy { holder, .. } => Error::refused(
            format!("agent folder `{}`", folder.display()),
            format!("another agent ({holder}) is at work in it"),
        ),
        error => error,
    })
}
