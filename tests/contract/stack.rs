//! Trained adapters are stacked as artifacts.

use inarch_core::backbone::{Pass, Sites as _};
use inarch_core::data::{ClipConfig, FrameSampling};
use inarch_core::image::Window;
use inarch_peft::{Artifact, Combination, MethodConfig};

use super::case::{artifact, configured, fresh, scores};
use crate::support::{classes, differs, pixels, plain, same, tiny};

fn of(artifact: &Artifact) -> burn::tensor::Tensor<2> {
    scores(&artifact.manifest.method, &artifact.adapter, &classes(), pixels(3), &Pass::evaluate())
}

#[test]
fn a_stack_of_artifacts_is_saved_and_loaded_as_one() {
    let parts = [artifact(&configured("lora", "")), artifact(&configured("linear-probe", ""))];
    let stack = Artifact::stack(&parts, tiny()).expect("parts of one backbone");
    assert_eq!(stack.manifest.parents.len(), 2);
    assert_eq!(stack.manifest.parameters, parts.iter().map(|part| part.manifest.parameters).sum::<usize>());
    differs("both act", of(&stack), of(&parts[0]));
    differs("both act", of(&stack), of(&parts[1]));

    let folder = tempfile::tempdir().expect("a folder");
    stack.save(folder.path()).expect("a writable folder");
    let loaded = Artifact::load(folder.path(), tiny()).expect("what was saved");
    loaded.self_test(tiny()).expect("the stack that was saved");
    same("loaded", of(&loaded), of(&stack), 0.0);

    // A stack among the parts is opened.
    let alone = Artifact::stack(std::slice::from_ref(&parts[0]), tiny()).expect("one part");
    same("a stack of one", of(&alone), of(&parts[0]), 1e-6);
    let nested = Artifact::stack(&[alone, parts[1].clone()], tiny()).expect("a stack and a part");
    assert!(matches!(&nested.manifest.method, MethodConfig::Stack(stack) if stack.members.len() == 2));
    same("nested", of(&nested), of(&stack), 0.0);
}

#[test]
fn the_scores_at_which_an_image_has_a_class_are_kept_where_the_classes_are() {
    let [lora, probe] = ["lora", "linear-probe"].map(|name| artifact(&configured(name, "")));
    let mut several = lora;
    several.manifest.offsets = Some(vec![0.5; classes().len()]);
    let stack = Artifact::stack(&[several.clone(), probe.clone()], tiny()).expect("parts of one backbone");
    assert_eq!(stack.manifest.offsets, several.manifest.offsets);
    let combined = Combination::default().combine(&[several.clone(), several.clone()], tiny()).expect("equal parts");
    assert_eq!(combined.manifest.offsets, several.manifest.offsets);
    several.manifest.classes.reverse();
    let other = Artifact::stack(&[several, probe], tiny()).expect("one part is bound to classes");
    assert_eq!(other.manifest.offsets, None);
}

#[test]
fn adapters_that_become_one_agree_on_how_data_is_read() {
    let lora = artifact(&configured("lora", ""));
    let with = |change: &dyn Fn(&mut Artifact)| {
        let mut part = lora.clone();
        change(&mut part);
        part
    };
    let clips = |frames: usize, views: usize| {
        with(&|part| part.manifest.clips = Some(ClipConfig { frames, views, ..ClipConfig::default() }))
    };
    let window = |window: &str| {
        let window: Window = window.parse().expect("a window");
        with(&|part| part.manifest.window = Some(window))
    };
    let groups = |pattern: &str| with(&|part| part.manifest.group_by = Some(pattern.into()));
    // Whatever comes first.
    let one = |left: &Artifact, right: &Artifact| {
        let [there, back] = [[left, right], [right, left]].map(|parts| {
            let combined = Combination::default().combine(&parts.map(Clone::clone), tiny())?;
            let manifest = combined.manifest;
            Ok::<_, inarch_peft::Error>((manifest.clips, manifest.window, manifest.group_by))
        });
        let [there, back] = [there, back].map(|found| found.map_err(|error| error.to_string()));
        assert_eq!(there.is_err(), back.is_err());
        if there.is_ok() {
            assert_eq!(there, back);
        }
        there
    };
    let reading = |frames, views| Some(ClipConfig { frames, views, ..ClipConfig::default() });
    assert_eq!(one(&lora, &lora), Ok((None, None, None)));
    assert_eq!(one(&lora, &clips(3, 1)), Ok((reading(3, 1), None, None)));
    assert_eq!(one(&clips(3, 4), &clips(3, 1)), Ok((reading(3, 4), None, None)));
    let reason = one(&clips(3, 1), &clips(4, 1)).expect_err("other frames");
    assert!(["\"frames\":3", "\"frames\":4", "--frames"].iter().all(|part| reason.contains(part)), "{reason}");
    let sampled = |sampling: FrameSampling, stride: usize| {
        with(&|part| part.manifest.clips = Some(ClipConfig { sampling, stride, ..ClipConfig::default() }))
    };
    // The step between frames is that of dense clips alone, and a test sees the same of the other two.
    let segment = Ok((Some(ClipConfig { stride: 4, ..ClipConfig::default() }), None, None));
    assert_eq!(one(&sampled(FrameSampling::Segment, 4), &sampled(FrameSampling::Uniform, 4)), segment);
    assert!(one(&sampled(FrameSampling::Segment, 4), &sampled(FrameSampling::Segment, 2)).is_ok());
    assert!(one(&sampled(FrameSampling::Dense, 4), &sampled(FrameSampling::Dense, 2)).is_err());
    assert!(one(&sampled(FrameSampling::Dense, 4), &sampled(FrameSampling::Segment, 4)).is_err());
    let full: Window = "full".parse().expect("a window");
    assert_eq!(one(&lora, &window("full")), Ok((None, Some(full), None)));
    let reason = one(&window("full"), &window("-600:1500")).expect_err("other windows");
    assert!(["`full`", "`-600:1500`", "--window"].iter().all(|part| reason.contains(part)), "{reason}");
    assert_eq!(one(&lora, &groups("a(.)")), Ok((None, None, Some("a(.)".into()))));
    assert_eq!(one(&groups("a(.)"), &groups("b(.)")), Ok((None, None, None)));

    let stack = |parts: [Artifact; 2]| Artifact::stack(&parts, tiny()).map(|stack| stack.manifest);
    let manifest = stack([clips(3, 4), window("full")]).expect("a stack");
    assert_eq!((manifest.clips, manifest.window), (reading(3, 4), Some(full)));
    assert_eq!(stack([groups("a(.)"), groups("b(.)")]).expect("a stack").group_by, None);
    assert!(stack([clips(3, 1), clips(4, 1)]).is_err());
}

#[test]
fn members_of_a_fusion_have_their_stages_and_are_told_of_the_image() {
    let members = |names: &str| fresh(&configured("fusion", &format!("members = [{names}]")), 1, &plain());
    let mut staged = members("{ name = \"lora\" }, { name = \"2sfs\" }");
    assert_eq!(staged.learner().stages(), [0.6]);
    let head = "members.1.TwoStage.residuals";
    assert_eq!(staged.learner().rate(head), 0.0);
    staged.learner_mut().enter_stage(1);
    assert_eq!(staged.learner().rate(head), 1.0);
    let norms =
        staged.parameters().into_keys().filter(|name| name.starts_with("members.1.TwoStage.norms")).collect::<Vec<_>>();
    assert!(!norms.is_empty() && norms.iter().all(|name| staged.learner().rate(name) == 0.0), "{norms:?}");

    assert!(!staged.queries_image());
    let routed = "{ name = \"moe-adapters\", experiences = 2, experts = 3, hidden = 8, code = 1 }";
    assert!(members(&format!("{{ name = \"lora\" }}, {routed}")).queries_image());
}

#[test]
fn what_cannot_be_stacked_is_refused() {
    let message = |parts: &[Artifact]| Artifact::stack(parts, tiny()).expect_err("no stack").to_string();
    let coop = artifact(&configured("coop", "context = 4"));
    assert!(message(&[coop.clone(), coop]).contains("second member with a prompt"));
    assert!(message(&[]).contains("members"));
    let probe = artifact(&configured("linear-probe", ""));
    let mut other = probe.clone();
    other.manifest.classes.reverse();
    assert!(message(&[probe, other]).contains("classes of the adapters"));
}
