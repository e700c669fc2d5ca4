//! Many adapters under constant change, in folders and in a registry that is being collected: no wrong answer, none missing,
//! bounded memory.
//!
//! `INARCH_SOAK_SECONDS` and `INARCH_SOAK_ADAPTERS` make it longer and larger.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use inarch_core::Seed;
use inarch_registry::{Expect, GcPolicy, PublishRequest, Registry, Version};
use inarch_serve::{Server, Settings};
use rand::RngExt as _;
use serde_json::json;

use super::client::Client;
use super::world::{agree, alone, backbone, picture, settings, variant};
use crate::contract::case::methods;

const PICTURES: u32 = 6;
const CLIENTS: usize = 4;
/// Versions in the registry.
const REGISTERED: usize = 6;

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Bytes of this process in memory, where the system tells.
fn resident_bytes() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    text.split(' ').nth(1)?.parse::<usize>().ok().map(|pages| pages * 4096)
}

#[test]
fn nothing_is_lost_or_wrong_under_change() {
    let (seconds, count) = (number("INARCH_SOAK_SECONDS", 5), number("INARCH_SOAK_ADAPTERS", 60));
    let root = tempfile::tempdir().expect("a folder");
    let methods = methods();
    // What each version answers alone, by its version; names are given to versions anew all the time.
    let mut expected: HashMap<String, Vec<Vec<(String, f32)>>> = HashMap::new();
    let pictures: Vec<Vec<u8>> = (0..PICTURES).map(picture).collect();
    let mut folders = Vec::new();
    for at in 0..count {
        let deviation = 0.1 + 0.5 * (at / methods.len()) as f32 / 16.0;
        let name = format!("a{at}");
        let (folder, artifact) = variant(root.path(), &name, &methods[at % methods.len()], deviation);
        let manifest = std::fs::read(folder.join("adapter.json")).expect("a manifest");
        let mut digest = inarch_core::DigestBuilder::default();
        digest.piece(&manifest);
        let version = digest.finish().short().to_string();
        expected.insert(version, pictures.iter().map(|picture| alone(Some(&artifact), picture, &[])).collect());
        folders.push(folder);
    }
    let registry = Registry::open(root.path().join("registry")).expect("a registry");
    let versions: Vec<_> = (0..REGISTERED)
        .map(|at| {
            let name = format!("v{at}");
            let (folder, artifact) = variant(root.path(), &name, &methods[3 * at], 0.7);
            let request = PublishRequest::folder("chest".parse().expect("a name"), &folder).expect("an adapter");
            let version = registry.publish(request).expect("a writable folder").version;
            let answers = pictures.iter().map(|picture| alone(Some(&artifact), picture, &[])).collect();
            expected.insert(version.number.to_string(), answers);
            version
        })
        .collect();
    let prod = "prod".parse().expect("an alias");
    let point = |version: &Version| registry.tag(&version.name, &prod, Some(version.number), Expect::Any, "soak");
    point(&versions[0]).expect("a known version");
    // Room for about a third of them, so that they are read and dropped all the time.
    let settings = Settings {
        adapter_root: Some(root.path().to_path_buf()),
        adapter_bytes: 400_000,
        class_bytes: 2 << 20,
        ..settings()
    };
    let source = std::sync::Arc::new(registry.clone());
    let running = Server::bind(backbone(), Some(source), &[], settings).expect("a server").spawn();
    let client = Client::new(running.address());
    for name in 0..count {
        let made = client.post("/v1/adapters", &json!({ "name": format!("n{name}"), "path": format!("a{name}") }));
        assert_eq!(made.status, 201, "{}", made.text);
    }
    let (stop, answered, refused) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let mut early = None;
    std::thread::scope(|scope| {
        for thread in 0..CLIENTS {
            let (client, pictures, expected) = (client.clone(), &pictures, &expected);
            let (stop, answered, refused) = (&stop, &answered, &refused);
            scope.spawn(move || {
                let mut rng = Seed::new(thread as u64).rng();
                while !stop.load(Ordering::Relaxed) {
                    let (name, at) = (rng.random_range(0..count), rng.random_range(0..pictures.len()));
                    let name = if rng.random_bool(0.2) { "chest@prod".into() } else { format!("n{name}") };
                    let reply = client.classify(&name, &pictures[at]);
                    if reply.status == 404 {
                        refused.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                    let answer = reply.ok();
                    let version = answer["version"].as_str().expect("a version");
                    agree(&format!("{name} at {version}"), &answer["predictions"], &expected[version][at]);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        scope.spawn(|| disturb(&client, count, &stop));
        scope.spawn(|| {
            let mut rng = Seed::new(98).rng();
            while !stop.load(Ordering::Relaxed) {
                point(&versions[rng.random_range(0..versions.len())]).expect("a known version");
                registry.gc(&GcPolicy::default()).expect("a registry");
            }
        });
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(seconds as u64) {
            std::thread::sleep(Duration::from_millis(100));
            if early.is_none() && started.elapsed() > Duration::from_secs(seconds as u64) / 3 {
                early = resident_bytes();
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(answered.load(Ordering::Relaxed) > 20 * seconds, "{answered:?} answers in {seconds} s");
    let page = client.get("/metrics").text;
    assert!(!page.contains("status=\"500\""), "{page}");
    let resident = client.get("/metrics").text;
    let resident = resident.lines().find(|line| line.starts_with("inarch_resident_adapters_bytes ")).expect("a gauge");
    let resident: u64 = resident.rsplit(' ').next().and_then(|bytes| bytes.parse().ok()).expect("a number");
    assert!(resident <= 400_000, "{resident} bytes of adapters");
    if let (Some(early), Some(late)) = (early, resident_bytes()) {
        // Other tests of this process run beside this one; a leak of one answer's size would be far more.
        assert!(late < early + (256 << 20), "{early} bytes at first, {late} at last");
    }
}

/// Gives names to other versions, takes them away and back, and sends what is no request.
fn disturb(client: &Client, count: usize, stop: &AtomicBool) {
    let mut rng = Seed::new(99).rng();
    while !stop.load(Ordering::Relaxed) {
        let (name, other) = (rng.random_range(0..count), rng.random_range(0..count));
        let reply = match rng.random_range(0..6) {
            0 => client.delete(&format!("/v1/adapters/n{name}")),
            1 => client.send("/v1/classify", "application/json", b"{\"model\": "),
            2 => client.send(&format!("/v1/classify?model=n{name}"), "image/png", b"no image"),
            3 => client.get("/v1/models"),
            _ => {
                let body = json!({ "name": format!("n{name}"), "path": format!("a{other}"), "replace": true });
                client.post("/v1/adapters", &body)
            }
        };
        assert!(reply.status < 500, "{reply:?}");
    }
}
