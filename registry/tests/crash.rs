//! Crashes: a process that publishes, tags and collects is killed at every step it makes, and at random moments; a disk
//! fills up at every step. Whatever happens, what was there before is there after, every version is whole, and work
//! goes on.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use inarch_registry::{Expect, GcPolicy, Name, Observer, Options, Registry, Step, Verdict};
use tempfile::TempDir;

use crate::support::{Draws, request};

/// Tells a child what to do: `FOLDER|FIRST SEED|FAULT|STEP`.
const VARIABLE: &str = "INARCH_CRASH_CHILD";

/// What happens at the chosen step.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    Never,
    /// The process dies before the step.
    Die,
    /// Half of the bytes are written, then the process dies.
    TearAndDie,
    /// The step fails as on a full disk.
    Full,
    /// Half of the bytes are written, then the disk is full.
    Tear,
}

impl Fault {
    const ALL: [Self; 5] = [Self::Never, Self::Die, Self::TearAndDie, Self::Full, Self::Tear];
}

#[derive(Debug)]
struct Saboteur {
    fault: Fault,
    at: usize,
    steps: AtomicUsize,
    torn: AtomicUsize,
}

impl Saboteur {
    fn new(fault: Fault, at: usize) -> Arc<Self> {
        Arc::new(Self { fault, at, steps: AtomicUsize::new(0), torn: AtomicUsize::new(0) })
    }
}

impl Observer for Saboteur {
    fn before(&self, step: Step<'_>) -> Verdict {
        // The step after a torn write is where the process of a torn write dies.
        if self.torn.load(Ordering::Relaxed) == 1 && self.fault == Fault::TearAndDie {
            std::process::abort();
        }
        if self.steps.fetch_add(1, Ordering::Relaxed) != self.at {
            return Verdict::Go;
        }
        let half = match step {
            Step::Write(_, bytes) | Step::Append(_, bytes) => Some(bytes / 2),
            _ => None,
        };
        match (self.fault, half) {
            (Fault::Never, _) => Verdict::Go,
            (Fault::Die, _) | (Fault::TearAndDie, None) => std::process::abort(),
            (Fault::TearAndDie | Fault::Tear, Some(half)) => {
                self.torn.store(1, Ordering::Relaxed);
                Verdict::Tear(half)
            }
            (Fault::Full | Fault::Tear, _) => Verdict::Fail(std::io::ErrorKind::StorageFull.into()),
        }
    }
}

/// Publishes, tags, collects. Errors end it, as they end a command.
fn work(registry: &Registry, seed: u64) -> inarch_registry::Result<()> {
    let (name, prod) = ("chest".parse()?, "prod".parse()?);
    let version = registry.publish(request("chest", seed))?.version;
    registry.tag(&name, &prod, Some(version.number), Expect::Any, "work")?;
    registry.gc(&GcPolicy { keep: Some(3), dry_run: false })?;
    registry.rollback(&name, &prod, None, Expect::Any, "work").map(drop)
}

/// What a child process does; it does nothing in an ordinary run.
#[test]
fn child() {
    let Ok(order) = std::env::var(VARIABLE) else { return };
    let parts: Vec<&str> = order.split('|').collect();
    let number = |at: usize| parts[at].parse::<usize>().expect("a number");
    let saboteur = Saboteur::new(Fault::ALL[number(2)], number(3));
    let options = Options { observer: Some(saboteur), ..Options::default() };
    let registry = Registry::open_with(parts[0], options).expect("a registry");
    for seed in number(1)..number(1) + 1000 {
        if work(&registry, seed as u64).is_err() || Fault::ALL[number(2)] != Fault::Never {
            break;
        }
    }
}

fn spawn(registry: &Registry, seed: u64, fault: Fault, step: usize) -> std::process::Child {
    let fault = Fault::ALL.iter().position(|one| *one == fault).expect("a fault");
    Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "crash::child", "--nocapture"])
        .env(VARIABLE, format!("{}|{seed}|{fault}|{step}", registry.root().display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a child")
}

/// What must survive: a version that an alias points at.
struct Watched {
    folder: TempDir,
    name: Name,
}

impl Watched {
    fn new() -> (Self, Registry) {
        let folder = TempDir::new().expect("a folder");
        let registry = Registry::open(folder.path().join("registry")).expect("a registry");
        let name: Name = "chest".parse().expect("a name");
        let kept = registry.publish(request("chest", 0)).expect("published").version;
        registry.tag(&name, &"kept".parse().expect("an alias"), Some(kept.number), Expect::Absent, "").expect("tagged");
        registry.tag(&name, &"prod".parse().expect("an alias"), Some(kept.number), Expect::Absent, "").expect("tagged");
        registry.pin(&kept, true).expect("pinned");
        (Self { folder, name }, registry)
    }

    /// Everything is whole, nothing is lost, and work goes on.
    #[track_caller]
    fn assert_sound(&self, newest_before: u64, what: &str) -> u64 {
        let registry =
            Registry::open(self.folder.path().join("registry")).unwrap_or_else(|error| panic!("{what}: {error}"));
        let report = registry.verify().unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(report.problems, [], "{what}");
        assert_eq!(registry.resolve("chest@kept").expect("kept").number, 1, "{what}");
        let newest = registry.resolve("chest").expect("a newest one");
        assert!(newest.number >= newest_before, "{what}: version {} after {newest_before}", newest.number);
        registry.checkout(&newest).unwrap_or_else(|error| panic!("{what}: {error}"));
        // An alias points at a whole version, or does not exist yet.
        if let Some(number) = registry.alias(&self.name, &"prod".parse().expect("an alias")).expect("readable") {
            registry.resolve(&format!("chest@{number}")).unwrap_or_else(|error| panic!("{what}: {error}"));
        }
        newest.number
    }
}

/// The number of steps that `work` makes.
fn steps() -> usize {
    let (watched, _) = Watched::new();
    let saboteur = Saboteur::new(Fault::Never, 0);
    let options = Options { observer: Some(saboteur.clone()), ..Options::default() };
    let registry = Registry::open_with(watched.folder.path().join("registry"), options).expect("a registry");
    for seed in 1..=6 {
        work(&registry, seed).expect("work");
    }
    saboteur.steps.store(0, Ordering::Relaxed);
    work(&registry, 7).expect("work");
    saboteur.steps.load(Ordering::Relaxed)
}

#[test]
fn killed_before_every_step_the_registry_is_whole_and_work_goes_on() {
    let (watched, registry) = Watched::new();
    for seed in 1..=6 {
        work(&registry, seed).expect("work");
    }
    let steps = steps();
    assert!(steps > 40, "{steps} steps");
    let mut newest = 0;
    for fault in [Fault::Die, Fault::TearAndDie] {
        for step in 0..steps {
            let seed = 1000 + newest;
            let what = format!("{fault:?} at step {step} of {steps}");
            spawn(&registry, seed, fault, step).wait().expect("a child");
            newest = watched.assert_sound(newest, &what);
            // The same work again: it ends what was begun, and gives no second version for it.
            work(&registry, seed).unwrap_or_else(|error| panic!("{what}: {error}"));
            let after = watched.assert_sound(newest, &what);
            assert!(after <= newest + 1, "{what}");
            newest = after;
        }
    }
    let report = registry.gc(&GcPolicy::default()).expect("a collection");
    assert_eq!((registry.verify().expect("a verification").garbage, report.versions.len()), (0, 0));
    assert_eq!(std::fs::read_dir(registry.root().join("staging")).expect("a folder").count(), 0);
}

#[test]
fn a_disk_that_fills_up_at_any_step_costs_nothing_but_the_step() {
    let (watched, registry) = Watched::new();
    let steps = steps();
    let mut newest = 0;
    for fault in [Fault::Full, Fault::Tear] {
        for step in 0..steps {
            let options = Options { observer: Some(Saboteur::new(fault, step)), ..Options::default() };
            let full = Registry::open_with(registry.root(), options).expect("a registry");
            let seed = 1000 + newest;
            let what = format!("{fault:?} at step {step} of {steps}");
            let _ = work(&full, seed);
            newest = watched.assert_sound(newest, &what);
            work(&registry, seed).unwrap_or_else(|error| panic!("{what}: {error}"));
            newest = watched.assert_sound(newest, &what);
        }
    }
    assert_eq!(std::fs::read_dir(registry.root().join("staging")).expect("a folder").count(), 0);
}

/// `INARCH_CRASH_KILLS` sets how often; thousands take minutes.
#[test]
fn killed_at_random_moments_the_registry_is_whole() {
    let kills = std::env::var("INARCH_CRASH_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let (watched, registry) = Watched::new();
    let mut draws = Draws::new(3);
    let mut newest = 0;
    for kill in 0..kills {
        let mut child = spawn(&registry, 1_000_000 + kill * 1000, Fault::Never, 0);
        std::thread::sleep(Duration::from_micros(2_000 + draws.below(60_000)));
        child.kill().expect("killed");
        child.wait().expect("a child");
        newest = watched.assert_sound(newest, &format!("kill {kill}"));
    }
    work(&registry, 1).expect("work goes on");
    registry.gc(&GcPolicy::default()).expect("a collection");
    assert_eq!(registry.verify().expect("a verification").garbage, 0);
    assert!(newest > 1, "the children got something done");
}

/// A power cut loses what was not synchronised: nothing may be renamed or linked before it is, and no change may be
/// reported before its folder is.
#[test]
fn everything_is_synchronised_before_anything_refers_to_it() {
    #[derive(Debug, Default)]
    struct Journal(std::sync::Mutex<Vec<(String, String)>>);

    impl Observer for Journal {
        fn before(&self, step: Step<'_>) -> Verdict {
            let entry = match step {
                Step::Sync(path) => ("sync", path),
                Step::Link(from, to) | Step::Rename(from, to) => {
                    let synced = self
                        .0
                        .lock()
                        .expect("no panic")
                        .iter()
                        .any(|(kind, path)| kind == "sync" && *path == from.display().to_string());
                    assert!(synced, "{} is moved before it is synchronised", from.display());
                    ("name", to)
                }
                Step::SyncFolder(path) => ("folder", path),
                _ => return Verdict::Go,
            };
            self.0.lock().expect("no panic").push((entry.0.into(), entry.1.display().to_string()));
            Verdict::Go
        }
    }

    let (watched, _) = Watched::new();
    let journal = Arc::new(Journal::default());
    let options = Options { observer: Some(journal.clone()), ..Options::default() };
    let registry = Registry::open_with(watched.folder.path().join("registry"), options).expect("a registry");
    for seed in 1..=5 {
        journal.0.lock().expect("no panic").clear();
        work(&registry, seed).expect("work");
        let journal = journal.0.lock().expect("no panic");
        let position = |part: &str| journal.iter().position(|(kind, path)| kind == "name" && path.contains(part));
        let commit = position("versions").expect("a commit");
        let blobs: Vec<usize> = (0..commit).filter(|at| journal[*at].1.contains("blobs/sha256/")).collect();
        let blob = *blobs.last().expect("a blob");
        let folder = |at: usize| journal[at].0 == "folder" && journal[at].1.ends_with("blobs/sha256");
        assert!((blob..commit).any(folder), "the folder of blobs is synchronised between the last blob and the commit");
        for (at, (kind, path)) in journal.iter().enumerate().filter(|(_, (kind, _))| kind == "name") {
            let parent = std::path::Path::new(path).parent().expect("a parent").display().to_string();
            let later = journal[at..].iter().any(|(kind, path)| kind == "folder" && *path == parent);
            assert!(later, "{kind} {path}: its folder is synchronised before the work is done");
        }
    }
}
