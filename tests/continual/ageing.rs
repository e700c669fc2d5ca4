//! Versions along the time: what is too old is dropped by an update that is published, and one without a drift does
//! nothing but carry the state of its tests on.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use inarch_continual::{FolderVersions, Result, UpdateRecipe, UpdateReport, UpdateRequest, Versions, update};
use inarch_core::Seed;
use inarch_core::data::{DataOptions, Dataset, Split};
use inarch_core::image::OnBadImage;
use inarch_recipes::{Control, Progress, Silent};
use serde_json::{Value, json};

use crate::support::{FeatureRow, classes, feature_dataset, tiny};

const DAY: u64 = 24 * 60 * 60;
/// Samples of a class to learn, and to be judged by.
pub(super) const TRAIN: usize = 24;
pub(super) const TEST: usize = 12;

/// Samples of four classes around centres that all batches share, moved by `shift`.
pub(super) fn batch(name: &str, shift: f32) -> Dataset {
    let dim = tiny().spec().dim;
    let rows = (0..4).flat_map(|label| {
        let centre = Seed::new(100 + label as u64).normals(dim, 1.0);
        (0..TRAIN + TEST).map(move |at| {
            let id = format!("{label}/{at}");
            let noise = Seed::new(7).split(name).split(&id).normals(dim, 0.7);
            let values = centre.iter().zip(noise).map(|(centre, noise)| centre + noise + shift).collect();
            FeatureRow { id, label, split: if at < TRAIN { Split::Train } else { Split::Test }, values }
        })
    });
    feature_dataset(name, classes(), rows)
}

/// What an update is told beside its data.
pub(super) struct When<'a> {
    pub(super) day: u64,
    pub(super) init: Option<&'a str>,
    pub(super) if_drift: bool,
    pub(super) state: Option<&'a Path>,
    pub(super) settings: &'a [&'a str],
}

pub(super) const LATER: When<'static> = When { day: 0, init: None, if_drift: false, state: None, settings: &[] };

pub(super) fn updated(target: &Path, dataset: &Dataset, when: &When<'_>) -> UpdateReport {
    tried(&FolderVersions, target, dataset, (when, &Silent)).expect("an update")
}

pub(super) fn tried(
    versions: &dyn Versions,
    target: &Path,
    dataset: &Dataset,
    (when, progress): (&When<'_>, &dyn Progress),
) -> Result<UpdateReport> {
    let lenient = ["gate.class_drop=1.0", "gate.accuracy_drop=1.0", "gate.negative_flips=1.0"];
    let settings: Vec<String> = lenient.iter().chain(when.settings).map(ToString::to_string).collect();
    let recipe = UpdateRecipe::read("", "test", &settings).expect("valid settings");
    let (target, stop) = (target.display().to_string(), AtomicBool::new(false));
    let request = UpdateRequest {
        target: &target,
        output: None,
        init: when.init,
        dataset,
        options: &DataOptions::default(),
        probes: &[],
        zero_shot: &[],
        recipe: &recipe,
        key: None,
        time: when.day * DAY,
        if_drift: when.if_drift,
        drift_state: when.state,
        policy: OnBadImage::Fail,
    };
    update(tiny(), versions, &request, Control::new(progress, &stop))
}

/// How many samples the memory of the version in force holds of each of two batches.
pub(super) fn held(target: &Path, batches: [&str; 2]) -> [usize; 2] {
    let version = FolderVersions.open(&target.display().to_string()).expect("a version");
    let memory = version.memory(None).expect("reads").expect("a memory");
    batches.map(|batch| memory.samples().filter(|sample| sample.source == batch).count())
}

#[test]
fn samples_that_are_too_old_are_dropped_by_an_update_that_is_published() {
    let folder = tempfile::tempdir().expect("a folder");
    let target = folder.path().join("line");
    let first = When { day: 100, init: Some("simple-cil"), settings: &["memory.most_days=30"], ..LATER };
    assert_eq!(updated(&target, &batch("first", 0.0), &first).expired, 0);
    let second = updated(&target, &batch("second", 0.0), &When { day: 120, ..LATER });
    assert_eq!((second.expired, second.version.is_some()), (0, true));
    assert_eq!(held(&target, ["first", "second"]), [4 * TRAIN, 4 * TRAIN]);
    // The first are too old now, but an update that is refused drops nothing.
    let refused = When { day: 131, settings: &["gate.most_bytes=1"], ..LATER };
    let report = updated(&target, &batch("third", 0.0), &refused);
    assert_eq!((report.expired, report.version), (4 * TRAIN, None));
    assert_eq!(held(&target, ["first", "second"]), [4 * TRAIN, 4 * TRAIN]);
    let third = updated(&target, &batch("third", 0.0), &When { day: 131, ..LATER });
    assert_eq!((third.expired, third.version.is_some()), (4 * TRAIN, true));
    assert_eq!(held(&target, ["first", "second"]), [0, 4 * TRAIN]);
    assert_eq!(held(&target, ["second", "third"]), [4 * TRAIN, 4 * TRAIN]);
}

/// Publishes another version of a target, once, when an update of it tells that settings are left out.
struct Beside<'a> {
    target: &'a Path,
    is_done: AtomicBool,
}

impl Progress for Beside<'_> {
    fn say(&self, line: &str) {
        if line.starts_with("left out") && !self.is_done.swap(true, Ordering::Relaxed) {
            updated(self.target, &batch("beside", 0.0), &LATER);
        }
    }
}

#[test]
fn an_update_undoes_nothing_that_was_published_while_it_was_at_work() {
    let folder = tempfile::tempdir().expect("a folder");
    let target = folder.path().join("line");
    updated(&target, &batch("first", 0.0), &When { init: Some("simple-cil"), ..LATER });
    let beside = Beside { target: &target, is_done: AtomicBool::new(false) };
    let told = When { settings: &["memory.seed=9"], ..LATER };
    let error = tried(&FolderVersions, &target, &batch("second", 0.0), (&told, &beside));
    let error = error.expect_err("another version came first");
    let error = error.to_string();
    assert!(beside.is_done.load(Ordering::Relaxed) && error.contains("was published while"), "{error}");
    assert_eq!(held(&target, ["beside", "second"]), [4 * TRAIN, 0]);
    // Again, on top of that.
    let again = tried(&FolderVersions, &target, &batch("second", 0.0), (&told, &beside)).expect("an update");
    assert!(again.version.is_some());
    assert_eq!(held(&target, ["beside", "second"]), [4 * TRAIN, 4 * TRAIN]);
}

#[test]
fn what_is_held_out_to_judge_by_is_not_learned_under_another_split_or_name() {
    learned_or_held_out(&[]);
}

#[test]
fn nor_is_it_where_the_memory_and_the_probe_round_otherwise() {
    for (memory, probe) in [("f16", "int8"), ("int8", "f32")] {
        let settings = [format!("memory.precision=\"{memory}\""), format!("probe.precision=\"{probe}\"")];
        learned_or_held_out(&settings.each_ref().map(String::as_str));
    }
}

fn learned_or_held_out(settings: &[&str]) {
    let folder = tempfile::tempdir().expect("a folder");
    let target = folder.path().join("line");
    let first = batch("first", 0.0);
    updated(&target, &first, &When { day: 1, init: Some("simple-cil"), settings, ..LATER });
    let mut other = Dataset { name: "other".into(), ..first.clone() };
    other.train.extend(other.test.split_off(4));
    let report = updated(&target, &other, &When { day: 2, ..LATER });
    assert_eq!((report.learned, report.known), (4 * TRAIN, 4 * TEST - 4));

    // Nor is judged by what was learned: half of it is learned first, and held out when the rest comes.
    let target = folder.path().join("halves");
    let half: Vec<_> = first.train.iter().step_by(2).cloned().collect();
    let start = Dataset { train: half.clone(), ..first.clone() };
    updated(&target, &start, &When { day: 1, init: Some("simple-cil"), settings, ..LATER });
    let report = updated(&target, &Dataset { test: half.clone(), ..first.clone() }, &When { day: 2, ..LATER });
    assert_eq!((report.learned, report.known, report.held_out), (2 * TRAIN, 2 * TRAIN, 0));
    // Nor under another name, by which it would be learned again.
    let renamed = Dataset { name: "renamed".into(), test: half, ..first };
    let report = updated(&target, &renamed, &When { day: 3, ..LATER });
    assert_eq!((report.learned, report.held_out), (4 * TRAIN, 0));
}

#[test]
fn a_drift_triggers_an_update_and_more_of_the_same_does_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let target = folder.path().join("line");
    updated(&target, &batch("first", 0.0), &When { day: 1, init: Some("simple-cil"), ..LATER });
    let asked = When { day: 2, if_drift: true, ..LATER };
    let same = updated(&target, &batch("same", 0.0), &asked);
    assert!(same.drift.is_some_and(|drift| !drift.drifted), "{:?}", same.drift);
    assert_eq!((same.version, same.learned), (None, 0));
    assert_eq!(held(&target, ["first", "same"]), [4 * TRAIN, 0]);
    let moved = updated(&target, &batch("moved", 2.0), &asked);
    assert!(moved.drift.is_some_and(|drift| drift.drifted), "{:?}", moved.drift);
    assert_eq!((moved.version.is_some(), moved.learned), (true, 4 * TRAIN));
    assert_eq!(held(&target, ["first", "moved"]), [4 * TRAIN, 4 * TRAIN]);
}

#[test]
fn what_earlier_batches_left_triggers_an_update_and_one_that_is_published_begins_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let (target, state) = (folder.path().join("line"), folder.path().join("drift.json"));
    let read = || -> Value { serde_json::from_slice(&std::fs::read(&state).expect("a state")).expect("JSON") };
    let first = When { day: 1, init: Some("simple-cil"), state: Some(&state), ..LATER };
    updated(&target, &batch("first", 0.0), &first);
    let begun = read();
    assert_eq!(begun["batches"], 0);
    let asked = When { day: 2, if_drift: true, state: Some(&state), ..LATER };
    let same = updated(&target, &batch("same", 0.0), &asked);
    assert!(same.drift.is_some_and(|drift| !drift.drifted) && same.version.is_none(), "{:?}", same.drift);
    let mut passed = read();
    assert_eq!((passed["batches"].as_u64(), &passed["memory"]), (Some(1), &begun["memory"]));
    assert!(!passed["window"]["buckets"].as_array().expect("a list").is_empty());

    // The gate says no: the drift has not been answered, and the state stays as it was.
    let refused = When { settings: &["gate.most_bytes=1"], ..asked };
    let moved = updated(&target, &batch("moved", 2.0), &refused);
    assert!(moved.drift.is_some_and(|drift| drift.drifted) && moved.version.is_none());
    assert_eq!(read(), passed);

    // Batches before came as near to the mean as can be: to them the same batch is a change.
    passed["window"]["buckets"] = json!(vec![(64, 0, 0); 5]);
    std::fs::write(&state, passed.to_string()).expect("writes");
    let again = updated(&target, &batch("same", 0.0), &asked);
    assert!(again.drift.is_some_and(|drift| drift.adwin) && again.version.is_some(), "{:?}", again.drift);
    let renewed = read();
    assert_eq!((&renewed["batches"], &renewed["window"]["buckets"]), (&json!(0), &json!([])));
    assert_ne!(renewed["memory"], begun["memory"]);
}
