//! SLCA has, after every experience, the slow representation, the trained rows, the Gaussians and the aligned rows of
//! PyTorch; `alignment.py` wrote them, from what is drawn here.

use std::sync::atomic::AtomicBool;

use inarch_continual::{LearnerConfig, MemoryConfig, Setting};
use inarch_core::Seed;
use inarch_core::checkpoint::read_safetensors;
use inarch_core::image::OnBadImage;
use inarch_recipes::{Control, Recipe, Session, Silent, Subset};
use serde::{Deserialize, Serialize};

use super::order::training;
use super::{
    BATCH, CLASSES, DIM, EXPERIENCES, SEED, TEST, WORDS, digits, go_through, held_to, recipe, right_of, saved,
    tensors_of,
};
use crate::support::{close, fixture, tiny};

/// Features that are drawn for each class, and how often they are gone through.
const DRAWN: usize = 8;
const EPOCHS: usize = 3;
/// Width of the bottleneck.
const HIDDEN: usize = DIM / 4;

/// Everything that is drawn on the way and not by `order`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Draws {
    /// The bottleneck before the first step, `[dim, hidden]` and `[hidden, dim]`.
    down: Vec<f32>,
    up: Vec<f32>,
    /// Of each experience and each class known then, normal numbers `[drawn, dim]`.
    normals: Vec<Vec<Vec<f32>>>,
    /// Of each experience, the drawn features in each step; they are numbered class by class.
    steps: Vec<Vec<Vec<usize>>>,
}

impl Draws {
    /// As a learner draws it.
    fn drawn() -> Self {
        let first = Seed::new(SEED).split("init").split(0).split("image");
        let factor = |name: &str, inputs: usize| first.split(name).uniforms(DIM * HIDDEN, 1.0 / (inputs as f32).sqrt());
        // Nothing is aligned after the first experience.
        let known = |experience: usize| if experience == 0 { 0 } else { CLASSES * (experience + 1) };
        let normals = |experience: usize| -> Vec<Vec<f32>> {
            let seed = training(experience).split("alignment");
            (0..known(experience)).map(|class| seed.split(class).normals(DRAWN * DIM, 1.0)).collect()
        };
        let steps = |experience: usize| -> Vec<Vec<usize>> {
            let order = |epoch: usize| {
                let seed = training(experience).split("order").split(epoch);
                let order = seed.order(DRAWN * known(experience));
                order.chunks_exact(BATCH).map(<[usize]>::to_vec).collect::<Vec<_>>()
            };
            (0..EPOCHS).flat_map(order).collect()
        };
        Self {
            down: factor("down", DIM),
            up: factor("up", HIDDEN),
            normals: (0..EXPERIENCES).map(normals).collect(),
            steps: (0..EXPERIENCES).map(steps).collect(),
        }
    }
}

#[test]
fn the_draws_of_an_alignment_are_those_of_the_generator() {
    let path = fixture("continual/split_digits").join("alignment.json");
    let drawn = Draws::drawn();
    if std::env::var_os("INARCH_WRITE_FIXTURES").is_some() {
        std::fs::write(&path, serde_json::to_string(&drawn).expect("numbers")).expect("a writable repository");
    }
    let text = std::fs::read_to_string(&path).expect("a fixture");
    assert_eq!(serde_json::from_str::<Draws>(&text).expect("what was written"), drawn);
}

#[test]
fn a_slow_representation_and_an_aligned_head_equal_those_of_pytorch() {
    let (expected, _) = read_safetensors(&fixture("continual/split_digits/alignment.safetensors")).expect("a fixture");
    let members = "method.members=[{ name = \"clip-adapter\", ratio = 0.6 }, { name = \"linear-probe\" }]";
    let (dataset, recipe, stop) = (digits(WORDS), recipe("stack", &[members]), AtomicBool::new(false));
    let control = Control::new(&Silent, &stop);
    let session = Session::new(tiny(), &dataset, Subset::All, OnBadImage::Fail, control).expect("ten classes");
    let templates = recipe.templates.resolve().expect("templates");
    let setting = Setting { session: &session, templates: &templates, seed: SEED };
    let strategy = format!("name = \"slca\"\nslow = 0.1\ndraws = {DRAWN}\nepochs = {EPOCHS}\ntemperature = 0.1");
    let config = LearnerConfig::read(&toml::from_str(&strategy).expect("TOML")).expect("a strategy");
    go_through(&mut *config.build(&recipe, MemoryConfig::default()), &setting, &mut |experience, learner| {
        let artifact = learner.artifact(&setting).expect("it has learned");
        let (what, state) = (format!("slca.{experience}"), saved(learner));
        held_to(&what, &artifact.adapter.parameters(), &expected);
        // What is trained further was not aligned.
        held_to(&format!("{what}.trained"), &tensors_of(&state, "adapter"), &expected);
        let known = CLASSES * (experience + 1);
        for class in 0..known {
            let (name, first) = (format!("gaussian-{class:06}"), (class / CLASSES) as f32);
            let gaussian = tensors_of(&state, &format!("strategy-{name}"));
            assert_eq!(gaussian["first"].data, [first], "{what} {name}");
            for part in ["mean", "scatter"] {
                close(
                    &format!("{what} {name} {part}"),
                    &gaussian[part].data,
                    &expected[&format!("{name}.{part}")].data,
                    2e-4,
                );
            }
        }
        let seen = &dataset.test[..TEST * known];
        let answering = Recipe { method: artifact.manifest.method.clone(), ..recipe.clone() };
        let classes = &dataset.classes[..known];
        let scores = session.scores((&answering, classes, &artifact.adapter), seen).expect("scores");
        let right: Vec<f32> = right_of(&scores, known, &dataset).into_iter().map(|count| count as f32).collect();
        assert_eq!(right, expected["right"].data[experience * EXPERIENCES..][..=experience], "{what}");
    });
}
