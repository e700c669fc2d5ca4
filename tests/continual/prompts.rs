//! S-Prompts over a stream of images: prompts of an experience stand still once it is over, and images find them.

use std::path::Path;

use inarch_core::Seed;
use inarch_core::checkpoint::read_safetensors;
use inarch_core::data::{Dataset, Example, Source};
use inarch_peft::{Artifact, MethodConfig, Parameters};

use super::strategies::{SETTINGS, ends_alike_when_stopped, last, run_keeping_both, run_on};
use crate::support::tiny;

const METHOD: &str =
    "fit.method={ name = \"stack\", members = [{ name = \"vpt-shallow\", tokens = 2 }, { name = \"linear-probe\" }] }";

/// Four classes of patterns in four colours with noise, 12 of each to learn and 6 to test.
pub(super) fn images(folder: &Path) -> Dataset {
    const COLOURS: [[f32; 3]; 4] =
        [[200.0, 60.0, 60.0], [60.0, 200.0, 60.0], [60.0, 60.0, 200.0], [180.0, 180.0, 60.0]];
    let (mut train, mut test) = (Vec::new(), Vec::new());
    for (label, colour) in COLOURS.iter().enumerate() {
        for at in 0..18 {
            let id = format!("{label}/{at}");
            let noise = Seed::new(3).split(&id).normals(32 * 32 * 3, 40.0);
            let pixel = |x: u32, y: u32| {
                let stripe = if (x >> (label + 1)) & 1 == 0 { 1.0 } else { 0.5 };
                let value = |channel: usize| colour[channel] * stripe + noise[((y * 32 + x) * 3) as usize + channel];
                image::Rgb([0, 1, 2].map(|channel| value(channel).clamp(0.0, 255.0) as u8))
            };
            let path = folder.join(format!("{label}-{at}.png"));
            image::RgbImage::from_fn(32, 32, pixel).save(&path).expect("a PNG file");
            let example = Example::new(id, Source::Image(path), label);
            if at < 12 { train.push(example) } else { test.push(example) }
        }
    }
    Dataset {
        name: "patterns".into(),
        classes: ["cat", "dog", "red hat", "x ray"].map(String::from).into(),
        train,
        val: Vec::new(),
        test,
        features: None,
        clips: None,
        window: None,
        ignored_files: Default::default(),
        multi_label: false,
    }
}

/// The tensors of the method `s-prompts` in what answers after an experience.
fn answer(folder: &Path, experience: usize) -> (MethodConfig, Parameters) {
    let folder = folder.join(format!("s-prompts/seed-1/after-{experience}"));
    let artifact = Artifact::load(&folder.join("adapter"), tiny()).expect("an adapter");
    let MethodConfig::Stack(stack) = artifact.manifest.method.clone() else { panic!("a stack") };
    let own = |(name, tensor): (String, _)| {
        let own = name.strip_prefix("members.0.").and_then(|name| name.split_once('.'))?.1.to_string();
        Some((own, tensor))
    };
    let parameters: Parameters = artifact.adapter.parameters().into_iter().filter_map(own).collect();
    let (kept, _) = read_safetensors(&folder.join("strategy-past.safetensors")).expect("a state");
    for (name, tensor) in &kept {
        assert_eq!(tensor.data, parameters[name].data, "{name}: what answers is what was kept");
    }
    (stack.members[0].clone(), parameters)
}

#[test]
fn prompts_of_an_experience_stand_still_when_it_is_over_and_beat_naive_training() {
    let [data, folder] = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let (dataset, settings) = (images(data.path()), [SETTINGS, &[METHOD]].concat());
    run_keeping_both(&dataset, &["{ name = \"s-prompts\", centroids = 3 }"], &settings, folder.path());
    let [(first, before), (second, after)] = [1, 2].map(|experience| answer(folder.path(), experience));
    for (method, experiences) in [(first, 1), (second, 2)] {
        let MethodConfig::SPrompts(config) = method else { panic!("another method") };
        assert_eq!((config.experiences, config.tokens, config.centroids), (experiences, 2, 3));
    }
    let dim = tiny().spec().dim;
    for (name, shape) in [("prompts", [2, 2, 48]), ("centroids.fixed", [2, 3, dim])] {
        let [before, after] = [&before[name], &after[name]];
        assert_eq!(after.shape, shape, "{name}");
        let (old, new) = after.data.split_at(before.data.len());
        assert!(old == before.data, "{name}: those of the first experience are the same bits");
        assert!(new != old, "{name}");
    }
    // Means of vectors of length 1.
    for centroid in after["centroids.fixed"].data.chunks(dim) {
        let length = centroid.iter().map(|value| value * value).sum::<f32>().sqrt();
        assert!(length > 0.1 && length < 1.0 + 1e-5, "{length}");
    }
    let strategies = "strategy=[{ name = \"s-prompts\", centroids = 3 }, { name = \"naive\" }]";
    let report = run_on(&dataset, &[], &[&settings[..], &[strategies]].concat(), &folder.path().join("both"));
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    let [own, naive] = ["s-prompts", "naive"].map(|name| last(&report, name));
    assert!(own > naive + 0.1, "s-prompts {own}, naive {naive}");
}

#[test]
fn prompts_that_are_stopped_anywhere_end_in_the_same_bytes() {
    let data = tempfile::tempdir().expect("a folder");
    ends_alike_when_stopped(&images(data.path()), &["s-prompts"], &[METHOD]);
}

/// With a text side: a context for the classes of each experience.
const BOTH_SIDES: &[&str] = &[
    "fit.method={ name = \"stack\", members = [{ name = \"vpt-shallow\", tokens = 2 }, { name = \"coop\", context = 2 }] }",
    "strategy=[{ name = \"s-prompts\", centroids = 3, text = true }]",
];

#[test]
fn classes_keep_the_context_that_they_came_with() {
    let [data, folder] = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let settings = [SETTINGS, BOTH_SIDES].concat();
    let strategy = "{ name = \"s-prompts\", centroids = 3, text = true }";
    run_keeping_both(&images(data.path()), &[strategy], &settings, folder.path());
    let contexts = [1, 2].map(|experience| {
        let folder = folder.path().join(format!("s-prompts/seed-1/after-{experience}/adapter"));
        let artifact = Artifact::load(&folder, tiny()).expect("an adapter");
        let MethodConfig::Stack(stack) = &artifact.manifest.method else { panic!("a stack") };
        assert!(matches!(&stack.members[0], MethodConfig::SPrompts(config) if config.experiences == experience));
        assert!(matches!(&stack.members[1], MethodConfig::Coop(config) if config.class_specific));
        artifact.adapter.parameters()["members.1.Coop.context"].clone()
    });
    // Two tokens of width 32 for each class; those of an experience share them.
    let of = |experience: usize, class: usize| &contexts[experience].data[class * 64..][..64];
    assert_eq!(contexts.each_ref().map(|context| context.shape[0]), [4, 8]);
    assert_eq!((of(0, 0), of(1, 2)), (of(0, 1), of(1, 3)));
    assert_eq!((of(0, 0), of(0, 1)), (of(1, 0), of(1, 1)), "the first stand still");
    assert_ne!(of(1, 0), of(1, 2));
}

#[test]
fn prompts_of_both_sides_that_are_stopped_anywhere_end_in_the_same_bytes() {
    let data = tempfile::tempdir().expect("a folder");
    ends_alike_when_stopped(&images(data.path()), &["s-prompts"], BOTH_SIDES);
}
