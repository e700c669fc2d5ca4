//! Strategies on a stream of five times two MNIST digits have, after every experience, the values and the right answers of the same
//! strategies in PyTorch, and heads in closed form those of the papers' recursions; `generate.py` beside this file wrote all of it.

mod alignment;
mod frozen_teacher;
mod order;
mod zero_shot;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;

use inarch_continual::{
    Arrival, Fingerprint, Learner, LearnerConfig, Memory, MemoryConfig, Precision, Sample, Setting,
};
use inarch_core::backbone::HostTensor;
use inarch_core::checkpoint::read_safetensors;
use inarch_core::data::{Dataset, Example, Split};
use inarch_core::image::OnBadImage;
use inarch_peft::Parameters;
use inarch_recipes::{Control, Recipe, RecipeLayers, Session, Silent, Subset};
use tempfile::TempDir;

use self::order::Order;
use crate::support::{FeatureRow, close, feature_dataset, fixture, tiny};

const EXPERIENCES: usize = 5;
/// Classes of an experience, and examples of a class to learn and to test.
const CLASSES: usize = 2;
const TRAIN: usize = 20;
const TEST: usize = 10;
/// Length of a feature, and number of random ones.
const DIM: usize = 24;
const PROJECTIONS: usize = 24;
const SEED: u64 = 7;
const STEPS: usize = 40;
const BATCH: usize = 10;
/// The generator's rate.
pub(super) const RATE: f64 = 0.2;
/// Samples that MIR chooses from.
const CANDIDATES: usize = 14;
/// Share of all samples that BiC holds out.
const HELD_OUT: f64 = 0.25;
/// Samples of a memory that is small.
const CAPACITY: usize = 40;
/// What encryption would add to a memory; its budget has room for that.
const OVERHEAD: u64 = 48;
/// What the digits are called, and the words in their place where words matter: those of `words.py`.
const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
const WORDS: [&str; 10] = ["brush", "seal", "fan", "snail", "crate", "zebra", "cherry", "chair", "potato", "rug"];

/// Strategies with the generator's settings. DER's weight is for scores of a logit scale of 10, and the generator's scores have none.
fn strategies() -> Vec<String> {
    let alpha = 0.3 * (f64::from(tiny().logit_scale()) / 10.0).powi(2);
    let random = format!("projections = {PROJECTIONS}");
    [
        "name = \"naive\"",
        "name = \"ewc\"\nweight = 50.0",
        "name = \"online-ewc\"\nweight = 50.0\ndecay = 0.9",
        "name = \"si\"\nweight = 0.5\ndamping = 1e-3",
        "name = \"mas\"\nweight = 0.5",
        "name = \"lwf\"\nweight = 4.0\ntemperature = 2.0",
        "name = \"er\"\nreplay = 8",
        "name = \"er-ace\"\nreplay = 8",
        "name = \"a-gem\"\nreplay = 8",
        "name = \"gem\"\nreplay = 40\nmargin = 0.5",
        &format!("name = \"der\"\nreplay = 8\nalpha = {alpha:?}"),
        &format!("name = \"der-plus-plus\"\nreplay = 8\nalpha = {alpha:?}\nbeta = 0.5"),
        &format!("name = \"mir\"\nreplay = 4\ncandidates = {CANDIDATES}"),
        &format!("name = \"bic\"\nreplay = 8\ntemperature = 2.0\nheld_out = {HELD_OUT:?}\nhold = 1e-3"),
        "name = \"wise-ft\"\nshare = 0.6",
        "name = \"ema\"\ndecay = 0.9",
        "name = \"magmax\"",
        "name = \"ties\"\ndensity = 0.32",
        "name = \"gss-greedy\"\nreplay = 8\ncompare = 10",
        "name = \"icarl\"\nreplay = 8\nweight = 1.0\ntemperature = 2.0",
        "name = \"gdumb\"",
        "name = \"nme\"",
        "name = \"simple-cil\"",
        &format!("name = \"ranpac\"\n{random}"),
        &format!("name = \"acil\"\n{random}\nlambda = 0.1"),
        &format!("name = \"rail\"\n{random}\nlambda = 0.1\nprior = false"),
        "name = \"rail-dual\"\nlambda = 1e-3\ngamma = 1.0",
        "name = \"fecam\"",
    ]
    .map(str::to_string)
    .into()
}

/// Strategies whose memory has room for [`CAPACITY`] samples; that of others holds everything.
const SMALL: [&str; 4] = ["gss-greedy", "icarl", "gdumb", "nme"];

/// Strategies of whose heads the last ones are compared: earlier ones are parts of these.
const GROWING: [&str; 2] = ["rail-dual", "fecam"];

/// A part of heads in closed form that is drawn and not solved.
const PROJECTION: &str = "projection.fixed";

/// The id of an example that is learned.
fn name(example: usize) -> String {
    format!("train/{example:03}")
}

/// The digits under some names: those to learn first, class by class, so that the memory's order by id is the order of arrival.
fn digits(names: [&str; 10]) -> Dataset {
    let (tensors, _) = read_safetensors(&fixture("continual/split_digits/features.safetensors")).expect("a fixture");
    assert_eq!(tiny().spec().dim, DIM);
    let parts = [("train", TRAIN, Split::Train), ("test", TEST, Split::Test)];
    let rows = parts.into_iter().flat_map(|(name, count, split)| {
        let values = &tensors[name].data;
        assert_eq!(values.len(), 10 * count * DIM);
        values.chunks_exact(DIM).enumerate().map(move |(at, values)| FeatureRow {
            id: format!("{name}/{at:03}"),
            label: at / count,
            split,
            values: values.to_vec(),
        })
    });
    feature_dataset("split digits", names.map(String::from).into(), rows)
}

/// A method by SGD at a constant rate.
pub(super) fn recipe(method: &str, settings: &[&str]) -> Recipe {
    let mut layers = RecipeLayers::preset(method, false).expect("a preset");
    // Rates of SGD are given for a logit scale of 100.
    let rate = RATE * f64::from(tiny().logit_scale().clamp(1.0, 100.0)) / 100.0;
    let optimizer = format!("train.optimizer={{ name = \"sgd\", lr = {rate:?}, momentum = 0.9, weight_decay = 0.0 }}");
    let budget = format!("train.budget={{ iterations = {STEPS} }}");
    let batch = format!("train.batch={BATCH}");
    let own: [&str; 5] = [&optimizer, &budget, &batch, "train.schedule=\"constant\"", "views=1"];
    for assignment in own.iter().chain(settings) {
        layers.set(assignment).expect("a setting");
    }
    layers.finish().expect("a recipe")
}

/// Learns experience after experience, and shows what has been learned after each.
fn go_through(learner: &mut dyn Learner, setting: &Setting<'_>, look: &mut dyn FnMut(usize, &dyn Learner)) {
    let folder = tempfile::tempdir().expect("a folder");
    let dataset = setting.session.dataset();
    for experience in 0..EXPERIENCES {
        let arrival = Arrival {
            index: experience,
            classes: &dataset.classes[..CLASSES * (experience + 1)],
            train: &dataset.train[CLASSES * TRAIN * experience..][..CLASSES * TRAIN],
            earlier: &[],
            source: "digits",
            time: experience as u64,
            chunk: None,
        };
        learner.learn(&arrival, setting, folder.path()).expect("it learns");
        look(experience, learner);
    }
}

/// What a learner writes to go on from.
pub(super) fn saved(learner: &dyn Learner) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    learner.save(folder.path()).expect("it is saved");
    folder
}

/// The tensors of one file of it.
pub(super) fn tensors_of(folder: &TempDir, name: &str) -> Parameters {
    read_safetensors(&folder.path().join(format!("{name}.safetensors"))).expect("tensors").0
}

/// Right answers among the test digits of each experience so far.
fn right_of(scores: &[f32], classes: usize, dataset: &Dataset) -> Vec<usize> {
    let answer = |row: &[f32]| (0..row.len()).max_by(|left, right| row[*left].total_cmp(&row[*right]));
    let hits: Vec<bool> =
        scores.chunks(classes).zip(&dataset.test).map(|(row, example)| answer(row) == Some(example.label)).collect();
    hits.chunks(CLASSES * TEST).map(|hits| hits.iter().filter(|hit| **hit).count()).collect()
}

/// The budget of a memory for [`CAPACITY`] of these samples and the names of all classes: room that is left while fewer classes are known
/// is less than a sample takes.
fn small(dataset: &Dataset) -> u64 {
    let features = dataset.features.as_deref().expect("features");
    let sample = |(at, example): (usize, &Example)| Sample {
        id: example.id.clone(),
        class: dataset.classes[example.label].clone(),
        source: "digits".into(),
        time: 0,
        weight: 1.0,
        latent: features.values[at * DIM..(at + 1) * DIM].to_vec(),
        views: Vec::new(),
        image: None,
        scores: Vec::new(),
    };
    let config = MemoryConfig { budget_bytes: 99_999, precision: Precision::F32, ..MemoryConfig::default() };
    let mut memory = Memory::new(config, Fingerprint::of(tiny(), None)).expect("a memory");
    memory.offer(dataset.train.iter().enumerate().map(sample)).expect("samples");
    let (count, bytes) = (memory.len() as u64, memory.bytes());
    assert_eq!(count as usize, dataset.train.len());
    memory.remove(&[name(0)]);
    let one = bytes - memory.bytes();
    bytes - count * one + CAPACITY as u64 * one + OVERHEAD
}

/// Every expected tensor under a name is found, and equal.
#[track_caller]
fn held_to(what: &str, found: &Parameters, expected: &BTreeMap<String, HostTensor>) {
    let prefix = format!("{what}.");
    let own: Vec<(&str, &HostTensor)> = expected
        .iter()
        .filter_map(|(name, tensor)| Some((name.strip_prefix(&prefix)?, tensor)))
        .filter(|(part, _)| !part.starts_with("trained."))
        .collect();
    let names: BTreeSet<&str> = found.keys().map(String::as_str).filter(|name| *name != PROJECTION).collect();
    assert_eq!(own.iter().map(|(part, _)| *part).collect::<BTreeSet<&str>>(), names, "{what}");
    for (part, own) in own {
        let tensor = &found[part];
        assert_eq!(tensor.shape, own.shape, "{what} {part}");
        if own.data.iter().all(|value| *value == 0.0) {
            assert_eq!(tensor.data, own.data, "{what} {part}");
        } else {
            close(&format!("{what} {part}"), &tensor.data, &own.data, 2e-4);
        }
    }
}

#[test]
fn the_draws_are_those_of_the_generator() {
    let path = fixture("continual/split_digits/order.json");
    let drawn = Order::drawn();
    if std::env::var_os("INARCH_WRITE_FIXTURES").is_some() {
        std::fs::write(&path, serde_json::to_string(&drawn).expect("numbers")).expect("a writable repository");
    }
    let text = std::fs::read_to_string(&path).expect("a fixture");
    assert_eq!(serde_json::from_str::<Order>(&text).expect("what was written"), drawn);
}

#[test]
fn values_and_right_answers_after_every_experience_equal_those_of_pytorch() {
    let (expected, _) = read_safetensors(&fixture("continual/split_digits/expected.safetensors")).expect("a fixture");
    let text = std::fs::read_to_string(fixture("continual/split_digits/expected.json")).expect("a fixture");
    let right: BTreeMap<String, Vec<Vec<usize>>> = serde_json::from_str(&text).expect("what the generator wrote");
    let strategies = strategies();
    assert_eq!(right.len(), strategies.len());
    let (dataset, recipe, stop) = (digits(DIGITS), recipe("linear-head", &[]), AtomicBool::new(false));
    let (small, projection) = (small(&dataset), Order::drawn().projection);
    let control = Control::new(&Silent, &stop);
    let session = Session::new(tiny(), &dataset, Subset::All, OnBadImage::Fail, control).expect("ten classes");
    let templates = recipe.templates.resolve().expect("templates");
    let setting = Setting { session: &session, templates: &templates, seed: SEED };
    for strategy in strategies {
        let config = LearnerConfig::read(&toml::from_str(&strategy).expect("TOML")).expect("a strategy");
        let name = config.name().to_string();
        let budget_bytes = if SMALL.contains(&name.as_str()) { small } else { 1 << 20 };
        let memory = MemoryConfig { budget_bytes, precision: Precision::F32, ..MemoryConfig::default() };
        go_through(&mut *config.build(&recipe, memory), &setting, &mut |experience, learner| {
            let artifact = learner.artifact(&setting).expect("it has learned");
            let (what, found) = (format!("{name}.{experience}"), artifact.adapter.parameters());
            if !GROWING.contains(&name.as_str()) || experience + 1 == EXPERIENCES {
                held_to(&what, &found, &expected);
            }
            if let Some(drawn) = found.get(PROJECTION) {
                close(&what, &drawn.data, &projection, 1e-6);
            }
            // What is trained further, where that is not what answers.
            if expected.contains_key(&format!("{what}.trained.weight")) {
                held_to(&format!("{what}.trained"), &tensors_of(&saved(learner), "adapter"), &expected);
            }
            let classes = &dataset.classes[..CLASSES * (experience + 1)];
            let seen = &dataset.test[..CLASSES * TEST * (experience + 1)];
            let answering = Recipe { method: artifact.manifest.method.clone(), ..recipe.clone() };
            let scores = session.scores((&answering, classes, &artifact.adapter), seen).expect("scores");
            assert_eq!(right_of(&scores, classes.len(), &dataset), right[&name][experience], "{name} {experience}");
        });
    }
    // New classes compete with old ones in what is rehearsed, and are answered.
    assert!(right["er-ace"].iter().all(|row| row.last().is_some_and(|newest| *newest > CLASSES * TEST / 4)));
    // What they are for: the values of no two are the same in the end.
    let last = format!(".{}.", EXPERIENCES - 1);
    let trained = |name: &&String| name.contains(&last) && name.ends_with("weight") && !name.contains("Linear");
    let ends: Vec<(&String, &Vec<f32>)> =
        expected.keys().filter(trained).map(|name| (name, &expected[name].data)).collect();
    assert!(ends.len() > 15);
    for (at, (one, left)) in ends.iter().enumerate() {
        for (other, right) in &ends[at + 1..] {
            let apart = left.iter().zip(*right).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            // MagMax and TIES train alike and without more; their answers differ.
            assert!(apart > 1e-2 || one.contains("trained") || other.contains("trained"), "{one} {other}: {apart}");
        }
    }
}
