//! MoE-Adapters over a stream of images: experts of an experience stand still once it is over, images find its router, and
//! images of no experience meet the frozen tower.

use std::path::{Path, PathBuf};

use inarch_core::backbone::{Frozen, Pass, values};
use inarch_core::checkpoint::read_safetensors;
use inarch_peft::{Adapter, Artifact, MethodConfig, Parameters};

use super::prompts::images;
use super::strategies::{SETTINGS, ends_alike_when_stopped, last, run_keeping_both, run_on};
use crate::support::{pixels, plain, tiny};

const METHOD: &str = "fit.method={ name = \"stack\", members = [{ name = \"moe-adapters\", experts = 3, hidden = 8, \
                      scale = 1.0, code = 4 }, { name = \"linear-probe\" }] }";

fn after(folder: &Path, experience: usize) -> PathBuf {
    folder.join(format!("moe-adapters/seed-1/after-{experience}"))
}

/// What answers after an experience: the method, the stack, and the tensors of the experts.
fn answer(folder: &Path, experience: usize) -> (MethodConfig, Adapter, Parameters) {
    let artifact = Artifact::load(&after(folder, experience).join("adapter"), tiny()).expect("an adapter");
    let MethodConfig::Stack(stack) = artifact.manifest.method.clone() else { panic!("a stack") };
    let Adapter::Stack(members) = &artifact.adapter else { panic!("a stack") };
    let parameters = members.members()[0].parameters();
    let (kept, _) = read_safetensors(&after(folder, experience).join("strategy-past.safetensors")).expect("a state");
    for (name, tensor) in &kept {
        assert_eq!(tensor.data, parameters[name].data, "{name}: what answers is what was kept");
    }
    (stack.members[0].clone(), members.members()[0].clone(), parameters)
}

#[test]
fn experts_and_routers_of_an_experience_stand_still_when_it_is_over_and_beat_naive_training() {
    let [data, folder] = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let (dataset, settings) = (images(data.path()), [SETTINGS, &[METHOD]].concat());
    run_keeping_both(&dataset, &["{ name = \"moe-adapters\" }"], &settings, folder.path());
    let [(first, _, before), (second, adapter, after_both)] =
        [1, 2].map(|experience| answer(folder.path(), experience));
    for (method, experiences) in [(first, 1), (second.clone(), 2)] {
        let MethodConfig::MoeAdapters(config) = method else { panic!("another method") };
        assert_eq!((config.experiences, config.experts, config.top), (experiences, 3, 2));
    }
    let (uses, _) = read_safetensors(&after(folder.path(), 1).join("strategy-uses.safetensors")).expect("a state");
    assert_eq!(uses.len(), 3, "a block each: {:?}", uses.keys());
    for (block, uses) in &uses {
        // Each of the 24 images takes two experts.
        assert_eq!(uses.data.iter().sum::<f32>(), 48.0, "{block}");
        let mut order: Vec<usize> = (0..3).collect();
        order.sort_by(|left, right| uses.data[*right].total_cmp(&uses.data[*left]));
        let mut kept = order[..2].to_vec();
        kept.sort_unstable();
        for part in ["down", "down_offset", "up", "up_offset"] {
            let [open, frozen] =
                [&before[&format!("{block}.open.{part}")], &after_both[&format!("{block}.past.{part}.fixed")]];
            let each = open.data.len() / 3;
            let expected: Vec<f32> = kept.iter().flat_map(|at| open.data[at * each..][..each].to_vec()).collect();
            assert!(frozen.data == expected, "{block} {part}: those that are used most, the same bits");
        }
        let (router, past) = (&before[&format!("{block}.router")], &after_both[&format!("{block}.past.routers.fixed")]);
        assert_eq!((router.shape.as_slice(), past.shape.as_slice()), (&[48, 3][..], &[1, 48, 5][..]));
        for row in 0..48 {
            let [old, new] = [&router.data[row * 3..][..3], &past.data[row * 5..][..5]];
            assert_eq!([new[0], new[1], new[2]], [old[kept[0]], old[kept[1]], old[order[2]]], "{block} {row}");
        }
        assert!(after_both[&format!("{block}.past.reach.fixed")].data[3..].iter().all(|reach| *reach < -1e3));
    }
    for name in ["means.fixed", "directions.fixed", "slopes.fixed"] {
        let (old, new) = (&before[name].data, &after_both[name].data);
        assert!(new[..old.len()] == old[..] && new[old.len()..] != old[..], "{name}");
    }

    // With slopes that let nothing in, every image meets the frozen tower; with none, it takes the first router.
    let with = |slopes: [f32; 2]| {
        let mut parameters = after_both.clone();
        parameters.get_mut("slopes.fixed").expect("slopes").data = slopes.to_vec();
        let adapter = adapter.clone().with_parameters(parameters, &plain()).expect("the same shapes");
        values(tiny().encode_image(pixels(3), &adapter, &Pass::evaluate()))
    };
    let frozen = values(tiny().encode_image(pixels(3), &Frozen, &Pass::evaluate()));
    assert!(with([1e9, 1e9]) == frozen, "an image of no experience");
    assert!(with([0.0, 1e9]) != frozen && with([0.0, 1e9]) != with([1e9, 0.0]), "one of either");

    let strategies = "strategy=[{ name = \"moe-adapters\" }, { name = \"naive\" }]";
    let report = run_on(&dataset, &[], &[&settings[..], &[strategies]].concat(), &folder.path().join("both"));
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    let [own, naive] = ["moe-adapters", "naive"].map(|name| last(&report, name));
    assert!(own > naive + 0.1, "moe-adapters {own}, naive {naive}");
}

#[test]
fn experts_that_are_stopped_anywhere_end_in_the_same_bytes() {
    let data = tempfile::tempdir().expect("a folder");
    ends_alike_when_stopped(&images(data.path()), &["moe-adapters"], &[METHOD]);
}
