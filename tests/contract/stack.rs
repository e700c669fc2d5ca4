//! Trained adapters are stacked as artifacts.

use inarch_core::backbone::Pass;
use inarch_peft::{Artifact, MethodConfig};

use super::case::{artifact, configured, scores};
use crate::support::{classes, differs, pixels, same, tiny};

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
