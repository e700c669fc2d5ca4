//! The losses of image-text pairs equal PyTorch's, in value and gradient, and are those that a training takes; `generate.py`
//! beside this file made the expected numbers.

mod training;

use burn::tensor::{Tensor, TensorData};
use inarch_core::backbone::{normalise, values};
use inarch_recipes::{PairLoss, Pairs};
use serde_json::Value;

use crate::support::{close, fixture, plain, tracked};

/// Sums of a few dozen single-precision terms.
const TOLERANCE: f32 = 1e-5;

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().expect("numbers").iter().map(|value| value.as_f64().expect("a number") as f32).collect()
}

fn number(value: &Value) -> f32 {
    value.as_f64().expect("a number") as f32
}

fn pairs(case: &Value) -> Pairs {
    let list = case["pairs"].as_array().expect("pairs");
    let text = |value: &Value| value.as_str().expect("a text").to_string();
    Pairs::new(list.iter().map(|pair| (text(&pair[0]), text(&pair[1]))))
}

fn cases() -> Vec<(String, Value)> {
    let text = std::fs::read_to_string(fixture("parity/pairs/expected.json")).expect("the fixture");
    let root: serde_json::Map<String, Value> = serde_json::from_str(&text).expect("JSON");
    assert_eq!(root.len(), 2);
    root.into_iter().collect()
}

/// Rows of a case.
fn rows(case: &Value, name: &str, count: usize) -> Tensor<2> {
    let data = numbers(&case[name]);
    let dim = data.len() / count;
    Tensor::from_data(TensorData::new(data, [count, dim]), &tracked())
}

#[test]
fn losses_and_gradients_equal_those_of_pytorch() {
    for (name, case) in cases() {
        let pairs = pairs(&case);
        let (images, texts) = (case["pairs"].as_array().expect("pairs").len(), pairs.texts.len());
        for loss in [PairLoss::Softmax, PairLoss::Sigmoid] {
            let image = rows(&case, "image", images).require_grad();
            let text = rows(&case, "text", texts).require_grad();
            let leaf = |value: f32| Tensor::<1>::from_data([value], &tracked()).require_grad();
            let (log_scale, bias) = (leaf(number(&case["scale"]).ln()), leaf(number(&case["bias"])));
            let (scale, own) = (log_scale.clone().exp(), (normalise(image.clone()), normalise(text.clone())));
            let (kind, value) = match loss {
                PairLoss::Softmax => ("softmax", pairs.loss(own.0, own.1, scale, number(&case["smoothing"]))),
                PairLoss::Sigmoid => ("sigmoid", pairs.sigmoid_loss(own.0, own.1, scale, bias.clone())),
            };
            let expected = &case[kind];
            let what = format!("{name} {kind}");
            close(&what, &values(value.clone()), &[number(&expected["loss"])], TOLERANCE);
            let found = value.backward();
            let wanted = |leaf: &str| numbers(&expected["gradients"][leaf]);
            let gradient = |leaf: &Tensor<2>| values(leaf.grad(&found).expect("a gradient"));
            close(&format!("{what} image"), &gradient(&image), &wanted("image"), TOLERANCE);
            close(&format!("{what} text"), &gradient(&text), &wanted("text"), TOLERANCE);
            close(&what, &values(log_scale.grad(&found).expect("a gradient")), &wanted("log_scale"), TOLERANCE);
            match loss {
                PairLoss::Softmax => assert!(bias.grad(&found).is_none()),
                PairLoss::Sigmoid => {
                    close(&what, &values(bias.grad(&found).expect("a gradient")), &wanted("bias"), TOLERANCE);
                }
            }
        }
    }
}

#[test]
fn the_likeliest_offset_expects_as_many_matches_as_there_are() {
    for (name, case) in cases() {
        let pairs = pairs(&case);
        let images = case["pairs"].as_array().expect("pairs").len();
        let image = normalise(rows(&case, "image", images));
        let text = normalise(rows(&case, "text", pairs.texts.len()));
        let found = pairs.likeliest_bias(image.clone(), text.clone(), number(&case["scale"]));
        close(&name, &[found], &[number(&case["likeliest_bias"])], 1e-4);
        // The loss is least there.
        let loss = |bias: f32| {
            let number = |value: f32| Tensor::<1>::from_data([value], &plain());
            let (image, text) = (image.clone().without_autodiff(), text.clone().without_autodiff());
            values(pairs.sigmoid_loss(image, text, number(7.3), number(bias)))[0]
        };
        assert!(loss(found) < loss(found - 0.1) && loss(found) < loss(found + 0.1), "{name}");
    }
    // A batch of one group has matches only: no offset is too high, and the one that is found is a number.
    let same = Pairs::new(["a", "b"].map(|text| (text.to_string(), "one".to_string())));
    let features = Tensor::<2>::from_data([[1.0, 0.0], [0.0, 1.0]], &plain());
    let found = same.likeliest_bias(features.clone(), features, 100.0);
    assert!(found.is_finite() && found > 10.0, "{found}");
}
