//! Features over HTTP equal those of the library.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use inarch_core::backbone::{Pass, values};
use inarch_peft::Artifact;
use serde_json::{Value, json};

use super::client::encoded;
use super::world::{picture, saved, serve, settings};
use crate::contract::case::configured;
use crate::support::tiny;

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().expect("numbers").iter().map(|number| number.as_f64().expect("a number") as f32).collect()
}

#[track_caller]
fn close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    assert!(found.iter().zip(expected).all(|(left, right)| (left - right).abs() < 1e-5), "{found:?} {expected:?}");
}

#[test]
fn texts_and_images_share_a_space() {
    let root = tempfile::tempdir().expect("a folder");
    let folder = saved(root.path(), "words", &configured("lora", ""));
    let artifact = Artifact::load(&folder, tiny()).expect("what was saved");
    let (_running, client) = serve(&[folder], settings());
    let picture = picture(1);
    let input = json!(["a red hat", { "image": encoded(&picture) }, "a dog"]);
    let raw = json!({ "model": "words", "input": input, "normalize": false });
    let answer = client.post("/v1/embeddings", &raw).ok();
    assert_eq!((&answer["object"], &answer["model"]), (&json!("list"), &json!("words")));
    let rows: Vec<Vec<f32>> =
        answer["data"].as_array().expect("rows").iter().map(|row| numbers(&row["embedding"])).collect();
    let tokens = tiny().tokenize(&["a red hat", "a dog"]).expect("plain texts");
    assert_eq!(answer["usage"]["prompt_tokens"], tokens.iter().map(Vec::len).sum::<usize>());
    for (row, at) in [(0, 0), (1, 2)] {
        let text = tiny().encode_text(&tokens[row..=row], artifact.adapter.sites(), &Pass::evaluate());
        close(&rows[at], &values(text));
    }

    let packed = json!({ "model": "words", "input": input, "encoding_format": "base64" });
    let packed = client.post("/v1/embeddings", &packed).ok();
    let bytes = STANDARD.decode(packed["data"][1]["embedding"].as_str().expect("base64")).expect("base64");
    let unit: Vec<f32> = bytes.chunks(4).map(|four| f32::from_le_bytes(four.try_into().expect("four bytes"))).collect();
    let length = rows[1].iter().map(|value| value * value).sum::<f32>().sqrt();
    close(&unit, &rows[1].iter().map(|value| value / length).collect::<Vec<_>>());

    let ask = json!({ "model": "words", "images": [encoded(&picture)], "texts": ["a red hat", "a dog"] });
    let answer = client.post("/v1/similarity", &ask).ok();
    let cosine = |text: &[f32]| {
        let length = text.iter().map(|value| value * value).sum::<f32>().sqrt();
        text.iter().zip(&unit).map(|(left, right)| left * right).sum::<f32>() / length
    };
    close(&numbers(&answer["similarities"][0]), &[cosine(&rows[0]), cosine(&rows[2])]);
    assert_eq!(client.post("/v1/embeddings", &json!({ "input": [] })).fault().0, 400);
    assert_eq!(client.post("/v1/embeddings", &json!({ "input": 7 })).fault().0, 400);
}
