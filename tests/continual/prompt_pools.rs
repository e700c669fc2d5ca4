//! L2P, DualPrompt and CODA-Prompt over a stream of images: what an experience trained stands still where the method says so, and
//! answers find it.

use std::path::{Path, PathBuf};

use inarch_continual::StreamRecipe;
use inarch_core::checkpoint::read_safetensors;
use inarch_peft::{Artifact, MethodConfig, Parameters};

use super::prompts::images;
use super::strategies::{SETTINGS, ends_alike_when_stopped, last, run_keeping_both, run_on};
use crate::support::tiny;

const L2P: &str = "fit.method={ name = \"stack\", members = [{ name = \"l2p\", pool = 4, length = 2, top = 2 }, \
                   { name = \"linear-probe\" }] }";
const DUAL: &str = "fit.method={ name = \"stack\", members = [{ name = \"linear-probe\" }, { name = \"dual-prompt\", pool = 1, \
                    general = 1, general_length = 2, expert_length = 3 }] }";
const CODA: &str = "fit.method={ name = \"stack\", members = [{ name = \"coda-prompt\", components = 3, length = 2, depth = 2 }, \
                    { name = \"linear-probe\" }] }";

fn after(folder: &Path, strategy: &str, experience: usize) -> PathBuf {
    folder.join(format!("{strategy}/seed-1/after-{experience}"))
}

/// What answers after an experience: the settings and the tensors of one member.
fn member(folder: &Path, strategy: &str, experience: usize, name: &str) -> (MethodConfig, Parameters) {
    let artifact = Artifact::load(&after(folder, strategy, experience).join("adapter"), tiny()).expect("an adapter");
    let MethodConfig::Stack(stack) = artifact.manifest.method.clone() else { panic!("a stack") };
    let at = stack.members.iter().position(|member| member.name() == name).expect("a member");
    let prefix = format!("members.{at}.");
    let own = |(name, tensor): (String, _)| {
        let own = name.strip_prefix(&prefix).and_then(|name| name.split_once('.'))?.1.to_string();
        Some((own, tensor))
    };
    (stack.members[at].clone(), artifact.adapter.parameters().into_iter().filter_map(own).collect())
}

/// The same of the prompts, and what the strategy keeps.
fn answer(folder: &Path, strategy: &str, experience: usize) -> (MethodConfig, Parameters, Parameters) {
    let (method, parameters) = member(folder, strategy, experience, strategy);
    let kept = after(folder, strategy, experience).join("strategy-past.safetensors");
    (method, parameters, read_safetensors(&kept).expect("a state").0)
}

/// A stream of two experiences, with what each left, and that it beats naive training of the same method.
fn two_experiences(strategy: &str, method: &str, look: impl FnOnce(&Path)) {
    let [data, folder] = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let (dataset, settings) = (images(data.path()), [SETTINGS, &[method]].concat());
    run_keeping_both(&dataset, &[&format!("{{ name = {strategy:?} }}")], &settings, folder.path());
    look(folder.path());
    let strategies = format!("strategy=[{{ name = {strategy:?} }}, {{ name = \"naive\" }}]");
    let report = run_on(&dataset, &[], &[&settings[..], &[strategies.as_str()]].concat(), &folder.path().join("both"));
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    let [own, naive] = [strategy, "naive"].map(|name| last(&report, name));
    assert!(own > naive + 0.1, "{strategy} {own}, naive {naive}");
}

#[test]
fn an_expert_stands_still_when_its_experience_is_over() {
    two_experiences("dual-prompt", DUAL, |folder| {
        let [(first, before, _), (second, after, kept)] =
            [1, 2].map(|experience| answer(folder, "dual-prompt", experience));
        for (method, experts) in [(first, 1), (second, 2)] {
            let MethodConfig::DualPrompt(config) = method else { panic!("another method") };
            assert_eq!((config.pool, config.general, config.expert_length), (experts, 1, 3));
        }
        let dim = tiny().spec().dim;
        let names = [("keys", vec![2, dim]), ("expert.0.key", vec![2, 3, 48]), ("expert.1.value", vec![2, 3, 48])];
        for (name, shape) in names {
            assert_eq!(after[name].shape, shape, "{name}");
            assert_eq!(after[name].data, kept[name].data, "{name}: what answers is what was kept");
            let (old, new) = after[name].data.split_at(before[name].data.len());
            assert!(old == before[name].data, "{name}: the expert of the first experience is the same bits");
            assert!(new != old, "{name}");
        }
        assert!(before["general.0.key"].data != after["general.0.key"].data, "the general part is trained on");
        assert!(!kept.contains_key("general.0.key"));
    });
}

#[test]
fn components_stand_still_when_their_experience_is_over() {
    two_experiences("coda-prompt", CODA, |folder| {
        let [(first, before, _), (second, after, kept)] =
            [1, 2].map(|experience| answer(folder, "coda-prompt", experience));
        for (method, experiences) in [(first, 1), (second, 2)] {
            let MethodConfig::CodaPrompt(config) = method else { panic!("another method") };
            assert_eq!((config.experiences, config.components, config.depth), (experiences, 3, 2));
        }
        for block in 0..2 {
            for part in ["attention", "keys", "prompts"] {
                let (open, past) = (format!("blocks.{block}.{part}"), format!("blocks.{block}.past.{part}.fixed"));
                assert!(!before.contains_key(&past));
                assert!(after[&past].data == before[&open].data, "{open}: the same bits");
                assert!(after[&open].data != before[&open].data, "{open}");
                assert_eq!(kept[&open].shape[0], 6);
                assert!(kept[&open].data == [after[&past].data.as_slice(), &after[&open].data].concat(), "{open}");
            }
        }
    });
}

#[test]
fn a_pool_is_trained_on_and_no_step_moves_a_class_that_does_not_arrive() {
    let [data, folder] = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let (dataset, settings) = (images(data.path()), [SETTINGS, &[L2P]].concat());
    run_keeping_both(&dataset, &["{ name = \"l2p\" }", "{ name = \"naive\" }"], &settings, folder.path());
    let dim = tiny().spec().dim;
    for (strategy, still) in [("l2p", true), ("naive", false)] {
        let [before, later] = [1, 2]
            .map(|experience| member(folder.path(), strategy, experience, "linear-probe").1["prototypes"].clone());
        assert_eq!((before.shape.as_slice(), later.shape.as_slice()), (&[2, dim][..], &[4, dim][..]));
        assert_eq!(later.data[..2 * dim] == before.data, still, "{strategy}: the rows of the first experience");
        let [before, later] = [1, 2].map(|experience| member(folder.path(), strategy, experience, "l2p").1);
        for name in ["keys", "prompts"] {
            assert!(before[name].data != later[name].data, "{strategy}: {name}");
        }
    }
    // What makes the difference is the loss alone.
    let alone = "strategy=[{ name = \"naive\", own_classes = true }]";
    run_on(&dataset, &[], &[&settings[..], &[alone]].concat(), &folder.path().join("alone"));
    let bytes = |folder: &Path, strategy: &str| {
        std::fs::read(after(folder, strategy, 2).join("adapter/adapter.safetensors")).expect("a file")
    };
    assert!(bytes(folder.path(), "l2p") == bytes(&folder.path().join("alone"), "naive"));
}

#[test]
fn another_method_is_refused_by_name() {
    let several = "fit.method={ name = \"dual-prompt\", pool = 3 }";
    let counted = "fit.method={ name = \"coda-prompt\", components = 3, experiences = 2 }";
    let cases = [("l2p", DUAL, "`l2p`"), ("dual-prompt", CODA, "`dual-prompt`"), ("coda-prompt", L2P, "`coda-prompt`")];
    for (strategy, method, reason) in
        cases.into_iter().chain([("dual-prompt", several, "`pool`"), ("coda-prompt", counted, "`experiences`")])
    {
        let mut recipe = StreamRecipe::read("", "test", &[method.to_string()]).expect("valid settings");
        recipe.choose(&[strategy.to_string(), "simple-cil".to_string()]);
        // Before anything is run.
        let refused = recipe.protocol().map(drop).expect_err(strategy).to_string();
        assert!(refused.contains(reason) && refused.contains(strategy), "{refused}");
    }
}

#[test]
fn prompts_that_are_stopped_anywhere_end_in_the_same_bytes() {
    let data = tempfile::tempdir().expect("a folder");
    let dataset = images(data.path());
    for (strategy, method) in [("l2p", L2P), ("dual-prompt", DUAL), ("coda-prompt", CODA)] {
        ends_alike_when_stopped(&dataset, &[strategy], &[method]);
    }
}
