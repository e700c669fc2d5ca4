//! Strategies on a stream of features that needs no images: each learns, and each does what it is for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use inarch_continual::{Arrival, GradientConfig, LearnerConfig, MemoryConfig, Setting, StreamRecipe, run_stream};
use inarch_core::Seed;
use inarch_core::checkpoint::read_safetensors;
use inarch_core::data::{Dataset, Example, Split};
use inarch_core::image::OnBadImage;
use inarch_recipes::{Control, Progress, Session, Silent, Subset};

use crate::support::{FeatureRow, close, feature_dataset, tiny};

/// Features of four classes around four centres, 24 of each to learn and 12 to test.
pub(super) fn dataset() -> Dataset {
    let dim = tiny().spec().dim;
    let names: Vec<String> = ["cat", "dog", "red hat", "x ray"].map(String::from).into();
    let rows = (0..names.len()).flat_map(|label| {
        let centre = Seed::new(100 + label as u64).normals(dim, 1.0);
        (0..36).map(move |at| {
            let id = format!("{label}/{at}");
            let noise = Seed::new(7).split(&id).normals(dim, 1.4);
            let values = centre.iter().zip(noise).map(|(centre, noise)| centre + noise).collect();
            FeatureRow { id, label, split: if at < 24 { Split::Train } else { Split::Test }, values }
        })
    });
    feature_dataset("blobs", names, rows)
}

/// Strategies by name, or with none those of the settings.
fn protocol(strategies: &[&str], settings: &[&str]) -> inarch_continual::Protocol {
    let settings: Vec<String> = settings.iter().map(ToString::to_string).collect();
    let mut recipe = StreamRecipe::read("", "test", &settings).expect("valid settings");
    if !strategies.is_empty() {
        recipe.choose(&strategies.iter().map(ToString::to_string).collect::<Vec<_>>());
    }
    for table in &mut recipe.strategy {
        if ["ranpac", "acil", "rail"].contains(&table["name"].as_str().unwrap_or_default()) {
            table.insert("projections".into(), toml::Value::Integer(60));
        }
    }
    recipe.protocol().expect("valid settings")
}

pub(super) fn run(strategies: &[&str], settings: &[&str], folder: &Path) -> inarch_continual::StreamReport {
    run_on(&dataset(), strategies, settings, folder)
}

pub(super) fn run_on(
    dataset: &Dataset,
    strategies: &[&str],
    settings: &[&str],
    folder: &Path,
) -> inarch_continual::StreamReport {
    let protocol = protocol(strategies, settings);
    let stop = AtomicBool::new(false);
    let control = Control::new(&Silent, &stop);
    run_stream(tiny(), std::slice::from_ref(dataset), &protocol, OnBadImage::Fail, folder, control).expect("runs")
}

/// Strategies that change a tower; they are in `branches`, in `experts`, in `prompts` and in `e2e/strategies.rs`.
const IN_A_TOWER: &[&str] =
    &["o-lora", "inflora", "sd-lora", "moe-adapters", "s-prompts", "l2p", "dual-prompt", "coda-prompt"];

/// All strategies that work on features.
fn on_features() -> Vec<String> {
    LearnerConfig::names().into_iter().filter(|name| !IN_A_TOWER.contains(&name.as_str())).collect()
}

/// Asks a run to stop after so many steps.
struct StopAfter<'a> {
    steps: AtomicI64,
    stop: &'a AtomicBool,
}

impl Progress for StopAfter<'_> {
    fn advance(&self, units: u64, _note: &str) {
        if units == 1 && self.steps.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

/// Runs a stream of two experiences and keeps what each left: `NAME/seed-1/after-1` and `after-2`. A run keeps only the last, so it is
/// stopped once in between.
pub(super) fn run_keeping_both(dataset: &Dataset, strategies: &[&str], settings: &[&str], folder: &Path) {
    for name in strategies {
        let protocol = protocol(&[], &[settings, &[&format!("strategy=[{name}]")]].concat());
        let stop = AtomicBool::new(false);
        let progress = StopAfter { steps: AtomicI64::new(75), stop: &stop };
        let control = Control::new(&progress, &stop);
        let data = std::slice::from_ref(dataset);
        let stopped = run_stream(tiny(), data, &protocol, OnBadImage::Fail, folder, control);
        assert!(matches!(
            stopped,
            Err(inarch_continual::Error::Recipe(inarch_recipes::Error::Interrupted { step: 1..60, .. }))
        ));
        let of_seed = folder.join(protocol.strategies[0].name()).join("seed-1");
        let kept = tempfile::tempdir().expect("a folder");
        copy(&of_seed.join("after-1"), kept.path());
        run_on(dataset, &[], &[settings, &[&format!("strategy=[{name}]")]].concat(), folder);
        copy(kept.path(), &of_seed.join("after-1"));
    }
}

/// A folder with all that is in it.
pub(super) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("creates");
    for path in inarch_core::file::list(from).expect("a folder") {
        let into = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &into);
        } else {
            std::fs::copy(&path, &into).expect("copies");
        }
    }
}

/// Every file of the last state of every strategy, by its path.
pub(super) fn states(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fn collect(folder: &Path, into: &mut BTreeMap<PathBuf, Vec<u8>>, root: &Path) {
        for path in inarch_core::file::list(folder).expect("a folder") {
            if path.is_dir() {
                collect(&path, into, root);
            } else if path.components().any(|part| part.as_os_str() == "after-2") {
                let name = path.strip_prefix(root).expect("inside").to_path_buf();
                into.insert(name, std::fs::read(&path).expect("a file"));
            }
        }
    }
    let mut found = BTreeMap::new();
    collect(folder, &mut found, folder);
    found
}

#[test]
fn every_strategy_that_is_stopped_anywhere_ends_in_the_bytes_of_one_that_was_not() {
    let names = on_features();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    ends_alike_when_stopped(&dataset(), &names, &[]);
}

#[test]
fn every_strategy_that_is_stopped_anywhere_online_ends_in_the_bytes_of_one_that_was_not() {
    let names = on_features();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    // An experience of four chunks, each a training by itself.
    ends_alike_when_stopped(&dataset(), &names, &["stream.chunk=12", "fit.train.batch=4"]);
}

/// Learns two experiences in chunks; returns the folder of what is left after each.
fn in_chunks(strategy: &str, folder: &Path) -> [PathBuf; 2] {
    learned(strategy, (Some(12), 1), folder)
}

/// Learns two experiences, whole or in chunks, the second so many seconds after the first.
fn learned(strategy: &str, (chunk, seconds): (Option<usize>, u64), folder: &Path) -> [PathBuf; 2] {
    let (dataset, stop) = (dataset(), AtomicBool::new(false));
    let control = Control::new(&Silent, &stop);
    let session = Session::new(tiny(), &dataset, Subset::All, OnBadImage::Fail, control).expect("four classes");
    let recipe = protocol(&["naive"], SETTINGS).fit;
    let templates = recipe.templates.resolve().expect("templates");
    let setting = Setting { session: &session, templates: &templates, seed: 1 };
    let config = LearnerConfig::read(&toml::from_str(strategy).expect("TOML")).expect("a strategy");
    let mut learner = config.build(&recipe, MemoryConfig::default());
    [0, 1].map(|index| {
        let own = |example: &&Example| example.label / 2 == index;
        let train: Vec<Example> = dataset.train.iter().filter(own).cloned().collect();
        let arrival = Arrival {
            index,
            classes: &dataset.classes[..2 * (index + 1)],
            train: &train,
            earlier: &[],
            source: "blobs",
            time: index as u64 * seconds,
            chunk,
        };
        learner.learn(&arrival, &setting, &folder.join("training")).expect("it learns");
        let state = folder.join(format!("after-{index}"));
        learner.save(&state).expect("it is saved");
        state
    })
}

#[test]
fn what_was_learned_before_does_not_fade_with_the_chunks_of_an_experience() {
    for name in ["ewc", "online-ewc", "si", "mas"] {
        let folder = tempfile::tempdir().expect("a folder");
        // EWC and online EWC add up, the others are the mean of two experiences.
        let left: f32 = if name.ends_with("ewc") { 1.0 } else { 0.5 };
        let [before, after] = in_chunks(&format!("name = {name:?}"), folder.path())
            .map(|state| read_safetensors(&state.join("strategy-importance.safetensors")).expect("importances").0);
        for (parameter, before) in &before {
            let greatest = before.data.iter().copied().fold(0.0f32, f32::max);
            let held = before.data.iter().zip(&after[parameter].data).all(|(before, after)| *after >= left * *before);
            assert!(greatest > 0.0 && held, "{name} {parameter}");
        }
    }
    // As many changes as there were experiences.
    let folder = tempfile::tempdir().expect("a folder");
    let changes = in_chunks("name = \"ties\"", folder.path()).map(|state| {
        let files = inarch_core::file::list(&state).expect("a state").into_iter();
        files.filter(|path| path.display().to_string().contains("strategy-change-")).count()
    });
    assert_eq!(changes, [1, 2]);
}

#[test]
fn the_past_is_what_came_before_the_experience_whenever_that_was() {
    let adapter = |strategy: &str, arrival: (Option<usize>, u64), experience: usize| {
        let folder = tempfile::tempdir().expect("a folder");
        let states = learned(&format!("name = {strategy:?}"), arrival, folder.path());
        let path = states[experience].join("adapter.safetensors");
        let (parameters, _) = read_safetensors(&path).expect("what goes on");
        parameters.into_values().flat_map(|tensor| tensor.data).collect::<Vec<f32>>()
    };
    let naive = adapter("naive", (Some(12), 1), 0);
    for name in ["a-gem", "gem", "mir"] {
        // The chunks of the first experience have none.
        close(name, &adapter(name, (Some(12), 1), 0), &naive, 1e-5);
        // An update within a second of the one before.
        assert!(adapter(name, (None, 0), 1) == adapter(name, (None, 1), 1), "{name}");
    }
    assert!(adapter("mir", (None, 0), 1) != adapter("naive", (None, 0), 1));
}

/// Runs strategies as a whole and in pieces; by name, unless the settings list them.
pub(super) fn ends_alike_when_stopped(dataset: &Dataset, names: &[&str], settings: &[&str]) {
    let settings = [SETTINGS, &["fit.train.budget={ iterations = 24 }"], settings].concat();
    let [whole, parts] = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let chosen = if settings.iter().any(|setting| setting.starts_with("strategy=")) { &[] } else { names };
    run_on(dataset, chosen, &settings, whole.path());
    let protocol = protocol(chosen, &settings);
    let mut stops = 0;
    loop {
        let stop = AtomicBool::new(false);
        // Not a multiple of a training's length, so that stops fall everywhere in it.
        let progress = StopAfter { steps: AtomicI64::new(17), stop: &stop };
        let control = Control::new(&progress, &stop);
        match run_stream(tiny(), std::slice::from_ref(dataset), &protocol, OnBadImage::Fail, parts.path(), control) {
            Ok(_) => break,
            Err(inarch_continual::Error::Recipe(inarch_recipes::Error::Interrupted { .. })) => stops += 1,
            Err(error) => panic!("{error}"),
        }
        assert!(stops < 1000, "it never ends");
    }
    assert!(stops > names.len(), "{stops} stops");
    let (whole, parts) = (states(whole.path()), states(parts.path()));
    let adapters = whole.keys().filter(|path| path.ends_with("adapter/adapter.safetensors")).count();
    assert_eq!(adapters, names.len());
    assert_eq!(whole.keys().collect::<Vec<_>>(), parts.keys().collect::<Vec<_>>());
    for (path, bytes) in &whole {
        assert!(parts[path] == *bytes, "`{}` differs", path.display());
    }
}

pub(super) const SETTINGS: &[&str] = &[
    "seeds=[1]",
    "stream.experiences=2",
    "fit.train.budget={ iterations = 60 }",
    "fit.train.batch=16",
    "fit.train.optimizer={ name = \"sgd\", lr = 0.05, momentum = 0.9, weight_decay = 0.0 }",
    "memory.budget_bytes=8192",
];

pub(super) fn last(report: &inarch_continual::StreamReport, name: &str) -> f64 {
    let strategy = report.strategies.iter().find(|strategy| strategy.name == name);
    strategy.unwrap_or_else(|| panic!("{name} is missing")).last.mean
}

#[test]
fn every_strategy_learns_a_stream_and_rehearsal_beats_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let names = on_features();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let report = run(&names, SETTINGS, folder.path());
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    let (joint, naive) = (last(&report, "joint"), last(&report, "naive"));
    assert!(joint > 0.9 && naive < joint, "joint {joint}, naive {naive}");
    assert_eq!(report.strategies.len(), names.len());
    for strategy in &report.strategies {
        // Each learns what comes first, and whatever it forgets answers better than by chance in the end.
        let (first, found) = (strategy.seeds[0].seen[0], strategy.last.mean);
        assert!(first > 0.75 && found > 0.25, "{}: {first} of two classes, {found} of four", strategy.name);
    }
    // Those that cannot forget, and those that remember.
    for name in [
        "simple-cil",
        "ranpac",
        "rail",
        "rail-dual",
        "fecam",
        "nme",
        "er",
        "gdumb",
        "mir",
        "gss-greedy",
        "bic",
        "icarl",
        "slca",
    ] {
        let found = last(&report, name);
        assert!(found >= joint - 0.25, "{name}: {found}, joint {joint}");
    }
    for name in ["er-ace", "der-plus-plus", "ewc", "lwf", "gem"] {
        let found = last(&report, name);
        assert!(found >= naive - 0.05, "{name}: {found}, naive {naive}");
    }
    // Run again it does nothing and says the same.
    let again = run(&names, SETTINGS, folder.path());
    let text = |report: &inarch_continual::StreamReport| {
        let mut value = serde_json::to_value(report).expect("plain");
        value.as_object_mut().expect("an object").remove("peak_memory_bytes").expect("that of the process");
        value
    };
    assert_eq!(text(&again), text(&report));
    assert!(folder.path().join("report.html").is_file());
}

#[test]
fn streams_of_every_kind_run_online_and_blurry() {
    for kind in ["class-incremental", "task-incremental", "blurry", "x-tail"] {
        let folder = tempfile::tempdir().expect("a folder");
        let kind_setting = format!("stream.kind=\"{kind}\"");
        let settings = [SETTINGS, &[&kind_setting, "stream.chunk=12", "stream.blur=0.2"]].concat();
        let report = run(&["rail", "er"], &settings, folder.path());
        assert!(last(&report, "rail") > 0.7, "{kind}: rail {}", last(&report, "rail"));
        // By chance it would be one of two classes, or of four.
        let chance = if kind == "task-incremental" { 0.5 } else { 0.25 };
        assert!(last(&report, "er") > chance, "{kind}: er {}", last(&report, "er"));
    }
}

#[test]
fn what_a_run_says_about_unequal_classes_holds_beside_what_is_rehearsed() {
    let mut data = dataset();
    // Classes of one size come first, where weights change nothing; then one of 24 and one of 6.
    let mut few = 0;
    data.train.retain(|example| {
        few += usize::from(example.label == 3);
        example.label != 3 || few <= 6
    });
    let names = ["er", "er-ace", "der", "der-plus-plus", "a-gem", "gem", "mir", "slca"];
    let left = |imbalance: &[&str]| {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = [SETTINGS, &["stream.order=\"given\""], imbalance].concat();
        let report = run_on(&data, &names, &settings, folder.path());
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        names.map(|name| {
            let path = folder.path().join(name).join("seed-1/after-2/adapter.safetensors");
            read_safetensors(&path).expect("what goes on").0
        })
    };
    let (alike, weighted) = (left(&[]), left(&["fit.train.imbalance=\"class-weights\""]));
    for ((name, alike), weighted) in names.iter().zip(&alike).zip(&weighted) {
        let same = alike.iter().all(|(parameter, tensor)| tensor.data == weighted[parameter].data);
        assert!(!same, "`{name}` does not mind `train.imbalance`");
    }
}

#[test]
fn a_memory_that_asks_for_losses_is_filled_by_what_trains_on_it_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = [SETTINGS, &["memory.sampler=\"loss-aware\""]].concat();
    let report = run(&["gdumb", "er"], &settings, folder.path());
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    for name in ["gdumb", "er"] {
        assert!(last(&report, name) > 0.25, "{name}: {}", last(&report, name));
    }
}

#[test]
fn an_analytic_head_ends_alike_whatever_the_parts() {
    let parts = |experiences: &str| {
        let folder = tempfile::tempdir().expect("a folder");
        let setting = format!("stream.experiences={experiences}");
        let report = run(&["ranpac", "rail"], &[SETTINGS, &[&setting]].concat(), folder.path());
        ["ranpac", "rail"].map(|name| last(&report, name))
    };
    assert_eq!(parts("1"), parts("4"));
}

#[test]
fn settings_of_strategies_are_read() {
    let table = toml::from_str("name = \"der-plus-plus\"\nalpha = 0.7").expect("TOML");
    let LearnerConfig::Gradient(GradientConfig::DerPlusPlus { alpha, .. }) =
        LearnerConfig::read(&table).expect("valid")
    else {
        panic!("another strategy")
    };
    assert!((alpha - 0.7).abs() < 1e-12);
}
