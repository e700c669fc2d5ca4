//! Trained adapters are stacked as artifacts.

use inarch_core::backbone::{Pass, Sites as _};
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
