//! Prompts that an image asks for by its own frozen feature: what their losses add, and where the feature comes from.

use burn::tensor::Tensor;
use inarch_core::backbone::{Frozen, Pass, normalise, values};
use inarch_peft::{Adapter, MethodConfig, Parameters, Step};

use super::case::{configured, trained};
use crate::support::{close, draws, gradients, pixels, plain, same, tiny, tracked};

const LABELS: [usize; 3] = [0, 2, 1];

/// The loss less its cross entropy, and the greatest gradient of `parameter` if it is moved.
fn added(adapter: &Adapter, frozen: &Tensor<2>, parameter: &str) -> (f32, Option<f32>) {
    let [images, dim] = frozen.dims();
    let step = Step {
        judgement: Default::default(),
        image: frozen.clone(),
        text: draws("text", [4, dim], 1.0, &plain()),
        prompts: None,
        logits: draws("logits", [images, 4], 1.0, &plain()),
        labels: &LABELS,
        scale: 10.0,
        frozen_image: Some(frozen.clone()),
        prior: None,
        described: None,
    };
    let loss = adapter.learner().loss(&step).task;
    let moved = if loss.is_autodiff() { gradients(adapter, &loss) } else { Vec::new() };
    let moved = moved.iter().find(|one| one.name.ends_with(parameter)).and_then(|one| one.greatest);
    (values(loss)[0] - values(step.cross_entropy())[0], moved)
}

fn frozen() -> Tensor<2> {
    tiny().encode_image(pixels(LABELS.len()), &Frozen, &Pass::evaluate())
}

/// Cosines of two lists of rows.
fn cosines(left: &[f32], right: &[f32], width: usize) -> Vec<Vec<f64>> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let cosine = |a: &[f32], b: &[f32]| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
    left.chunks(width).map(|a| right.chunks(width).map(|b| cosine(a, b)).collect()).collect()
}

#[test]
fn keys_of_a_pool_are_drawn_to_the_images_that_choose_them() {
    for (name, settings, top) in [("l2p", "pull = 0.5\ntop = 3", 3), ("dual-prompt", "pull = 0.5", 1)] {
        let adapter = trained(&configured(name, settings), &tracked());
        let (frozen, parameters) = (frozen(), adapter.parameters());
        let [images, dim] = frozen.dims();
        let mut near = 0.0;
        for mut row in cosines(&values(frozen.clone()), &parameters["keys"].data, dim) {
            row.sort_by(|left, right| right.total_cmp(left));
            near += row[..top].iter().sum::<f64>();
        }
        let (found, moved) = added(&adapter, &frozen, "keys");
        close(name, &[found], &[(-0.5 * near / images as f64) as f32], 1e-5);
        assert!(moved > Some(0.0), "{name}: {moved:?}");
    }
}

#[test]
fn components_are_held_apart() {
    let adapter = trained(&configured("coda-prompt", "components = 5\ndepth = 2\northo = 0.25"), &tracked());
    let parameters: Parameters = adapter.parameters();
    let mut expected = 0.0;
    for name in ["attention", "keys", "prompts"] {
        for block in 0..2 {
            let tensor = &parameters[&format!("blocks.{block}.{name}")];
            let width = tensor.data.len() / 5;
            let rows: Vec<&[f32]> = tensor.data.chunks(width).collect();
            for (at, left) in rows.iter().enumerate() {
                for (other, right) in rows.iter().enumerate() {
                    let dot: f64 = left.iter().zip(*right).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                    expected += (dot - f64::from(u8::from(at == other))).powi(2) / 25.0;
                }
            }
        }
    }
    let (found, moved) = added(&adapter, &frozen(), "blocks.1.keys");
    close("overlap", &[found], &[(0.25 * expected) as f32], 1e-4);
    assert!(moved > Some(0.0), "{moved:?}");
    let free = trained(&configured("coda-prompt", "components = 5\northo = 0.0"), &tracked());
    assert_eq!(added(&free, &frozen(), "keys"), (0.0, None));
}

#[test]
fn a_feature_that_is_known_is_the_one_that_would_be_computed() {
    for (name, settings) in
        [("l2p", ""), ("coda-prompt", "components = 5"), ("dual-prompt", ""), ("s-prompts", "experiences = 3")]
    {
        let config: MethodConfig = configured(name, settings);
        let adapter = trained(&config, &plain());
        let query = normalise(frozen());
        let asked = tiny().encode_image(pixels(3), &adapter, &Pass::evaluate());
        let told = tiny().encode_image(pixels(3), &adapter, &Pass { query: Some(&query), ..Pass::evaluate() });
        same(name, told, asked.clone(), 0.0);
        // The opposite feature asks for other prompts.
        let turned = query.neg();
        let other = tiny().encode_image(pixels(3), &adapter, &Pass { query: Some(&turned), ..Pass::evaluate() });
        crate::support::differs(name, asked, other);
    }
}
