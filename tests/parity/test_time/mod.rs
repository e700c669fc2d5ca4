//! Answers of test-time adaptation equal those of an independent implementation in PyTorch; `generate.py` beside this file
//! made the expected ones.
//!
//! Tolerance: both sides compute a stream in single precision, and what a memory takes in decides what follows, so a
//! difference of rounding stays one of rounding: 2e-4 of the greatest probability. Contexts after an AdamW step are within
//! 1e-5, since the step is the rate times a sign where the gradient is not near zero, which the generator checks.

use std::sync::Arc;

use inarch_core::backbone::{Entry, Frozen, StateDict, values};
use inarch_core::checkpoint::read_safetensors;
use inarch_core::text::Template;
use inarch_peft::Classifier;
use inarch_recipes::test_time::{Answer, Cosine, Episode, Model, Rows, Score, Stream, TestTimeConfig, World};

use crate::support::{classes, close, fixture, plain, tiny};

/// The logit scale of the stream of features.
const SCALE: f32 = 14.0;

fn tensors(name: &str) -> StateDict {
    read_safetensors(&fixture(&format!("parity/test_time/{name}.safetensors"))).expect("a fixture").0
}

fn rows(tensors: &StateDict, name: &str) -> Rows {
    let tensor = &tensors[name];
    Rows::new(*tensor.shape.last().expect("axes"), tensor.data.clone())
}

/// The episodes of a stream of view features `[images, views, dim]`.
fn episodes(score: &dyn Score, stream: &Rows, views: usize, text: Rows) -> Vec<Episode> {
    let text = Arc::new(text);
    let device = plain();
    let logits = Rows::from_tensor(score.logits(&stream.tensor(&device), &text.tensor(&device)));
    let episode = |image: usize| {
        let own: Vec<usize> = (image * views..(image + 1) * views).collect();
        Episode {
            id: format!("{image}.png"),
            features: stream.select(&own),
            logits: logits.select(&own),
            text: Arc::clone(&text),
            from_files: 0,
            stream: None,
            judged: None,
        }
    };
    (0..stream.count() / views).map(episode).collect()
}

fn probabilities(answers: &[Answer]) -> Vec<f32> {
    let softmax = |answer: &Answer| {
        let greatest = answer.scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let shares: Vec<f32> = answer.scores.iter().map(|score| (score - greatest).exp()).collect();
        let sum: f32 = shares.iter().sum();
        shares.into_iter().map(move |share| share / sum)
    };
    answers.iter().flat_map(softmax).collect()
}

fn config(name: &str, settings: &[&str]) -> TestTimeConfig {
    let settings: Vec<String> = settings.iter().map(|setting| format!("test-time.{setting}")).collect();
    TestTimeConfig::new(name, &settings).expect("valid settings")
}

#[test]
fn methods_on_features_equal_pytorch() {
    let tensors = tensors("features");
    let [_, views, dim] = tensors["stream"].shape[..] else { panic!("three axes") };
    let (text, device, score) = (rows(&tensors, "text"), plain(), Cosine { scale: SCALE });
    let world = World { score: &score, device: &device, classes: text.count(), dim, model: None, judge: None };
    let episodes = episodes(&score, &rows(&tensors, "stream"), views, text);
    let mut compared = 0;
    for (name, expected) in tensors.iter().filter(|(name, _)| !["text", "stream"].contains(&name.as_str())) {
        let (method, settings): (&str, &[&str]) = match name.as_str() {
            "dmn, small" => ("dmn", &["capacity=4"]),
            method => (method, &[]),
        };
        let config = config(method, settings);
        let mut method = config.method.begin(&world, Some(episodes.len())).expect("features will do");
        // Batches of seven: the answers do not depend on them.
        let answers: Vec<Answer> =
            episodes.chunks(7).flat_map(|batch| method.adapt(&world, batch).expect("answers")).collect();
        close(name, &probabilities(&answers), &expected.data, 2e-4);
        assert!(method.bytes() <= config.method.most_bytes(world.classes, dim), "{name}: memory");
        compared += 1;
    }
    assert_eq!(compared, 10);
}

fn classifier() -> Classifier<'static> {
    let template = Template::new("a photo of a {}.").expect("one place");
    Classifier::zero_shot(tiny(), &classes(), &[template]).expect("plain names")
}

#[test]
fn adapted_prompts_equal_pytorch() {
    let tensors = tensors("towers");
    let [_, views, dim] = tensors["stream"].shape[..] else { panic!("three axes") };
    let classifier = classifier();
    let model = Model { backbone: tiny(), classifier: &classifier, sites: &Frozen };
    let (device, judge) = (plain(), rows(&tensors, "judge.text"));
    let text = rows(&tensors, "text");
    let world = World { score: &model, device: &device, classes: 4, dim, model: Some(model), judge: Some(&judge) };
    let mut episodes = episodes(&model, &rows(&tensors, "stream"), views, text.clone());
    let found = Rows::from_tensor(inarch_core::backbone::normalise(classifier.features(&Frozen)));
    close("class features", found.values(), text.values(), 1e-5);
    let judged = rows(&tensors, "judge.stream");
    for (image, episode) in episodes.iter_mut().enumerate() {
        // The two surest of twenty views, the surest first.
        let mut order: Vec<usize> = (0..views).collect();
        let sharpness = |view: &usize| {
            let row = episode.logits.row(*view);
            let sum: f32 = row.iter().map(|score| score.exp()).sum();
            row.iter().map(|score| -(score.exp() / sum) * (score.exp() / sum).ln()).sum::<f32>()
        };
        order.sort_by(|left, right| sharpness(left).total_cmp(&sharpness(right)));
        episode.judged = Some(judged.select(&[image * views + order[0], image * views + order[1]]));
    }
    for (name, method, settings) in [
        ("tpt", "tpt", &["steps=1"]),
        ("tpt, three steps", "tpt", &["steps=3"]),
        ("c-tpt", "c-tpt", &["lambda=50.0"]),
        ("rlcf", "rlcf", &["judge=any"]),
    ] {
        let config = config(method, settings);
        let mut method = config.method.begin(&world, None).expect("a model");
        let answers = method.adapt(&world, &episodes).expect("answers");
        let contexts: Vec<f32> = answers.iter().flat_map(|answer| answer.adapted.clone().expect("a context")).collect();
        close(&format!("{name}: contexts"), &contexts, &tensors[&format!("{name}.contexts")].data, 1e-5);
        close(&format!("{name}: answers"), &probabilities(&answers), &tensors[&format!("{name}.answers")].data, 2e-4);
        assert!(
            contexts.chunks(contexts.len() / 5).all(|context| context != tensors["context"].data.as_slice()),
            "{name}: a context stayed as it was"
        );
    }
}

#[test]
fn tuned_normalisations_equal_pytorch() {
    let tensors = tensors("towers");
    let classifier = classifier();
    let model = Model { backbone: tiny(), classifier: &classifier, sites: &Frozen };
    let device = plain();
    let text = rows(&tensors, "text");
    let world = World { score: &model, device: &device, classes: 4, dim: 24, model: Some(model), judge: None };
    let path = fixture("parity/clip_tiny/quick/expected.safetensors");
    let pixels = read_safetensors(&path).expect("a fixture").0.remove("pixels").expect("pixels");
    let shape = <[usize; 4]>::try_from(pixels.shape).expect("four axes");
    let pixels = tiny().pixels(pixels.data, shape).expect("the backbone's size");
    let partial = tiny().start_image(pixels.clone(), Entry::Tokens);
    let tokens = partial.stream().expect("tokens");
    let features = tiny().encode_image(pixels, &Frozen, &inarch_core::backbone::Pass::evaluate());
    let features = Rows::from_tensor(inarch_core::backbone::normalise(features));
    let mut episodes = episodes(&model, &features, 1, text);
    for (image, episode) in episodes.iter_mut().enumerate() {
        episode.stream = Some(Stream { entry: Entry::Tokens, tokens: tokens.clone().narrow(0, image, 1) });
    }
    for (name, settings) in
        [("tent", &["lr=0.01"][..]), ("sar", &["lr=0.01", "reliable=0.9", "rho=0.05", "recover=0.0"][..])]
    {
        let config = config(name, settings);
        let mut method = config.method.begin(&world, None).expect("a model");
        let answers: Vec<Answer> = (0..3).flat_map(|_| method.adapt(&world, &episodes).expect("answers")).collect();
        close(name, &probabilities(&answers), &tensors[&format!("{name}.answers")].data, 2e-4);
    }
    assert!(tiny().verify(), "the backbone's bytes changed");
    assert!(values(tokens).iter().all(|value| value.is_finite()));
}
