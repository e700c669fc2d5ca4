//! What is too much, too late or no request at all is answered with a fault that names it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use inarch_serve::Settings;
use serde_json::json;

use super::client::encoded;
use super::world::{picture, saved, serve, settings};
use crate::contract::case::configured;

#[test]
fn malformed_requests_are_named() {
    let root = tempfile::tempdir().expect("a folder");
    let folder = saved(root.path(), "clothes", &configured("lora", ""));
    let (_running, client) = serve(&[folder], settings());
    let image = encoded(&picture(1));
    for body in [
        "".into(),
        "{".into(),
        "[]".into(),
        "nul\0".into(),
        json!({ "model": "clothes" }).to_string(),
        json!({ "model": "clothes", "image": "***" }).to_string(),
        json!({ "model": "clothes", "images": [] }).to_string(),
        json!({ "model": "clothes", "image": image, "images": [image] }).to_string(),
        json!({ "model": "clothes", "image": image, "temperature": 3 }).to_string(),
        json!({ "model": "clothes", "image": "http://example.invalid/cat.png" }).to_string(),
        json!({ "model": "clothes", "image": image, "classes": ["cat", " "] }).to_string(),
        format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000)),
    ] {
        let reply = client.send("/v1/classify", "application/json", body.as_bytes());
        let shown: String = body.chars().take(60).collect();
        assert_eq!(reply.fault(), (400, "invalid_request".into()), "{shown}");
    }
    let whole = picture(1);
    for bytes in [&b"not an image"[..], &whole[..whole.len() / 2], b""] {
        let reply = client.send("/v1/classify?model=clothes", "image/png", bytes);
        assert_eq!(reply.fault(), (422, "bad_image".into()));
    }
    assert_eq!(client.send("/v1/classify", "text/plain", b"cat").fault(), (415, "unsupported_media_type".into()));
    assert_eq!(client.send("/v1/classify", "multipart/form-data", b"cat").fault().0, 400);
    assert_eq!(client.get("/v1/classify").fault(), (405, "wrong_method".into()));
    assert_eq!(client.get("/v2/classify").fault(), (404, "unknown_route".into()));
    let one_bad = json!({ "model": "clothes", "images": [image, encoded(b"bad")] }).to_string();
    let headers = [("content-type", "application/json"), ("accept", "application/x-ndjson")];
    let lines = client.send_with("/v1/classify", &headers, one_bad.as_bytes());
    let lines: Vec<serde_json::Value> =
        lines.text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(lines[0]["predictions"].is_array() && lines[1]["error"]["code"] == "bad_image", "{lines:?}");
    client.classify("clothes", &picture(1)).ok();
}

#[test]
fn sizes_are_checked_before_anything_is_decoded() {
    let few = Settings { body_bytes: 20_000, image_pixels: 10_000, images: 2, classes: 3, ..settings() };
    let root = tempfile::tempdir().expect("a folder");
    let folder = saved(root.path(), "clothes", &configured("lora", ""));
    let (_running, client) = serve(&[folder], few);
    let large = client.send("/v1/classify?model=clothes", "image/png", &vec![0; 30_000]);
    assert_eq!(large.fault(), (413, "too_large".into()));
    let bomb = b"P6 60000 60000 255\n123";
    let reply = client.send("/v1/classify?model=clothes", "image/x-portable-pixmap", bomb);
    assert_eq!(reply.fault(), (422, "bad_image".into()));
    assert!(reply.text.contains("limit of 10000"), "{}", reply.text);
    let image = encoded(&picture(1));
    let many = json!({ "model": "clothes", "images": [image, image, image] });
    assert_eq!(client.post("/v1/classify", &many).fault(), (413, "too_large".into()));
    let wide = json!({ "image": image, "classes": ["a", "b", "c", "d"] });
    assert_eq!(client.post("/v1/classify", &wide).fault(), (413, "too_large".into()));
}

#[test]
fn a_full_queue_says_when_to_come_again() {
    let root = tempfile::tempdir().expect("a folder");
    let folder = saved(root.path(), "clothes", &configured("lora", ""));
    // The only worker waits for a batch that never fills, so that what comes meanwhile waits in the queue.
    let slow = Settings { queue: 2, batch: 64, batch_wait: Duration::from_secs(3), ..settings() };
    let (_running, client) = serve(&[folder], slow);
    let picture = picture(1);
    let replies: Vec<u16> = std::thread::scope(|scope| {
        let ask = |_| scope.spawn(|| client.classify("clothes", &picture));
        let asked: Vec<_> = (0..6).map(ask).collect();
        let mut statuses = Vec::new();
        for reply in asked {
            let reply = reply.join().expect("an answer");
            if reply.status == 429 {
                assert_eq!(reply.fault().1, "queue_full");
                assert_eq!(reply.headers["retry-after"], "1");
            }
            statuses.push(reply.status);
        }
        statuses
    });
    let count = |status| replies.iter().filter(|found| **found == status).count();
    assert_eq!((count(200), count(429)), (2, 4), "{replies:?}");
}

#[test]
fn whoever_stops_sending_is_let_go() {
    let (running, client) = serve(&[], Settings { silence: Duration::from_millis(200), ..settings() });
    let begun = |text: &str| {
        let mut stream = TcpStream::connect(running.address()).expect("a server");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        stream.write_all(text.as_bytes()).expect("sent");
        let mut answer = [0; 12];
        let read = stream.read(&mut answer).expect("an answer, or the end");
        String::from_utf8_lossy(&answer[..read]).into_owned()
    };
    let body = "POST /v1/classify HTTP/1.1\r\nhost: a\r\ncontent-type: image/png\r\ncontent-length: 1000\r\n\r\nhalf";
    assert_eq!(begun(body), "HTTP/1.1 400");
    assert_eq!(begun("POST /v1/cla"), "", "the end");
    assert_eq!(client.get("/health").status, 200);
}

#[test]
fn what_takes_too_long_is_given_up() {
    let root = tempfile::tempdir().expect("a folder");
    let folder = saved(root.path(), "clothes", &configured("lora", ""));
    let wait = Duration::from_millis(700);
    let late = Settings { timeout: Duration::from_millis(100), batch: 64, batch_wait: wait, ..settings() };
    let (_running, client) = serve(&[folder], late);
    assert_eq!(client.classify("clothes", &picture(1)).fault(), (504, "timeout".into()));
    assert_eq!(client.get("/health").status, 200);
}

#[test]
fn a_server_that_stops_answers_what_it_took() {
    let root = tempfile::tempdir().expect("a folder");
    let folder = saved(root.path(), "clothes", &configured("lora", ""));
    let slow = Settings { batch: 64, batch_wait: Duration::from_millis(600), ..settings() };
    let (running, client) = serve(&[folder], slow);
    let address = running.address();
    let answer = std::thread::spawn({
        let client = client.clone();
        move || client.classify("clothes", &picture(1)).status
    });
    std::thread::sleep(Duration::from_millis(200));
    running.stop();
    assert_eq!(answer.join().expect("an answer"), 200);
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
}

#[test]
fn a_broken_request_line_is_no_reason_to_fall() {
    let (_running, client) = serve(&[], settings());
    let address = client.get("/health").ok();
    assert_eq!(address["status"], "ok");
    for bytes in [
        &b"\x00\x01\x02\r\n\r\n"[..],
        b"GET /health HTTP/9.9\r\n\r\n",
        b"POST /v1/classify HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(client.address()).expect("a server");
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        stream.write_all(bytes).expect("a server that reads");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
    }
    assert_eq!(client.get("/ready").status, 200);
}
