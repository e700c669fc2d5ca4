//! A memory that keeps latents of several views: what they are, what is rehearsed of them, and where there can be none.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use inarch_continual::{Memory, StreamReport};
use inarch_core::Seed;
use inarch_core::backbone::Frozen;
use inarch_core::checkpoint::read_safetensors;
use inarch_core::image::{Augment, AugmentCrop, OnBadImage};
use inarch_recipes::{Control, Silent, Views, encode_images};

use super::prompts::images;
use super::strategies::{SETTINGS, dataset, ends_alike_when_stopped, run_on, states};
use crate::support::{close, tiny};

const AUGMENT: &str = "fit.augment={ crop = { resized = { scale = [0.3, 1.0], ratio = [0.75, 1.33] } }, flip = 0.5 }";
const VIEWS: &[&str] = &["memory.views=3", AUGMENT];

/// What a strategy remembers in the end.
fn memory(folder: &Path, strategy: &str) -> Memory {
    Memory::load(&folder.join(strategy).join("seed-1/after-2/memory.inarch"), None).expect("a memory")
}

/// The values of what answers in the end.
fn adapter(folder: &Path, strategy: &str) -> Vec<f32> {
    let path = folder.join(strategy).join("seed-1/after-2/adapter/adapter.safetensors");
    let (tensors, _) = read_safetensors(&path).expect("an adapter");
    tensors.into_values().flat_map(|tensor| tensor.data).collect()
}

#[test]
fn latents_are_those_of_the_centre_view_and_of_views_by_seed_and_id() {
    let [data, folder] = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let dataset = images(data.path());
    run_on(&dataset, &["er"], &[SETTINGS, VIEWS].concat(), folder.path());
    let memory = memory(folder.path(), "er");
    assert!(memory.config().views == 3 && memory.bytes() <= memory.config().budget_bytes && memory.len() > 20);
    let crop = AugmentCrop::Resized { scale: (0.3, 1.0), ratio: (0.75, 1.33) };
    let augment = Arc::new(Augment { crop, flip: 0.5, jitter: None, cutout: None });
    let seed = Seed::new(memory.config().seed).split("views of the memory");
    let drawn = Views::Augmented { count: 2, augment, seed };
    let stop = AtomicBool::new(false);
    for sample in memory.samples().step_by(5) {
        let example = dataset.train.iter().find(|example| example.id == sample.id).expect("it was learned");
        // Alone, in no order of arrival.
        let of = |views: &Views| {
            let (one, control) = (std::slice::from_ref(example), Control::new(&Silent, &stop));
            encode_images(tiny(), &Frozen, &dataset, one, views, OnBadImage::Fail, control).expect("features").values
        };
        // Half precision.
        close("centre view", &sample.latent, &of(&Views::Centre), 2e-3);
        close("further views", &sample.views, &of(&drawn), 2e-3);
        for (one, other) in [(0, 1), (0, 2), (1, 2)] {
            assert_ne!(sample.view(one), sample.view(other), "views {one} and {other} of `{}`", sample.id);
        }
    }
}

#[test]
fn one_view_is_what_there_was_and_of_more_any_is_rehearsed() {
    let data = tempfile::tempdir().expect("a folder");
    let dataset = images(data.path());
    let run = |settings: &[&str]| {
        let folder = tempfile::tempdir().expect("a folder");
        run_on(&dataset, &["er"], &[SETTINGS, &[AUGMENT], settings].concat(), folder.path());
        states(folder.path())
    };
    let (plain, one, three) = (run(&[]), run(&["memory.views=1"]), run(&["memory.views=3"]));
    assert!(plain == one);
    assert_eq!(one.keys().collect::<Vec<_>>(), three.keys().collect::<Vec<_>>());
    let differs = |name: &str| one.iter().any(|(path, bytes)| path.ends_with(name) && three[path] != *bytes);
    assert!(differs("memory.inarch") && differs("adapter/adapter.safetensors"));
}

#[test]
fn classes_weigh_by_their_samples_however_many_views_are_kept_of_these() {
    // The whole of a square image, which is what the centre view shows: more views are more of the same.
    const SAME: &str = "fit.augment={ crop = { resized = { scale = [1.0, 1.0], ratio = [1.0, 1.0] } }, flip = 0.0 }";
    let data = tempfile::tempdir().expect("a folder");
    let mut dataset = images(data.path());
    // 4 images of one class and 12 of the others.
    dataset.train.drain(4..12);
    let run = |settings: &[&str]| {
        let folder = tempfile::tempdir().expect("a folder");
        let own = [SETTINGS, &["memory.budget_bytes=65536", SAME], settings].concat();
        run_on(&dataset, &["er"], &own, folder.path());
        (memory(folder.path(), "er"), adapter(folder.path(), "er"))
    };
    let apart = |left: &[f32], right: &[f32]| {
        let greatest = left.iter().fold(0.0f32, |greatest, value| greatest.max(value.abs()));
        left.iter().zip(right).map(|(left, right)| (left - right).abs() / greatest).fold(0.0, f32::max)
    };
    let (_, alike) = run(&[]);
    for imbalance in ["\"class-weights\"", "{ logit-adjustment = 1.0 }"] {
        let setting = format!("fit.train.imbalance={imbalance}");
        let (one, expected) = run(&[setting.as_str()]);
        let (three, found) = run(&[setting.as_str(), "memory.views=3"]);
        assert_eq!((one.len(), three.len(), three.config().views), (40, 40, 3));
        for (sample, view) in three.samples().flat_map(|sample| [(sample, 1), (sample, 2)]) {
            close("a view of the whole", sample.view(view), &sample.latent, 2e-3);
        }
        close(imbalance, &found, &expected, 2e-4);
        // Weights of other sizes would be seen.
        assert!(apart(&expected, &alike) > 2e-3, "{imbalance}: {}", apart(&expected, &alike));
    }
}

#[test]
fn rehearsal_of_views_that_is_stopped_anywhere_ends_in_the_same_bytes() {
    let data = tempfile::tempdir().expect("a folder");
    ends_alike_when_stopped(&images(data.path()), &["er-ace", "der-plus-plus", "bic", "icarl"], VIEWS);
}

#[test]
fn strategies_that_rehearse_keep_views_and_all_others_the_centre_view() {
    let [data, folder] = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let kept = ["er", "er-ace", "a-gem", "gem", "der", "der-plus-plus", "mir", "gss-greedy", "bic", "icarl"];
    let (centre, none) = (["gdumb", "nme"], ["naive", "rail"]);
    let names = [&kept[..], &centre, &none].concat();
    let settings = [SETTINGS, VIEWS, &["fit.train.budget={ iterations = 12 }"]].concat();
    let report = run_on(&images(data.path()), &names, &settings, folder.path());
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    for (names, views) in [(&kept[..], 3), (&centre[..], 1)] {
        for name in names {
            let memory = memory(folder.path(), name);
            assert!(memory.config().views == views && memory.bytes() <= memory.config().budget_bytes, "{name}");
            let dim = memory.fingerprint().dim;
            assert!(memory.samples().all(|sample| sample.views.len() == (views - 1) * dim), "{name}");
        }
    }
}

#[test]
fn where_no_views_can_be_drawn_they_are_refused_with_the_reason() {
    let data = tempfile::tempdir().expect("a folder");
    let (features, images) = (dataset(), images(data.path()));
    let tower = "fit.method={ name = \"stack\", members = [{ name = \"vpt-shallow\", tokens = 2 }, { name = \
                 \"linear-probe\" }] }";
    let short = ["fit.train.budget={ iterations = 4 }"];
    let reason = |report: &StreamReport| {
        let [failure] = &report.failures[..] else { panic!("{:?}", report.failures) };
        assert_eq!(failure.strategy, "er");
        failure.reason.clone()
    };
    for (dataset, settings, expected) in [
        (&features, VIEWS.to_vec(), "`blobs` holds features"),
        (&images, vec!["memory.views=3"], "every view would be the centre view"),
        (&images, [VIEWS, &[tower]].concat(), "changes the image tower"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let report = run_on(dataset, &["er", "naive"], &[SETTINGS, &short[..], &settings[..]].concat(), folder.path());
        let said = reason(&report);
        assert!(said.contains("memory.views") && said.contains(expected), "{said}");
    }
}
