//! Answers of `/v1/classify` in all its forms.

use std::io::Cursor;
use std::sync::Barrier;
use std::time::Duration;

use image::{DynamicImage, GrayImage, ImageBuffer, ImageFormat, Luma};
use inarch_peft::Artifact;
use inarch_serve::Settings;
use serde_json::json;

use super::client::encoded;
use super::world::{agree, alone, picture, saved, serve, settings, variant};
use crate::contract::case::{artifact, configured, methods};
use crate::support::{classes, tiny};

#[test]
fn every_method_answers_as_alone() {
    let root = tempfile::tempdir().expect("a folder");
    let methods = methods();
    let folders: Vec<_> =
        methods.iter().enumerate().map(|(at, method)| saved(root.path(), &format!("m{at}"), method)).collect();
    // The first batch waits, so that the threads below meet in one.
    let (_running, client) =
        serve(&folders, Settings { batch_wait: Duration::from_millis(200), batch: 64, ..settings() });
    let together = Barrier::new(folders.len());
    std::thread::scope(|scope| {
        for (at, (folder, method)) in folders.iter().zip(&methods).enumerate() {
            let (client, together) = (client.clone(), &together);
            scope.spawn(move || {
                let picture = picture(at as u32 % 3);
                let artifact = Artifact::load(folder, tiny()).expect("what was saved");
                together.wait();
                let answer = client.classify(&format!("m{at}"), &picture).ok();
                assert_eq!(answer["model"], format!("m{at}"));
                agree(method.name(), &answer["predictions"], &alone(Some(&artifact), &picture, &[]));
            });
        }
    });
    let page = client.get("/metrics").text;
    let sum = |name: &str| {
        let line =
            page.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap_or_else(|| panic!("{name}\n{page}"));
        line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).expect("a number")
    };
    assert_eq!(sum("inarch_batch_images_sum"), folders.len() as f64);
    assert!(sum("inarch_batch_images_count") < folders.len() as f64 / 2.0, "requests shared batches\n{page}");
}

#[test]
fn deep_images_are_shown_in_the_window_of_the_adapter() {
    let root = tempfile::tempdir().expect("a folder");
    let lora = configured("lora", "");
    let plain = saved(root.path(), "plain", &lora);
    let mut windowed = artifact(&lora);
    windowed.manifest.window = "1500:3000".parse().ok();
    let folder = root.path().join("windowed");
    windowed.save(&folder).expect("a writable folder");
    // Nearly black in the whole range of 16 bits.
    let value = |x: u32, y: u32| (x * 61 + y * y * 37) % 3000;
    let deep: ImageBuffer<Luma<u16>, Vec<u16>> = ImageBuffer::from_fn(40, 36, |x, y| Luma([value(x, y) as u16]));
    let shown = GrayImage::from_fn(40, 36, |x, y| Luma([(f64::from(value(x, y)) / 3000.0 * 255.0).round() as u8]));
    let [deep, shown] = [DynamicImage::from(deep), DynamicImage::from(shown)].map(|image| {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, ImageFormat::Png).expect("a picture");
        bytes.into_inner()
    });
    let (_running, client) = serve(&[plain, folder], settings());
    let answer = client.classify("windowed", &deep).ok();
    agree("windowed", &answer["predictions"], &alone(Some(&windowed), &shown, &[]));
    assert_ne!(client.classify("plain", &deep).ok()["predictions"], answer["predictions"]);
}

#[test]
fn all_forms_of_a_request_mean_the_same() {
    let root = tempfile::tempdir().expect("a folder");
    let folder = saved(root.path(), "clothes", &configured("lora", ""));
    let artifact = Artifact::load(&folder, tiny()).expect("what was saved");
    let (_running, client) = serve(&[folder], settings());
    let pictures = [picture(1), picture(2)];
    let expected = pictures.each_ref().map(|picture| alone(Some(&artifact), picture, &[]));

    let json = client.classify("clothes", &pictures[0]).ok();
    agree("json", &json["predictions"], &expected[0]);
    let url = format!("data:image/png;base64,{}", encoded(&pictures[0]));
    let answer = client.post("/v1/classify", &json!({ "model": "clothes", "image": url, "top_k": 9 })).ok();
    agree("data url", &answer["predictions"], &expected[0]);
    let none = client.post("/v1/classify", &json!({ "model": "clothes", "image": url, "top_k": 0 }));
    assert_eq!(none.fault(), (400, "invalid_request".into()));
    assert!(none.text.contains("`top_k` must be at least 1"), "{}", none.text);
    let raw = client.send("/v1/classify?model=clothes&top_k=9", "image/png", &pictures[0]).ok();
    assert_eq!(raw, json);

    let images = pictures.each_ref().map(|picture| encoded(picture));
    let several = client.post("/v1/classify", &json!({ "model": "clothes", "images": images, "top_k": 9 }));
    for (at, expected) in expected.iter().enumerate() {
        agree("images", &several.ok()["results"][at]["predictions"], expected);
    }
    let body = json!({ "model": "clothes", "images": images, "top_k": 9 }).to_string();
    let headers = [("content-type", "application/json"), ("accept", "application/x-ndjson")];
    let lines = client.send_with("/v1/classify", &headers, body.as_bytes());
    assert_eq!(lines.headers["content-type"], "application/x-ndjson");
    for (line, expected) in lines.text.lines().zip(&expected) {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        agree("line", &line["predictions"], expected);
    }
    assert_eq!(lines.text.lines().count(), 2);

    let mut form = Vec::new();
    for (name, value) in [("model", &b"clothes"[..]), ("top_k", b"9"), ("image", &pictures[0]), ("image", &pictures[1])]
    {
        let file = if name == "image" { "; filename=\"a.png\"" } else { "" };
        form.extend(format!("--edge\r\ncontent-disposition: form-data; name=\"{name}\"{file}\r\n\r\n").bytes());
        form.extend(value);
        form.extend(b"\r\n");
    }
    form.extend(b"--edge--\r\n");
    let answer = client.send("/v1/classify", "multipart/form-data; boundary=edge", &form);
    assert_eq!(answer.ok(), several.ok());
}

#[test]
fn classes_and_templates_of_a_request_are_used() {
    let root = tempfile::tempdir().expect("a folder");
    let (lora, probe) = (configured("lora", ""), configured("linear-probe", ""));
    let folders = [saved(root.path(), "lora", &lora), saved(root.path(), "probe", &probe)];
    let artifact = Artifact::load(&folders[0], tiny()).expect("what was saved");
    let (_running, client) = serve(&folders, settings());
    let picture = picture(4);
    let ask = |body: serde_json::Value| {
        let mut body = body;
        body["image"] = encoded(&picture).into();
        body["top_k"] = 9.into();
        client.post("/v1/classify", &body)
    };
    let others = ["dog", "a big cat", "hat"].map(String::from);
    let free = ask(json!({ "model": "lora", "classes": others })).ok();
    agree("free classes", &free["predictions"], &alone(Some(&artifact), &picture, &others));
    let zero_shot = ask(json!({ "classes": others })).ok();
    assert_eq!(zero_shot["model"], tiny().name());
    agree("zero-shot", &zero_shot["predictions"], &alone(None, &picture, &others));
    let other = ask(json!({ "classes": others, "template": "a drawing of {}" })).ok();
    assert_ne!(other["predictions"], zero_shot["predictions"]);

    let fewer = classes()[1..].to_vec();
    let answer = ask(json!({ "model": "probe", "classes": fewer })).ok();
    assert_eq!(answer["predictions"].as_array().expect("a list").len(), fewer.len());
    assert_eq!(ask(json!({ "model": "probe", "classes": others })).fault(), (422, "unknown_class".into()));
    assert_eq!(ask(json!({ "model": "lora", "template": "a {}" })).fault(), (400, "invalid_request".into()));
    assert_eq!(ask(json!({})).fault(), (400, "invalid_request".into()));
    assert_eq!(ask(json!({ "model": "lora", "test_time": "magic" })).fault(), (400, "invalid_request".into()));
    let unknown = ask(json!({ "model": "lorax" }));
    assert_eq!(unknown.fault(), (404, "unknown_model".into()));
    assert!(unknown.json()["error"]["hint"].as_str().is_some_and(|hint| hint.contains("lora")));
}

#[test]
fn an_adapter_that_is_alone_is_folded_and_answers_the_same() {
    let root = tempfile::tempdir().expect("a folder");
    let folders = ["busy", "other"].map(|name| saved(root.path(), name, &configured("lora", "")));
    let artifact = Artifact::load(&folders[0], tiny()).expect("what was saved");
    let (_running, client) = serve(&folders, settings());
    let (picture, image) = (picture(5), encoded(&picture(5)));
    let images = vec![image; 64];
    let folded = || {
        let models = client.get("/v1/models").ok();
        let busy = models["data"].as_array().expect("a list").iter().find(|card| card["id"] == "busy").expect("busy");
        busy["folded"].as_bool().expect("a flag")
    };
    assert!(!folded());
    for _ in 0..16 {
        client.post("/v1/classify", &json!({ "model": "busy", "images": images })).ok();
    }
    assert!(folded(), "a thousand images for one adapter alone");
    agree("folded", &client.classify("busy", &picture).ok()["predictions"], &alone(Some(&artifact), &picture, &[]));
    for _ in 0..16 {
        client.post("/v1/classify", &json!({ "classes": ["cat", "dog"], "images": images })).ok();
    }
    assert!(!folded(), "no longer alone");
    agree("unfolded", &client.classify("busy", &picture).ok()["predictions"], &alone(Some(&artifact), &picture, &[]));
}

#[test]
fn relevance_is_the_loss_of_probability() {
    let root = tempfile::tempdir().expect("a folder");
    let folder = saved(root.path(), "clothes", &configured("vpt-deep", ""));
    let (_running, client) = serve(&[folder], settings());
    let picture = picture(6);
    let best = client.classify("clothes", &picture).ok()["predictions"][0].clone();
    let ask = json!({ "model": "clothes", "image": encoded(&picture), "grid": 3 });
    let answer = client.post("/v1/relevance", &ask).ok();
    assert_eq!(answer["label"], best["label"]);
    assert!((answer["score"].as_f64().expect("a score") - best["score"].as_f64().expect("a score")).abs() < 1e-4);
    let rows = answer["grid"].as_array().expect("rows");
    let cells: Vec<f64> =
        rows.iter().flat_map(|row| row.as_array().expect("cells")).filter_map(|cell| cell.as_f64()).collect();
    assert_eq!((rows.len(), cells.len()), (3, 9));
    assert!(cells.iter().any(|cell| cell.abs() > 1e-4), "{cells:?}");
    let wrong = json!({ "model": "clothes", "image": encoded(&picture), "label": "nothing" });
    assert_eq!(client.post("/v1/relevance", &wrong).fault(), (400, "invalid_request".into()));
}

#[test]
fn relevance_for_one_of_several_labels_is_of_the_probability_that_classify_gives() {
    let root = tempfile::tempdir().expect("a folder");
    let (folder, mut artifact) = variant(root.path(), "labels", &configured("lora", ""), 0.2);
    artifact.manifest.offsets = Some(vec![0.5; classes().len()]);
    artifact.save(&folder).expect("a writable folder");
    let (_running, client) = serve(&[folder], settings());
    let picture = picture(6);
    let best = client.classify("labels", &picture).ok()["predictions"][0].clone();
    let ask = json!({ "model": "labels", "image": encoded(&picture), "label": best["label"], "grid": 2 });
    let answer = client.post("/v1/relevance", &ask).ok();
    assert!((answer["score"].as_f64().expect("a score") - best["score"].as_f64().expect("a score")).abs() < 1e-4);
}
