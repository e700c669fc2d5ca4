//! Scores and gradients of every method equal those of an independent implementation in PyTorch, itself checked against
//! HF PEFT; `generate.py` beside this file made the expected ones.

use std::collections::{BTreeMap, BTreeSet};

use burn::module::{ModuleVisitor, Param};
use burn::tensor::{Gradients, Tensor, TensorData};
use inarch_core::backbone::{BlockSite, Frames, HostTensor, LinearSite, Pass, Projection, Tower, values};
use inarch_peft::{Adapter, METHODS, MethodConfig, Parameters};
use serde::Deserialize;

use crate::contract::case::{configured, fresh, scores};
use crate::support::{classes, close, fixture, plain, tiny, tracked};

/// One line of the fixture.
#[derive(Deserialize)]
struct Case {
    method: String,
    settings: String,
    /// Frames of a clip; two clips, or three images.
    #[serde(default = "one")]
    frames: usize,
    logits: Vec<f32>,
    /// Of each parameter's gradient: its length, its sum, and its product with a pattern.
    gradients: BTreeMap<String, (f64, f64, f64)>,
}

fn one() -> usize {
    1
}

fn cases() -> Vec<Case> {
    let text = std::fs::read_to_string(fixture("parity/methods/expected.json")).expect("a fixture");
    serde_json::from_str(&text).expect("what the generator wrote")
}

/// The parameters that the generator used: value `i` of tensor `t` is `0.3 sin(12.9898 i + 78.233 t)`, both from 1.
fn formula(fresh: Parameters) -> Parameters {
    let fill = |(tensor, (name, mut value)): (usize, (String, HostTensor))| {
        if !name.ends_with("labels.fixed") {
            for (index, value) in value.data.iter_mut().enumerate() {
                let angle = 12.9898 * (index as f64 + 1.0) + 78.233 * (tensor as f64 + 1.0);
                *value = (0.3 * angle.sin()) as f32;
            }
        }
        (name, value)
    };
    fresh.into_iter().enumerate().map(fill).collect()
}

struct Collect<'a> {
    path: Vec<String>,
    gradients: &'a Gradients,
    found: BTreeMap<String, Vec<f32>>,
}

impl ModuleVisitor for Collect<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = param.val().grad(self.gradients) {
            self.found.insert(self.path.join("."), values(gradient));
        }
    }
}

fn gradients(adapter: &Adapter, loss: &Tensor<1>) -> BTreeMap<String, Vec<f32>> {
    let gradients = loss.backward();
    let mut collect = Collect { path: Vec::new(), gradients: &gradients, found: BTreeMap::new() };
    adapter.visit_parameters(&mut collect);
    collect.found
}

#[test]
fn coefficients_of_a_spectrum_keep_their_places() {
    let MethodConfig::FourierFt(config) = configured("fourierft", "coefficients = 20") else {
        panic!("another method")
    };
    let site = LinearSite::Block(BlockSite::new(Tower::Image, 1), Projection::Query);
    let found = config.places(site, tiny().linear(site).expect("a site").weight.val().dims());
    let path = fixture("parity/methods/places.json");
    if std::env::var_os("INARCH_WRITE_FIXTURES").is_some() {
        std::fs::write(&path, serde_json::to_string(&found).expect("numbers")).expect("a writable repository");
    }
    // A change of the draw would make every saved adapter mean something else.
    let written = std::fs::read_to_string(&path).expect("the list");
    assert_eq!(serde_json::from_str::<BTreeSet<usize>>(&written).expect("numbers"), found);
}

#[test]
fn every_method_has_a_case() {
    let cases = cases();
    for method in METHODS {
        assert!(
            cases.iter().any(|case| case.method == *method),
            "`{method}` has no case in parity/methods/generate.py"
        );
    }
}

#[test]
fn scores_and_gradients_equal_those_of_pytorch() {
    let size = tiny().spec().image.size;
    for Case { method, settings, frames, logits, gradients: expected } in cases() {
        let images = if frames > 1 { 2 * frames } else { 3 };
        let pixels: Vec<f32> = (1..=3 * images * size * size).map(|i| (0.37 * i as f64).sin() as f32).collect();
        let pixels = Tensor::<4>::from_data(TensorData::new(pixels, [images, 3, size, size]), &plain());
        let pass = Pass { frames: Frames::of(frames), ..Pass::evaluate() };
        let config = configured(&method, &settings);
        let adapter = fresh(&config, 1, &tracked());
        let parameters = formula(adapter.parameters());
        let adapter = adapter.with_parameters(parameters, &tracked()).expect("the same shapes");
        let found = scores(&config, &adapter, &classes(), pixels, &pass);
        close(&format!("{method} {settings}"), &values(found.clone().without_autodiff()), &logits, 2e-5);

        if expected.is_empty() {
            assert!(!found.is_autodiff(), "{method}: nothing is trained");
            continue;
        }
        let pattern: Vec<f32> = (1..=logits.len()).map(|i| (0.7 * i as f64).sin() as f32).collect();
        let pattern = Tensor::from_data(TensorData::new(pattern, found.dims()), &plain());
        let found = gradients(&adapter, &(found * pattern).sum());
        assert!(found.keys().eq(expected.keys()), "{method}: {:?} for {:?}", found.keys(), expected.keys());
        // Single precision over a few thousand terms: relative to the longest gradient of the method.
        let longest = expected.values().map(|(length, ..)| *length).fold(0.0, f64::max);
        for (name, (length, sum, product)) in &expected {
            let own = &found[name];
            let of = |weight: &dyn Fn(usize) -> f64| -> f64 {
                own.iter().enumerate().map(|(i, value)| f64::from(*value) * weight(i)).sum()
            };
            let own_length = own.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
            let root = (own.len() as f64).sqrt();
            let near = |what: &str, found: f64, expected: f64, room: f64| {
                let allowed = 1e-4 * longest * room;
                assert!(
                    (found - expected).abs() <= allowed,
                    "{method}: {what} of the gradient of `{name}` is {found}, not {expected}"
                );
            };
            near("the length", own_length, *length, 1.0);
            near("the sum", of(&|_| 1.0), *sum, root);
            near("the product", of(&|i| (0.3 * (i as f64 + 1.0)).cos()), *product, root);
        }
    }
}
