//! The losses of the first 20 training steps equal those of a run in PyTorch; `generate.py` beside this file made the
//! expected ones.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use inarch_core::Seed;
use inarch_core::backbone::Frozen;
use inarch_core::checkpoint::{Precision, encode_safetensors, read_safetensors};
use inarch_core::data::{Dataset, open_dataset};
use inarch_core::image::OnBadImage;
use inarch_core::text::Template;
use inarch_peft::{Classifier, Parameters, Start};
use inarch_recipes::{Control, Recipe, RecipeLayers, Session, Silent, Subset};

use crate::support::{classes, close, fixture, plain, tiny};

/// The recipes, as settings over the presets: no augmentation, one view, all images in each step.
const RUNS: [(&str, &[&str]); 9] = [
    ("coop", &[]),
    // Other words than those of the frozen features, so that these pull from the first step on.
    ("kgcoop", &["method.words=\"a bad photo of\""]),
    ("tcp", &[]),
    ("prograd", &["method.words=\"a bad photo of\""]),
    ("clap", &[]),
    (
        "biomedcoop",
        &[
            "method.sccm=3.0",
            "method.kdsp=2.0",
            "method.tau=1.0",
            "templates=['a photo of a {}.', 'a bad photo of a {}.', 'a {} on a mat.', 'x {} x', 'the red {} of a hat.', '{}']",
        ],
    ),
    ("lora", &["method.dropout=0.0", "train.optimizer.lr=0.01"]),
    ("tip-adapter-f", &["method.alpha=20.0"]),
    (
        "promptsrc",
        &[
            "method.templates=4",
            "train.schedule=\"coop\"",
            "train.optimizer={ name = \"sgd\", lr = 0.0025, momentum = 0.9, weight_decay = 0.0005 }",
        ],
    ),
];

/// Those of them that begin with drawn values.
const DRAWN: [&str; 3] = ["lora", "promptsrc", "tcp"];

fn recipe(method: &str, settings: &[&str]) -> Recipe {
    let mut layers = RecipeLayers::preset(method, false).expect("a preset");
    let shared =
        ["views=1", "train.batch=8", "train.budget={ iterations = 20 }", "augment={ crop = \"centre\", flip = 0.0 }"];
    for assignment in shared.iter().chain(settings) {
        layers.set(assignment).expect("a setting");
    }
    layers.finish().expect("a recipe")
}

/// Eight images of four classes, by the formula of the generator.
fn images(folder: &Path) -> Dataset {
    for number in 0..8u32 {
        let class = folder.join("train").join(&classes()[number as usize / 2]);
        std::fs::create_dir_all(&class).expect("a writable folder");
        let pixel = |x: u32, y: u32| {
            image::Rgb(
                [0, 1, 2].map(|c: u32| ((37 * number + 59 * c + (3 + number) * y + (5 + 2 * c) * x) % 256) as u8),
            )
        };
        image::RgbImage::from_fn(32, 32, pixel).save(class.join(format!("{number}.png"))).expect("a PNG file");
    }
    open_dataset(folder, None).expect("class folders")
}

/// The values that a method draws before the first step.
fn drawn(recipe: &Recipe) -> Parameters {
    let templates = [Template::new("a photo of a {}.").expect("one place")];
    let class_features = Classifier::zero_shot(tiny(), &classes(), &templates).expect("plain names").features(&Frozen);
    let device = plain();
    let start = Start::new(tiny(), &class_features, Seed::new(recipe.seed).split("init"), &device);
    let adapter = recipe.method.init(&start).expect("valid settings");
    adapter
        .parameters()
        .into_iter()
        .map(|(name, tensor)| (format!("{}.{name}", recipe.method.name()), tensor))
        .collect()
}

#[test]
fn the_drawn_values_are_those_of_the_generator() {
    let path = fixture("parity/training/init.safetensors");
    let found: Parameters =
        RUNS.iter().filter(|(method, _)| DRAWN.contains(method)).fold(Parameters::new(), |mut all, run| {
            all.extend(drawn(&recipe(run.0, run.1)));
            all
        });
    if std::env::var_os("INARCH_WRITE_FIXTURES").is_some() {
        let bytes = encode_safetensors(&found, BTreeMap::new(), Precision::F32).expect("tensors");
        std::fs::write(&path, bytes).expect("a writable repository");
    }
    let written = read_safetensors(&path).expect("a fixture").0;
    assert!(written.keys().eq(found.keys()), "{:?} for {:?}", found.keys(), written.keys());
    for (name, tensor) in found {
        assert!(tensor.data == written[&name].data, "`{name}` is drawn in another way");
    }
}

#[test]
fn the_first_losses_equal_those_of_pytorch() {
    let text = std::fs::read_to_string(fixture("parity/training/expected.json")).expect("a fixture");
    let expected: BTreeMap<String, Vec<f32>> = serde_json::from_str(&text).expect("what the generator wrote");
    assert_eq!(expected.len(), RUNS.len());
    let folder = tempfile::tempdir().expect("a folder");
    let dataset = images(&folder.path().join("data"));
    let stop = AtomicBool::new(false);
    let control = Control::new(&Silent, &stop);
    let session = Session::new(tiny(), &dataset, Subset::All, OnBadImage::Fail, control).expect("four classes");
    for (method, settings) in RUNS {
        let (_, report) = session.fit(&recipe(method, settings), &folder.path().join(method)).expect("a run");
        let losses = &expected[method];
        assert_eq!(losses.len(), 20);
        // They move: a loss that stays would agree with anything.
        assert!((losses[0] - losses[19]).abs() > 0.01 * losses[0].abs(), "{method}");
        close(method, &report.losses, losses, 1e-4);
        assert!(tiny().verify(), "{method}: training changed the backbone");
    }
}

#[test]
fn a_step_of_lora_plus_moves_b_by_its_rate() {
    let folder = tempfile::tempdir().expect("a folder");
    let dataset = images(&folder.path().join("data"));
    let stop = AtomicBool::new(false);
    let control = Control::new(&Silent, &stop);
    let session = Session::new(tiny(), &dataset, Subset::All, OnBadImage::Fail, control).expect("four classes");
    // Plain descent: the step is the gradient times the rate, and `B` starts at zero.
    let after = |rate: &str| {
        let settings = [
            "method.dropout=0.0",
            &format!("method.b_rate={rate}"),
            "train.budget={ iterations = 1 }",
            "train.optimizer={ name = \"sgd\", lr = 0.01, momentum = 0.0, weight_decay = 0.0 }",
        ];
        let (artifact, _) = session.fit(&recipe("lora", &settings), &folder.path().join(rate)).expect("a run");
        artifact.adapter.parameters()
    };
    let (plain, plus) = (after("1.0"), after("16.0"));
    assert!(plain.keys().eq(plus.keys()));
    for (name, tensor) in &plain {
        // The factor stands for `B` alone: `A` is the same, whose gradient is zero beside a `B` of zeros.
        let rate = if name.ends_with(".b") { 16.0 } else { 1.0 };
        let expected: Vec<f32> = tensor.data.iter().map(|value| rate * value).collect();
        close(name, &plus[name].data, &expected, 1e-6);
    }
}
