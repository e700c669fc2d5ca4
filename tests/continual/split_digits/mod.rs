//! Strategies on a stream of five times two MNIST digits have, after every experience, the values and the right answers of
//! the same strategies in PyTorch; `generate.py` beside this file wrote both.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use inarch_continual::{Arrival, GradientConfig, GradientLearner, Learner, MemoryConfig, Precision, Setting};
use inarch_core::Seed;
use inarch_core::checkpoint::read_safetensors;
use inarch_core::data::{Dataset, Example, FeatureFile, FeatureKind, Source};
use inarch_core::image::OnBadImage;
use inarch_peft::Parameters;
use inarch_recipes::{Control, Recipe, RecipeLayers, Session, Silent, Subset};
use serde::{Deserialize, Serialize};

use crate::support::{close, fixture, tiny};

const EXPERIENCES: usize = 5;
/// Classes of an experience, and examples of a class to learn and to test.
const CLASSES: usize = 2;
const TRAIN: usize = 20;
const TEST: usize = 10;
const SEED: u64 = 7;
const STEPS: usize = 40;
const BATCH: usize = 10;
const REHEARSED: usize = 8;
/// The generator's rate.
const RATE: f64 = 0.2;

/// The strategies with the generator's settings.
const STRATEGIES: [&str; 8] = [
    "name = \"naive\"",
    "name = \"ewc\"\nweight = 50.0",
    "name = \"online-ewc\"\nweight = 50.0\ndecay = 0.9",
    "name = \"si\"\nweight = 0.5\ndamping = 1e-3",
    "name = \"lwf\"\nweight = 4.0\ntemperature = 2.0",
    "name = \"er\"\nreplay = 8",
    "name = \"er-ace\"\nreplay = 8",
    "name = \"a-gem\"\nreplay = 8",
];

/// The examples of each step of each experience, and those that are rehearsed from what came before and from what came before or
/// arrives, by the order in which they came.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    batches: Vec<Vec<Vec<usize>>>,
    rehearsed: Vec<Vec<Vec<usize>>>,
    joined: Vec<Vec<Vec<usize>>>,
}

impl Order {
    /// As a learner draws it from its seed.
    fn drawn() -> Self {
        let each = CLASSES * TRAIN;
        let seed = |experience: usize| {
            let own = Seed::new(SEED).split("training").split(experience).split(0).value();
            Seed::new(own)
        };
        let batches = |experience: usize| -> Vec<Vec<usize>> {
            let epoch = |epoch: usize| seed(experience).split("order").split(epoch).order(each);
            let all: Vec<usize> = (0..STEPS * BATCH / each).flat_map(epoch).collect();
            all.chunks(BATCH).map(<[usize]>::to_vec).collect()
        };
        let drawn = |experience: usize, known: usize| -> Vec<Vec<usize>> {
            let step = |step: usize| {
                let draws = seed(experience).split("rehearsal").split(step).split(0).split(0);
                draws.order(known).into_iter().take(REHEARSED).collect()
            };
            (0..STEPS).map(step).collect()
        };
        // Nothing is rehearsed in the first experience.
        let joined = |experience: usize| drawn(experience, if experience == 0 { 0 } else { each * (experience + 1) });
        Self {
            batches: (0..EXPERIENCES).map(batches).collect(),
            rehearsed: (0..EXPERIENCES).map(|experience| drawn(experience, each * experience)).collect(),
            joined: (0..EXPERIENCES).map(joined).collect(),
        }
    }
}

/// The digits: those to learn first, class by class, so that the memory's order by id is the order of arrival.
fn digits() -> Dataset {
    let (tensors, _) = read_safetensors(&fixture("continual/split_digits/features.safetensors")).expect("a fixture");
    let dim = tiny().spec().dim;
    let parts = [("train", TRAIN), ("test", TEST)];
    let values: Vec<f32> = parts.iter().flat_map(|(name, _)| tensors[*name].data.clone()).collect();
    let (mut ids, mut examples) = (Vec::new(), [Vec::new(), Vec::new()]);
    for (part, (name, count)) in parts.iter().enumerate() {
        for at in 0..10 * count {
            let id = format!("{name}/{at:03}");
            examples[part].push(Example::new(id.clone(), Source::Row(ids.len()), at / count));
            ids.push(id);
        }
    }
    assert_eq!(values.len(), ids.len() * dim);
    let [train, test] = examples;
    let features = FeatureFile {
        backbone: "fields of grey".into(),
        adapter: None,
        kind: FeatureKind::Image,
        ids,
        labels: None,
        classes: None,
        splits: None,
        dim,
        values,
    };
    Dataset {
        name: "split digits".into(),
        classes: (0..10).map(|digit: usize| digit.to_string()).collect(),
        train,
        val: Vec::new(),
        test,
        features: Some(Arc::new(features)),
        clips: None,
        ignored_files: 0,
        multi_label: false,
    }
}

/// A linear head from zero by SGD at a constant rate.
fn recipe() -> Recipe {
    let mut layers = RecipeLayers::preset("linear-head", false).expect("a preset");
    // Rates of SGD are given for a logit scale of 100.
    let rate = RATE * f64::from(tiny().logit_scale().clamp(1.0, 100.0)) / 100.0;
    let optimizer = format!("train.optimizer={{ name = \"sgd\", lr = {rate:?}, momentum = 0.9, weight_decay = 0.0 }}");
    let budget = format!("train.budget={{ iterations = {STEPS} }}");
    let batch = format!("train.batch={BATCH}");
    for assignment in [&optimizer, &budget, &batch, "train.schedule=\"constant\"", "views=1"] {
        layers.set(assignment).expect("a setting");
    }
    layers.finish().expect("a recipe")
}

#[test]
fn the_order_of_examples_is_that_of_the_generator() {
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
    assert_eq!(right.len(), STRATEGIES.len());
    let (dataset, recipe, stop) = (digits(), recipe(), AtomicBool::new(false));
    let control = Control::new(&Silent, &stop);
    let session = Session::new(tiny(), &dataset, Subset::All, OnBadImage::Fail, control).expect("ten classes");
    let templates = recipe.templates.resolve().expect("templates");
    let setting = Setting { session: &session, templates: &templates, seed: SEED };
    for strategy in STRATEGIES {
        let config: GradientConfig = toml::from_str(strategy).expect("a strategy");
        let (name, folder) = (config.name(), tempfile::tempdir().expect("a folder"));
        let memory = MemoryConfig { budget_bytes: 1 << 20, precision: Precision::F32, ..MemoryConfig::default() };
        let mut learner = GradientLearner::new(config, recipe.clone(), memory);
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
            learner.learn(&arrival, &setting, folder.path()).expect("it learns");
            let artifact = learner.artifact(&setting).expect("it has learned");
            let found: Parameters = artifact.adapter.parameters();
            for (part, tensor) in &found {
                let own = &expected[&format!("{name}.{experience}.{part}")];
                assert_eq!(tensor.shape, own.shape, "{name} {experience} {part}");
                close(&format!("{name} {experience} {part}"), &tensor.data, &own.data, 2e-4);
            }
            let seen = &dataset.test[..CLASSES * TEST * (experience + 1)];
            let classes = arrival.classes;
            let scores = session.scores((&recipe, classes, &artifact.adapter), seen).expect("scores");
            let answer = |row: &[f32]| (0..row.len()).max_by(|left, right| row[*left].total_cmp(&row[*right]));
            let hits: Vec<bool> = scores
                .chunks(classes.len())
                .zip(seen)
                .map(|(row, example)| answer(row) == Some(example.label))
                .collect();
            let counts: Vec<usize> =
                hits.chunks(CLASSES * TEST).map(|hits| hits.iter().filter(|hit| **hit).count()).collect();
            assert_eq!(counts, right[name][experience], "{name} {experience}");
        }
    }
    // New classes compete with old ones in what is rehearsed, and are answered.
    assert!(right["er-ace"].iter().all(|row| row.last().is_some_and(|newest| *newest > CLASSES * TEST / 4)));
    // What they are for: the values of no two are the same in the end.
    let ends: Vec<&Vec<f32>> =
        right.keys().map(|name| &expected[&format!("{name}.{}.weight", EXPERIENCES - 1)].data).collect();
    for (at, left) in ends.iter().enumerate() {
        for other in &ends[at + 1..] {
            let apart = left.iter().zip(*other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(apart > 1e-2, "{apart}");
        }
    }
}
