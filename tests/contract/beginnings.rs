//! Texts that begin alike give the same scores and gradients whether their beginning is run once or for each of them.

use burn::module::{Module as _, ModuleVisitor, Param};
use burn::tensor::{Gradients, Tensor};
use inarch_core::Seed;
use inarch_core::backbone::{
    BlockSite, BranchSite, Entry, LinearBase, Mode, NormBase, Pass, Scores, Sites, Tower, normalise, values,
};
use inarch_peft::{Adapter, Classifier, MethodConfig};

use super::case::{methods, trained};
use crate::support::{classes, close, draws, pixels, plain, templates, tiny, tracked};

/// An adapter that says nothing about beginnings.
struct Apart<'a>(&'a Adapter);

impl Sites for Apart<'_> {
    fn entry(&self, tower: Tower) -> Entry {
        self.0.entry(tower)
    }

    fn conditions_text(&self) -> bool {
        self.0.conditions_text()
    }

    fn needs_all_tokens(&self, tower: Tower) -> bool {
        self.0.needs_all_tokens(tower)
    }

    fn tokens(&self, at: BlockSite, tokens: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        self.0.tokens(at, tokens, pass)
    }

    fn linear(&self, base: LinearBase<'_>, input: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        self.0.linear(base, input, pass)
    }

    fn norm(&self, base: NormBase<'_>, input: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        self.0.norm(base, input, pass)
    }

    fn branch(&self, at: BranchSite, input: &Tensor<3>, output: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        self.0.branch(at, input, output, pass)
    }

    fn feature(&self, tower: Tower, feature: Tensor<2>, pass: &Pass<'_>) -> Tensor<2> {
        self.0.feature(tower, feature, pass)
    }

    fn logits(&self, scores: Scores<'_>, pass: &Pass<'_>) -> Tensor<2> {
        self.0.logits(scores, pass)
    }
}

fn text(config: &MethodConfig, sites: &dyn Sites, pass: &Pass<'_>) -> Tensor<2> {
    let one = &templates()[..1];
    let classifier = Classifier::adapted(tiny(), config, &classes(), &classes(), one).expect("classes of this adapter");
    let image = tiny().encode_image(pixels(3), sites, pass);
    let condition = normalise(image);
    let pass = Pass { condition: sites.conditions_text().then_some(&condition), ..*pass };
    classifier.text(classifier.start(sites), sites, &pass)
}

struct Collect<'a>(&'a Gradients, Vec<f32>);

impl ModuleVisitor for Collect<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = param.val().grad(self.0) {
            self.1.extend(values(gradient));
        }
    }
}

fn gradients(config: &MethodConfig, adapter: &Adapter, sites: &dyn Sites, pass: &Pass<'_>) -> Vec<f32> {
    let found = text(config, sites, pass);
    let loss = (found.clone() * draws("loss", found.dims(), 1.0, &plain())).sum();
    if !loss.is_autodiff() {
        return Vec::new();
    }
    let gradients = loss.backward();
    let mut collect = Collect(&gradients, Vec::new());
    adapter.visit(&mut collect);
    collect.1
}

#[test]
fn a_shared_beginning_changes_no_value_and_no_gradient() {
    let mut sharing = 0;
    for config in methods() {
        let name = config.name();
        let adapter = trained(&config, &tracked());
        for pass in [Pass::evaluate(), Pass::train(Seed::new(5))] {
            sharing += usize::from(adapter.shares_beginnings(pass.mode));
            let (found, expected) = (text(&config, &adapter, &pass), text(&config, &Apart(&adapter), &pass));
            close(name, &values(found), &values(expected), 2e-5);
            let found = gradients(&config, &adapter, &adapter, &pass);
            let expected = gradients(&config, &adapter, &Apart(&adapter), &pass);
            // An adapter of the image side has gradients that no text reaches.
            if expected.iter().all(|value| *value == 0.0) {
                assert!(found.iter().all(|value| *value == 0.0), "{name}");
                continue;
            }
            let scale = expected.iter().fold(1.0f32, |scale, value| scale.max(value.abs()));
            let [found, expected] =
                [found, expected].map(|all| all.iter().map(|value| value / scale).collect::<Vec<_>>());
            close(&format!("gradient of {name}"), &found, &expected, 2e-5);
        }
    }
    assert!(sharing > 30, "most methods treat all texts alike; {sharing} forms say so");
}

#[test]
fn dropout_keeps_beginnings_apart() {
    let lora = trained(&MethodConfig::preset("lora").expect("a preset"), &plain());
    assert!(lora.shares_beginnings(Mode::Evaluate) && !lora.shares_beginnings(Mode::Train(Seed::new(1))));
}
