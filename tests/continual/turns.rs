//! Versions of one target that are made at the same time: whoever comes second is refused, and nothing that was learned
//! or forgotten meanwhile is undone.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::time::Duration;

use inarch_continual::{
    FolderVersions, ForgetReport, ForgetRequest, MergeRequest, Release, Result, Turn, Version, Versions, forget, merge,
};
use inarch_core::image::OnBadImage;
use inarch_peft::Combination;
use inarch_recipes::{Control, Silent};

use super::ageing::{LATER, TRAIN, When, batch, held, tried, updated};
use crate::support::tiny;

/// How long is waited for a step of another thread that must not come.
const NEVER: Duration = Duration::from_millis(400);
/// And for one that must.
const SOON: Duration = Duration::from_secs(60);

/// Versions in a folder, with something done just before a step of publishing.
struct Before<'a> {
    turn: &'a dyn Fn(),
    staging: &'a dyn Fn(),
}

impl Versions for Before<'_> {
    fn open(&self, target: &str) -> Result<Version> {
        FolderVersions.open(target)
    }

    fn exists(&self, target: &str) -> bool {
        FolderVersions.exists(target)
    }

    fn all(&self, target: &str) -> Result<Vec<Version>> {
        FolderVersions.all(target)
    }

    fn takes_versions(&self, target: &str) -> Result<()> {
        FolderVersions.takes_versions(target)
    }

    fn work(&self, target: &str) -> Result<PathBuf> {
        FolderVersions.work(target)
    }

    fn turn(&self, target: &str) -> Result<Turn> {
        (self.turn)();
        FolderVersions.turn(target)
    }

    fn staging(&self, target: &str) -> Result<PathBuf> {
        (self.staging)();
        FolderVersions.staging(target)
    }

    fn publish(&self, target: &str, release: &Release<'_>) -> Result<String> {
        FolderVersions.publish(target, release)
    }

    fn changeable(&self, target: &str) -> Result<()> {
        FolderVersions.changeable(target)
    }

    fn withdraw(&self, target: &str, version: &Version) -> Result<()> {
        FolderVersions.withdraw(target, version)
    }
}

fn line(folder: &Path) -> PathBuf {
    let target = folder.join("line");
    updated(&target, &batch("first", 0.0), &When { init: Some("simple-cil"), ..LATER });
    target
}

fn forgotten(versions: &dyn Versions, target: &Path, id: &str) -> Result<ForgetReport> {
    let (target, ids, stop) = (target.display().to_string(), [id.to_string()], AtomicBool::new(false));
    let request = ForgetRequest {
        target: &target,
        ids: &ids,
        presented: None,
        policy: OnBadImage::Fail,
        key: None,
        time: 0,
        purge: false,
        memory_only: false,
    };
    forget(tiny(), versions, &request, Control::new(&Silent, &stop))
}

#[test]
fn while_a_version_is_put_together_no_other_looks_what_is_in_force() {
    let folder = tempfile::tempdir().expect("a folder");
    let target = line(folder.path());
    let (asks, asked) = mpsc::channel();
    let (stages, staged) = mpsc::channel();
    let second = RefCell::new(None);
    let begin = || {
        let (target, asks, stages) = (target.clone(), asks.clone(), stages.clone());
        // It opens the version in force, learns, and would be the next to publish.
        let learn = move || {
            let (turn, staging) = (|| asks.send(()).expect("heard"), || stages.send(()).expect("heard"));
            let versions = Before { turn: &turn, staging: &staging };
            let report = tried(&versions, &target, &batch("second", 0.0), (&LATER, &Silent));
            report.map(|report| report.version).map_err(|error| error.to_string())
        };
        *second.borrow_mut() = Some(std::thread::spawn(learn));
        asked.recv_timeout(SOON).expect("it comes to its turn");
        assert!(staged.recv_timeout(NEVER).is_err(), "two are past the look at what is in force");
    };
    let versions = Before { turn: &|| (), staging: &begin };
    let report = tried(&versions, &target, &batch("beside", 0.0), (&LATER, &Silent)).expect("an update");
    assert!(report.version.is_some_and(|version| version.ends_with("line/2")));
    let second = second.take().expect("it was begun").join().expect("no panic");
    let refused = second.expect_err("another version came first");
    assert!(refused.contains("line/2` was published while"), "{refused}");
    assert_eq!(held(&target, ["beside", "second"]), [4 * TRAIN, 0]);
}

#[test]
fn forgetting_undoes_nothing_that_was_published_while_it_was_at_work() {
    let folder = tempfile::tempdir().expect("a folder");
    let target = line(folder.path());
    let version = FolderVersions.open(&target.display().to_string()).expect("a version");
    let memory = version.memory(None).expect("reads").expect("a memory");
    let id = memory.samples().next().expect("a sample").id.clone();
    let learn = || {
        updated(&target, &batch("beside", 0.0), &LATER);
    };
    let versions = Before { turn: &learn, staging: &|| () };
    let error = forgotten(&versions, &target, &id).expect_err("another version came first").to_string();
    assert!(error.contains("line/2` was published while"), "{error}");
    assert_eq!(held(&target, ["first", "beside"]), [4 * TRAIN, 4 * TRAIN]);
    // Again, on top of that.
    let report = forgotten(&FolderVersions, &target, &id).expect("it is subtracted");
    assert_eq!((report.from_memory, report.samples), (1, (8 * TRAIN as u64, 8 * TRAIN as u64 - 1)));
    assert_eq!(held(&target, ["first", "beside"]), [4 * TRAIN - 1, 4 * TRAIN]);
}

#[test]
fn a_merge_undoes_nothing_that_was_published_at_its_output_while_it_was_at_work() {
    let folder = tempfile::tempdir().expect("a folder");
    let (target, other) = (line(folder.path()), folder.path().join("other"));
    updated(&other, &batch("other", 0.0), &When { init: Some("simple-cil"), ..LATER });
    let learn = || {
        updated(&target, &batch("beside", 0.0), &LATER);
    };
    let versions = Before { turn: &learn, staging: &|| () };
    let parts = [&target, &other].map(|part| part.display().to_string());
    let request = MergeRequest {
        parts: &parts,
        base: None,
        pooled: None,
        output: &parts[0],
        combination: &Combination::default(),
        key: None,
        time: 0,
    };
    let stop = AtomicBool::new(false);
    let error =
        merge(tiny(), &versions, &request, Control::new(&Silent, &stop)).expect_err("another version came first");
    assert!(error.to_string().contains("line/2` was published while"), "{error}");
    assert_eq!(held(&target, ["first", "beside"]), [4 * TRAIN, 4 * TRAIN]);
}
