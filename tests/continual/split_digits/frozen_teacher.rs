//! ZSCL has, after every experience, the values and the right answers of PyTorch, with zero-shot as its teacher; `frozen_teacher.py`
//! wrote them.

use std::sync::atomic::AtomicBool;

use inarch_continual::{LearnerConfig, MemoryConfig, Setting};
use inarch_core::checkpoint::read_safetensors;
use inarch_core::image::OnBadImage;
use inarch_recipes::{Control, Recipe, Session, Silent, Subset};

use super::{
    CLASSES, EXPERIENCES, SEED, TEST, WORDS, digits, go_through, held_to, recipe, right_of, saved, tensors_of,
};
use crate::support::{fixture, tiny};

/// The generator's settings.
const STRATEGY: &str = "name = \"zscl\"\nweight = 0.7\ntemperature = 2.0\nhold = 0.02";

#[test]
fn distillation_from_zero_shot_and_the_mean_along_the_way_equal_those_of_pytorch() {
    let path = fixture("continual/split_digits").join("frozen_teacher.safetensors");
    let (expected, _) = read_safetensors(&path).expect("a fixture");
    let (dataset, recipe, stop) = (digits(WORDS), recipe("linear-head", &[]), AtomicBool::new(false));
    let control = Control::new(&Silent, &stop);
    let session = Session::new(tiny(), &dataset, Subset::All, OnBadImage::Fail, control).expect("ten classes");
    let templates = recipe.templates.resolve().expect("templates");
    let setting = Setting { session: &session, templates: &templates, seed: SEED };
    let config = LearnerConfig::read(&toml::from_str(STRATEGY).expect("TOML")).expect("a strategy");
    go_through(&mut *config.build(&recipe, MemoryConfig::default()), &setting, &mut |experience, learner| {
        let (what, known) = (format!("zscl.{experience}"), CLASSES * (experience + 1));
        let artifact = learner.artifact(&setting).expect("it has learned");
        held_to(&what, &artifact.adapter.parameters(), &expected);
        // The mean is what is trained further, too.
        held_to(&what, &tensors_of(&saved(learner), "adapter"), &expected);
        let (classes, seen) = (&dataset.classes[..known], &dataset.test[..TEST * known]);
        let answering = Recipe { method: artifact.manifest.method.clone(), ..recipe.clone() };
        let scores = session.scores((&answering, classes, &artifact.adapter), seen).expect("scores");
        let right: Vec<f32> = right_of(&scores, known, &dataset).into_iter().map(|count| count as f32).collect();
        assert_eq!(right, expected["right"].data[experience * EXPERIENCES..][..=experience], "{what}");
    });
}
