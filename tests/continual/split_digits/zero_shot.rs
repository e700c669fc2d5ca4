//! Primal and dual RAIL beside zero-shot, asked for all ten classes whatever has been learned, have the scores of the
//! formulas: `zero_shot.py` wrote them, with text features of the reference implementation that `words.py` wrote.

use std::sync::atomic::AtomicBool;

use inarch_continual::{LearnerConfig, MemoryConfig, Setting};
use inarch_core::checkpoint::read_safetensors;
use inarch_core::image::OnBadImage;
use inarch_recipes::{Control, Session, Silent, Subset, score};

use super::{CLASSES, EXPERIENCES, PROJECTIONS, SEED, WORDS, digits, go_through, recipe, right_of};
use crate::support::{close, fixture, tiny};

#[test]
fn rail_beside_zero_shot_has_the_scores_of_the_formulas_whatever_was_learned() {
    let (expected, _) = read_safetensors(&fixture("continual/split_digits/zero_shot.safetensors")).expect("a fixture");
    let (dataset, recipe, stop) = (digits(WORDS), recipe("linear-head", &[]), AtomicBool::new(false));
    let control = Control::new(&Silent, &stop);
    let session = Session::new(tiny(), &dataset, Subset::All, OnBadImage::Fail, control).expect("ten classes");
    let templates = recipe.templates.resolve().expect("templates");
    let setting = Setting { session: &session, templates: &templates, seed: SEED };
    let (all, zero_shot) = (dataset.classes.len(), &expected["zero-shot"].data);
    let primal = format!("name = \"rail\"\nprojections = {PROJECTIONS}\nlambda = 0.1");
    for strategy in [primal.as_str(), "name = \"rail-dual\"\nlambda = 1e-3\ngamma = 1.0"] {
        let config = LearnerConfig::read(&toml::from_str(strategy).expect("TOML")).expect("a strategy");
        let (name, mut mixed) = (config.name(), 0);
        go_through(&mut *config.build(&recipe, MemoryConfig::default()), &setting, &mut |experience, learner| {
            let (what, known) = (format!("{name}.{experience}"), CLASSES * (experience + 1));
            let of = |part: &str| &expected[&format!("{what}.{part}")].data;
            let artifact = learner.artifact(&setting).expect("it has learned");
            if name == "rail" {
                let weights = &artifact.adapter.parameters()["weights.fixed"];
                close(&format!("{what} weights"), &weights.data, of("weights.fixed"), 2e-4);
            }
            let classifier = artifact.classifier(tiny(), Some(&dataset.classes)).expect("an open head");
            let features = session.adapted_features(&artifact.adapter, &dataset.test).expect("features");
            let scores = score(tiny(), &classifier, artifact.adapter.sites(), &features);
            let (mut inside, mut outside) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
            for (image, row) in scores.chunks(all).enumerate() {
                let before = &zero_shot[image * all..][..all];
                if of("learned")[image] < 0.5 {
                    outside[0].extend_from_slice(row);
                    outside[1].extend_from_slice(before);
                    continue;
                }
                let (own, others) = row.split_at(known);
                inside[0].extend_from_slice(own);
                inside[1].extend_from_slice(&of("scores")[image * known..][..known]);
                // What has not been learned comes last, in the order of zero-shot.
                let least = own.iter().copied().fold(f32::INFINITY, f32::min);
                let mut places: Vec<usize> = (0..others.len()).collect();
                places.sort_by(|left, right| before[known + right].total_cmp(&before[known + left]));
                let last: Vec<f32> = places.iter().map(|place| others[*place]).collect();
                assert!(last.iter().all(|score| *score < least), "{what} {image}: {row:?}");
                assert!(last.is_sorted_by(|left, right| *left > right - 1e-3), "{what} {image}: {last:?}");
            }
            for (where_to, [found, expected]) in [("own scores", &inside), ("zero-shot scores", &outside)] {
                if !expected.is_empty() {
                    close(&format!("{what} {where_to}"), found, expected, 2e-4);
                }
            }
            mixed += usize::from(!inside[0].is_empty() && !outside[0].is_empty());
            let right: Vec<usize> = right_of(&scores, all, &dataset);
            let counts = &expected[&format!("{name}.right")].data[experience * EXPERIENCES..][..EXPERIENCES];
            assert_eq!(right, counts.iter().map(|count| *count as usize).collect::<Vec<_>>(), "{what}");
        });
        // Images go either way, so that the way is tested.
        assert!(mixed >= 3, "{name}: {mixed}");
    }
}
