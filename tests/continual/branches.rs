//! Strategies that sum an update of low rank for each experience, on the text tower over a stream of features.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use inarch_continual::{Arrival, LearnerConfig, MemoryConfig, Setting};
use inarch_core::backbone::{Frozen, HostTensor, Sites, values};
use inarch_core::checkpoint::read_safetensors;
use inarch_core::image::OnBadImage;
use inarch_core::text::Template;
use inarch_peft::{Artifact, Classifier, InputMoments, MethodConfig, Parameters};
use inarch_recipes::{Control, Session, Silent, Subset};

use super::split_digits::{RATE, recipe, saved, tensors_of};
use super::strategies::{SETTINGS, dataset, ends_alike_when_stopped, run_keeping_both};
use crate::support::{close, tiny};

const RANK: usize = 2;
/// Keys and values of the text tower.
const METHOD: &str =
    "fit.method={ name = \"lora\", rank = 2, dropout = 0.0, targets = [\"text.*.k_proj\", \"text.*.v_proj\"] }";

fn after(folder: &Path, strategy: &str, experience: usize) -> PathBuf {
    folder.join(strategy).join("seed-1").join(format!("after-{experience}"))
}

/// A file of a strategy's state.
fn state(folder: &Path, strategy: &str, experience: usize, name: &str) -> Parameters {
    fn find(folder: &Path, name: &str) -> Option<PathBuf> {
        let list = inarch_core::file::list(folder).expect("a folder");
        let here = list.iter().find(|path| path.file_name().is_some_and(|own| own == name)).cloned();
        here.or_else(|| list.iter().filter(|path| path.is_dir()).find_map(|path| find(path, name)))
    }
    let path = find(&after(folder, strategy, experience), name).unwrap_or_else(|| panic!("no {name}"));
    read_safetensors(&path).expect("tensors").0
}

/// Features of texts through what answers after an experience, of length 1.
fn class_features(folder: &Path, strategy: &str, experience: usize, classes: &[String]) -> Vec<Vec<f64>> {
    let artifact = artifact(folder, strategy, experience);
    features(artifact.adapter.sites(), classes, &artifact.templates().expect("templates"))
}

fn artifact(folder: &Path, strategy: &str, experience: usize) -> Artifact {
    Artifact::load(&after(folder, strategy, experience).join("adapter"), tiny()).expect("an adapter")
}

fn features(sites: &dyn Sites, classes: &[String], templates: &[Template]) -> Vec<Vec<f64>> {
    let classifier = Classifier::zero_shot(tiny(), classes, templates).expect("plain names");
    let rows: Vec<f64> = values(classifier.features(sites)).into_iter().map(f64::from).collect();
    let unit = |row: &[f64]| {
        let length = row.iter().map(|value| value * value).sum::<f64>().sqrt();
        row.iter().map(|value| value / length).collect()
    };
    rows.chunks(tiny().spec().dim).map(unit).collect()
}

/// The greatest distance of two lists of rows.
fn apart(left: &[Vec<f64>], right: &[Vec<f64>]) -> f64 {
    let distance = |(left, right): (&Vec<f64>, &Vec<f64>)| {
        left.iter().zip(right).map(|(left, right)| (left - right).powi(2)).sum::<f64>().sqrt()
    };
    left.iter().zip(right).map(distance).fold(0.0, f64::max)
}

/// Classes of what answers after each of two experiences: those of the first, and those that came then.
fn classes(folder: &Path, strategy: &str) -> [Vec<String>; 2] {
    let [first, both] = [1, 2].map(|experience| artifact(folder, strategy, experience).manifest.classes);
    let new = both[first.len()..].to_vec();
    [first, new]
}

/// How far a vector reaches into a subspace that a basis `[width, dimension]` of it, or of what is orthogonal to it, tells.
fn reach(needed: &Parameters, site: &str, vector: &[f32]) -> f64 {
    let within = |basis: &HostTensor| -> Vec<f64> {
        let columns = basis.shape[1];
        let mut part = vec![0.0; vector.len()];
        for at in 0..columns {
            let column: Vec<f64> = basis.data.iter().skip(at).step_by(columns).map(|value| f64::from(*value)).collect();
            let share: f64 = column.iter().zip(vector).map(|(left, right)| left * f64::from(*right)).sum();
            part.iter_mut().zip(&column).for_each(|(part, value)| *part += share * value);
        }
        part
    };
    let part = match (needed.get(&format!("{site}.inside")), needed.get(&format!("{site}.outside"))) {
        (Some(inside), None) => within(inside),
        (None, Some(outside)) => within(outside).iter().zip(vector).map(|(part, all)| f64::from(*all) - part).collect(),
        found => panic!("one side of {site}: {found:?}"),
    };
    part.iter().map(|value| value * value).sum::<f64>().sqrt()
}

#[test]
fn an_update_of_inflora_is_orthogonal_to_what_was_needed_before_and_moves_no_answer_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let strategies = ["{ name = \"inflora\", threshold = 1.0 }", "{ name = \"o-lora\" }"];
    run_keeping_both(&dataset(), &strategies, &[SETTINGS, &[METHOD]].concat(), folder.path());
    let folder = folder.path();
    let [before, past] = [1, 2].map(|experience| state(folder, "inflora", experience, "strategy-past.safetensors"));
    let needed = state(folder, "inflora", 1, "strategy-subspaces.safetensors");
    let sites: Vec<&String> = past.keys().filter(|name| name.ends_with(".a")).collect();
    assert_eq!(sites.len(), 4, "{sites:?}");
    for name in sites {
        let [down, first] = [&past[name], &before[name]];
        let column = |at: usize| -> Vec<f32> { down.data.iter().skip(at).step_by(2 * RANK).copied().collect() };
        let columns: Vec<Vec<f32>> = (0..2 * RANK).map(column).collect();
        let (old, new) = columns.split_at(RANK);
        for (at, old) in old.iter().enumerate() {
            assert!(first.data.iter().skip(at).step_by(RANK).eq(old), "{name}: the first update stands still");
        }
        let site = name.strip_prefix("sites.").and_then(|name| name.strip_suffix(".a")).expect("a site");
        for column in new {
            let reach = reach(&needed, site, column);
            assert!(reach < 1e-4, "{name}: {reach}");
            let length = column.iter().map(|value| value * value).sum::<f32>();
            assert!((length - 1.0 / 3.0).abs() < 1e-4, "{name}: {length}");
        }
        assert!(past[&name.replace(".a", ".b")].data[RANK..].iter().any(|value| *value != 0.0), "{name}");
    }
    // Old classes' features stand, new ones' move; those of updates that are held apart among themselves alone all
    // move.
    let [old, new] = classes(folder, "inflora");
    let moved = |strategy: &str, classes: &[String]| {
        let [before, after] = [1, 2].map(|experience| class_features(folder, strategy, experience, classes));
        apart(&before, &after)
    };
    let [still, learned, other] = [moved("inflora", &old), moved("inflora", &new), moved("o-lora", &old)];
    assert!(still < 2e-3 && learned > 0.02 && other > 0.02, "{still} {learned} {other}");
}

#[test]
fn the_first_update_of_inflora_has_the_directions_of_the_inputs_and_starts_as_the_frozen_backbone() {
    let folder = tempfile::tempdir().expect("a folder");
    let still = "fit.train.optimizer={ name = \"sgd\", lr = 1e-30, momentum = 0.0, weight_decay = 0.0 }";
    let settings = [SETTINGS, &[METHOD, still, "fit.train.schedule=\"constant\""]].concat();
    run_keeping_both(&dataset(), &["{ name = \"inflora\" }"], &settings, folder.path());
    let [old, new] = classes(folder.path(), "inflora");
    let all = [old.clone(), new].concat();
    let templates = artifact(folder.path(), "inflora", 1).templates().expect("templates");
    let frozen = features(&Frozen, &all, &templates);
    let moved = apart(&class_features(folder.path(), "inflora", 2, &all), &frozen);
    assert!(moved < 1e-6, "{moved}");
    // No training and no update before: the inputs are those of the frozen tower.
    let inputs = InputMoments::new(&["text.*.k_proj".to_string()]);
    features(&inputs, &old, &templates);
    let past = state(folder.path(), "inflora", 1, "strategy-past.safetensors");
    for (site, moment) in inputs.values() {
        let down = &past[&format!("sites.{site}.a")];
        let width = down.shape[0];
        let column = |at: usize| -> Vec<f64> {
            down.data.iter().skip(at).step_by(RANK).map(|value| f64::from(*value) * 3f64.sqrt()).collect()
        };
        let energies = [0, 1].map(|at| {
            let direction = column(at);
            let image: Vec<f64> = moment
                .chunks(width)
                .map(|row| row.iter().zip(&direction).map(|(value, part)| value * part).sum())
                .collect();
            let energy: f64 = image.iter().zip(&direction).map(|(value, part)| value * part).sum();
            // An eigenvector.
            for (value, part) in image.iter().zip(&direction) {
                assert!((value - energy * part).abs() < 1e-3 * energy, "{site}");
            }
            energy
        });
        assert!(energies[0] >= energies[1] && energies[1] > 0.0, "{site}: {energies:?}");
    }
}

/// The factors of both updates after one step of O-LoRA in each of two experiences.
fn after_one_step_each(weight: f64) -> Parameters {
    let settings = [
        "method.rank=2",
        "method.dropout=0.0",
        "method.targets=[\"text.*.k_proj\", \"text.*.v_proj\"]",
        "train.budget={ iterations = 1 }",
        "augment={ crop = \"centre\", flip = 0.0 }",
    ];
    let (dataset, recipe, stop) = (dataset(), recipe("lora", &settings), AtomicBool::new(false));
    let session = Session::new(tiny(), &dataset, Subset::All, OnBadImage::Fail, Control::new(&Silent, &stop));
    let (session, templates) = (session.expect("four classes"), recipe.templates.resolve().expect("templates"));
    let setting = Setting { session: &session, templates: &templates, seed: 1 };
    let strategy: toml::Table = toml::from_str(&format!("name = \"o-lora\"\nweight = {weight:?}")).expect("TOML");
    let config = LearnerConfig::read(&strategy).expect("a strategy");
    let mut learner = config.build(&recipe, MemoryConfig::default());
    let folder = tempfile::tempdir().expect("a folder");
    let half = dataset.train.len() / 2;
    for index in 0..2 {
        let arrival = Arrival {
            index,
            classes: &dataset.classes[..2 * (index + 1)],
            train: &dataset.train[half * index..][..half],
            earlier: &[],
            source: "blobs",
            time: index as u64,
            chunk: None,
        };
        learner.learn(&arrival, &setting, folder.path()).expect("it learns");
    }
    tensors_of(&saved(&*learner), "strategy-past")
}

/// The gradient of `sum |A_1^T A_2|^2` is `2 A_1 A_1^T A_2`. `B_2` starts from zero, so that the cross entropy has no part in the
/// first step of `A_2`, and the overlap none in that of `B_2`.
#[test]
fn a_step_of_o_lora_is_that_of_the_overlap_in_closed_form() {
    const WEIGHT: f64 = 3.0;
    let [apart, free] = [WEIGHT, 0.0].map(after_one_step_each);
    let downs: Vec<&String> = free.keys().filter(|name| name.ends_with(".a")).collect();
    assert_eq!(downs.len(), 4, "{downs:?}");
    for name in downs {
        let column = |tensor: &HostTensor, at: usize| -> Vec<f64> {
            tensor.data.iter().skip(at).step_by(2 * RANK).map(|value| f64::from(*value)).collect()
        };
        let (before, fresh) = (0..RANK, RANK..2 * RANK);
        for at in before.clone() {
            assert_eq!(column(&apart[name], at), column(&free[name], at), "{name}: nothing came before the first");
        }
        let (mut found, mut expected) = (Vec::new(), Vec::new());
        for at in fresh {
            let start = column(&free[name], at);
            let mut gradient = vec![0.0; start.len()];
            for past in before.clone() {
                let past = column(&free[name], past);
                let overlap: f64 = past.iter().zip(&start).map(|(left, right)| left * right).sum();
                gradient.iter_mut().zip(&past).for_each(|(sum, value)| *sum += 2.0 * overlap * value);
            }
            let moved = column(&apart[name], at);
            found.extend(moved.iter().zip(&start).map(|(moved, start)| (moved - start) as f32));
            expected.extend(gradient.iter().map(|value| (-RATE * WEIGHT * value) as f32));
        }
        close(name, &found, &expected, 1e-4);
        let up = name.replace(".a", ".b");
        assert_eq!(apart[&up].data, free[&up].data, "{up}");
        assert!(free[&up].data.iter().any(|value| *value != 0.0), "{up} moves");
    }
}

#[test]
fn updates_of_low_rank_that_are_stopped_anywhere_end_in_the_same_bytes() {
    ends_alike_when_stopped(&dataset(), &["o-lora", "inflora", "sd-lora"], &[METHOD]);
}

#[test]
fn directions_of_sd_lora_stand_still_while_their_magnitudes_are_trained_on() {
    let folder = tempfile::tempdir().expect("a folder");
    run_keeping_both(&dataset(), &["{ name = \"sd-lora\" }"], &[SETTINGS, &[METHOD]].concat(), folder.path());
    let of = |name: &str| [1, 2].map(|experience| state(folder.path(), "sd-lora", experience, name));
    let (directions, magnitudes) = (of("strategy-directions.safetensors"), of("strategy-magnitudes.safetensors"));
    // What answers is a `lora` of both updates; it is trained further as one of the recipe's rank.
    let answer = artifact(folder.path(), "sd-lora", 2);
    assert!(matches!(&answer.manifest.method, MethodConfig::Lora(lora) if lora.rank == 2 * RANK));
    let answer = answer.adapter.parameters();
    let mut moved = 0.0f32;
    for (name, magnitudes) in &magnitudes[1] {
        let site = name.strip_suffix(".magnitudes").expect("a site");
        let before = &of("strategy-magnitudes.safetensors")[0][name].data;
        assert_eq!((before.len(), magnitudes.data.len()), (1, 2), "{name}");
        moved = moved.max((before[0] - magnitudes.data[0]).abs());
        let (down, up) = (format!("{site}.a"), format!("{site}.b"));
        let column = |tensor: &HostTensor, at: usize| -> Vec<f32> {
            tensor.data.iter().skip(at).step_by(tensor.shape[1]).copied().collect()
        };
        for at in 0..RANK {
            assert_eq!(column(&directions[0][&down], at), column(&directions[1][&down], at), "{down} {at}");
        }
        let rows = |tensor: &HostTensor, update: usize| {
            tensor.data.chunks(RANK * tensor.shape[1]).nth(update).map(<[f32]>::to_vec)
        };
        assert_eq!(rows(&directions[0][&up], 0), rows(&directions[1][&up], 0), "{up}");
        for update in 0..2 {
            let length = |values: &[f32]| values.iter().map(|value| value * value).sum::<f32>().sqrt();
            let own: Vec<f32> = (0..RANK).flat_map(|at| column(&directions[1][&down], update * RANK + at)).collect();
            let up = rows(&directions[1][&up], update).expect("an update");
            assert!((length(&own) - 1.0).abs() < 1e-5 && (length(&up) - 1.0).abs() < 1e-5, "{site} {update}");
            let scaled: Vec<f32> = up.iter().map(|value| value * magnitudes.data[update]).collect();
            assert_eq!(rows(&answer[&format!("{site}.b")], update), Some(scaled), "{site} {update}");
        }
        assert_eq!(answer[&down].data, directions[1][&down].data, "{site}");
    }
    assert!(moved > 1e-4, "the first magnitudes were trained on: {moved}");
}
