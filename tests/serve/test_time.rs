//! Adaptation over HTTP gives the answers of the library, and keeps one stream for each model and method.

use std::path::Path;

use inarch_core::Digest;
use inarch_core::image::decode_image_bytes;
use inarch_peft::Artifact;
use inarch_recipes::test_time::{Model, Snapshot, TestTime, TestTimeConfig};
use inarch_serve::Settings;
use serde_json::{Value, json};

use super::client::{Client, encoded};
use super::world::{agree, picture, saved, serve, settings};
use crate::contract::case::configured;
use crate::support::tiny;

/// Probabilities of the library for a stream of pictures, in order.
fn library(artifact: &Artifact, method: &str, numbers: &[u32]) -> (Vec<Vec<(String, f32)>>, Snapshot) {
    let classifier = artifact.classifier(tiny(), None).expect("its own classes");
    let model = Model { backbone: tiny(), classifier: &classifier, sites: artifact.adapter.sites() };
    let config = TestTimeConfig::new(method, &[]).expect("a known method");
    let mut tester = TestTime::new(model, &config, None, None).expect("a method that fits");
    let answer = |number: &u32| {
        let bytes = picture(*number);
        let image = decode_image_bytes(&bytes, Path::new("picture")).expect("a picture");
        let name = Digest::of(&bytes).to_string();
        let outcome = tester.classify(&[(name.as_str(), &image)]).expect("an answer").remove(0);
        classifier.classes().iter().cloned().zip(outcome.probabilities()).collect()
    };
    let answers = numbers.iter().map(answer).collect();
    (answers, tester.snapshot())
}

fn ask(client: &Client, method: &str, number: u32) -> Value {
    let body = json!({ "model": "clothes", "image": encoded(&picture(number)), "top_k": 9, "test_time": method });
    client.post("/v1/classify", &body).ok()
}

#[test]
fn episodes_and_streams_answer_as_in_the_library() {
    let root = tempfile::tempdir().expect("a folder");
    let folder = saved(root.path(), "clothes", &configured("lora", ""));
    let artifact = Artifact::load(&folder, tiny()).expect("what was saved");
    let (_running, client) = serve(&[folder], settings());

    let (alone, _) = library(&artifact, "zero", &[1]);
    for _ in 0..2 {
        let answer = ask(&client, "zero", 1);
        agree("zero", &answer["predictions"], &alone[0]);
        assert_eq!((&answer["test_time"]["method"], &answer["test_time"]["stream"]), (&json!("zero"), &Value::Null));
    }

    let numbers = [1, 2, 3, 1, 2, 3, 1];
    let (answers, state) = library(&artifact, "tda", &numbers);
    let mut stream = Value::Null;
    for (number, expected) in numbers.iter().zip(&answers) {
        let answer = ask(&client, "tda", *number);
        agree("tda", &answer["predictions"], expected);
        stream = answer["test_time"]["stream"].clone();
    }
    let streams = client.get("/v1/streams").ok();
    assert_eq!((&streams[0]["id"], &streams[0]["images"]), (&stream, &json!(numbers.len())));
    let path = format!("/v1/streams/{}", stream.as_str().expect("an id"));
    let bytes = client.bytes(&path);
    let file = root.path().join("state");
    std::fs::write(&file, bytes).expect("a writable folder");
    assert_eq!(Snapshot::read(&file).expect("a state"), state);

    assert_eq!(client.delete(&path).status, 204);
    agree("from the beginning", &ask(&client, "tda", 1)["predictions"], &answers[0]);
    assert_eq!(client.delete("/v1/streams/none").fault(), (404, "unknown_stream".into()));
}

#[test]
fn images_that_are_not_held_at_once_have_the_same_answers() {
    let root = tempfile::tempdir().expect("a folder");
    let folder = saved(root.path(), "clothes", &configured("lora", ""));
    let artifact = Artifact::load(&folder, tiny()).expect("what was saved");
    // As many pixels as one of the pictures has.
    let (_running, client) = serve(&[folder], Settings { image_pixels: 40 * 36, ..settings() });
    let numbers = [1, 2, 3, 1];
    let (answers, _) = library(&artifact, "zero", &numbers);
    let images = numbers.map(|number| encoded(&picture(number)));
    let body = json!({ "model": "clothes", "images": images, "top_k": 9, "test_time": "zero" });
    let answer = client.post("/v1/classify", &body).ok();
    let results = answer["results"].as_array().expect("results");
    assert_eq!(results.len(), answers.len());
    for (result, expected) in results.iter().zip(&answers) {
        agree("one by one", &result["predictions"], expected);
    }
}

#[test]
fn methods_that_cannot_be_served_are_named() {
    let root = tempfile::tempdir().expect("a folder");
    let folder = saved(root.path(), "clothes", &configured("lora", ""));
    let (_running, client) = serve(&[folder], settings());
    for (method, words) in [("magic", "tda"), ("rlcf", "second backbone")] {
        let body = json!({ "model": "clothes", "image": encoded(&picture(1)), "test_time": method });
        let reply = client.post("/v1/classify", &body);
        assert_eq!(reply.fault(), (400, "invalid_request".into()));
        assert!(reply.text.contains(words), "{}", reply.text);
    }
}
