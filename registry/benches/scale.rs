//! What an operation costs when there are 10, 1,000 and 100,000 versions: `cargo bench -p inarch-registry`. Figures go to
//! `docs/benchmarks.md`. `INARCH_BENCH_VERSIONS=10,1000` takes other sizes.

use std::time::{Duration, Instant};

use inarch_registry::{Digest, PublishRequest, PushOptions, Query, Registry, Source, Transfer, open_remote};

/// How often each operation is measured.
const REPEATS: u32 = 30;

fn request(seed: u64) -> PublishRequest {
    let head = r#"{"weight":{"dtype":"F32","shape":[1000],"data_offsets":[0,4000]}}"#;
    let mut tensors = (head.len() as u64).to_le_bytes().to_vec();
    tensors.extend(head.as_bytes());
    tensors.extend((0..1000_u64).flat_map(|at| ((at * 2_654_435_761 + seed) as f32).to_le_bytes()));
    let card = format!(
        r#"{{"schema":1,"method":{{"name":"lora"}},"backbone":{{"name":"pocket","digest":"{}"}},"metrics":{{"accuracy":0.5}},"tensors":"{}"}}"#,
        Digest::of(b"pocket"),
        Digest::of(&tensors)
    );
    let files = vec![
        ("adapter.safetensors".into(), Source::Bytes(tensors)),
        ("adapter.json".into(), Source::Bytes(card.into_bytes())),
    ];
    PublishRequest { files, ..PublishRequest::new("chest".parse().expect("a name")) }
}

/// The median.
fn measure(mut operation: impl FnMut(u32)) -> Duration {
    let mut times: Vec<Duration> = (0..REPEATS)
        .map(|repeat| {
            let started = Instant::now();
            operation(repeat);
            started.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

#[expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
fn main() {
    let sizes = std::env::var("INARCH_BENCH_VERSIONS").unwrap_or_else(|_| "10,1000,100000".into());
    let folder = tempfile::tempdir().expect("a folder");
    let registry = Registry::open(folder.path().join("registry")).expect("a registry");
    let mirror = folder.path().join("mirror").display().to_string();
    let remote =
        open_remote(&mirror, None).or_else(|_| open_remote(&format!("file://{mirror}"), None)).expect("a remote");
    println!(
        "| versions | publish | resolve | checkout | verify one | pull | search, first | search, again | gc, dry |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let mut published = 0;
    for size in sizes.split(',').map(|size| size.trim().parse::<u64>().expect("a number")) {
        while published + u64::from(REPEATS) < size {
            registry.publish(request(published)).expect("published");
            published += 1;
        }
        let publish = measure(|_| {
            registry.publish(request(published)).expect("published");
            published += 1;
        });
        let number = |repeat: u32| (u64::from(repeat) * 7919) % published + 1;
        let resolve =
            measure(|repeat| drop(registry.resolve(&format!("chest@{}", number(repeat))).expect("a version")));
        let version = |repeat: u32| registry.resolve(&format!("chest@{}", number(repeat))).expect("a version");
        let checkout = measure(|repeat| drop(registry.checkout(&version(repeat)).expect("a checkout")));
        let verify = measure(|repeat| drop(registry.verify_version(&version(repeat)).expect("verified")));
        for repeat in 0..REPEATS {
            registry.push(&version(repeat), &*remote, &PushOptions::default(), &Transfer::default()).expect("pushed");
        }
        let name = "chest".parse().expect("a name");
        // A registry that holds as many already is what a device has that was never cleaned.
        let pull = measure(|repeat| {
            let there = Registry::open(folder.path().join(format!("there-{size}-{repeat}"))).expect("a registry");
            let selector = number(repeat).to_string().parse().expect("a number");
            there.pull(&name, &selector, &*remote, &Transfer::default()).expect("pulled");
        });
        let query = Query { metrics: vec!["accuracy>=0.5".parse().expect("a bound")], limit: 1, ..Query::default() };
        let started = Instant::now();
        registry.search(&query).expect("a search");
        let first = started.elapsed();
        let started = Instant::now();
        registry.search(&query).expect("a search");
        let again = started.elapsed();
        let started = Instant::now();
        registry.gc(&inarch_registry::GcPolicy { keep: None, dry_run: true }).expect("a plan");
        let gc = started.elapsed();
        let cells = [publish, resolve, checkout, verify, pull, first, again, gc];
        let cells: Vec<String> = cells.iter().map(|time| format!("{:.3} ms", time.as_secs_f64() * 1e3)).collect();
        println!("| {size} | {} |", cells.join(" | "));
    }
}
