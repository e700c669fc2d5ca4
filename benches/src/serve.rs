//! Serving many LoRA adapters over one backbone: throughput by the number of adapters in the mix, latency at half load, swaps,
//! memory, and the same load on a Python server (FastAPI, transformers, PEFT) in the same run.
//!
//!     cargo run --release --workspace --bin bench-serve -- --backbone FOLDER --images FOLDER [--python PYTHON]

mod peer;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use burn::tensor::Tensor;
use clap::Parser;
use inarch_core::Seed;
use inarch_core::backbone::Backbone;
use inarch_core::checkpoint::open_backbone;
use inarch_core::text::TemplateSet;
use inarch_peft::{Artifact, MethodConfig, Provenance, Start, write_peft};
use inarch_serve::{Preload, Server, Settings};
use serde::Serialize;
use serde_json::json;
use ureq::Agent;

use self::peer::theirs;

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Measures serving.
#[derive(Parser)]
struct Arguments {
    /// Folder of a CLIP in the Hugging Face layout
    #[arg(long)]
    backbone: PathBuf,
    /// Folder of JPEGs, at any depth
    #[arg(long)]
    images: PathBuf,
    /// Python with torch, transformers, peft, fastapi and uvicorn (`peers/requirements.txt`); the peer is left out without
    #[arg(long)]
    python: Option<PathBuf>,
    /// Adapters
    #[arg(long, default_value_t = 256)]
    adapters: usize,
    /// Adapters of the peer, which takes minutes to load more
    #[arg(long, default_value_t = 64)]
    peer_adapters: usize,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Requests in flight
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Where ours runs: `cpu`, or what the features of this package add; the peer stays on the processor
    #[arg(long, default_value = "cpu")]
    device: String,
}

/// Adapters that are only used to time what the server has never seen.
const NEW: usize = 30;

/// Figures of one load.
#[derive(Debug, Clone, Serialize)]
struct Load {
    server: &'static str,
    adapters: usize,
    images_per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    backbone: String,
    loads: Vec<Load>,
    half_load: Load,
    /// Moving a name to another resident version.
    swap_resident_p50_ms: f64,
    swap_resident_p99_ms: f64,
    /// The first answer of an adapter that was on disk, less that of one in memory: one that was in memory before.
    swap_disk_p50_ms: f64,
    swap_disk_p99_ms: f64,
    /// The same for one that this process has never seen, with its self-test and the text features of its classes.
    swap_new_p50_ms: f64,
    swap_new_p99_ms: f64,
    bytes_per_adapter: u64,
}

fn main() -> Result<(), Fault> {
    let arguments = Arguments::parse();
    let device = inarch_core::device(&arguments.device)?;
    let backbone = Arc::new(open_backbone(&arguments.backbone, &device)?);
    let images = photos(&arguments.images)?;
    let root = tempfile::tempdir()?;
    say(&format!("{} adapters are written", arguments.adapters + NEW));
    let folders = adapters(&backbone, root.path(), arguments.adapters + NEW)?;
    let report = ours(&backbone, &arguments, &images, root.path(), &folders)?;
    let mut report = report;
    if let Some(python) = &arguments.python {
        report.loads.extend(theirs(python, &arguments, &images, root.path())?);
    }
    print(&report);
    Ok(())
}

/// Bytes of some photos.
fn photos(folder: &Path) -> Result<Vec<Vec<u8>>, Fault> {
    let mut paths = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for path in inarch_core::file::list(&folder)? {
            let kind = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
            match kind.as_str() {
                _ if path.is_dir() => folders.push(path),
                "jpg" | "jpeg" => paths.push(path),
                _ => {} // A licence, for instance.
            }
        }
    }
    let images = paths.iter().take(64).map(|path| inarch_core::file::read(path)).collect::<Result<Vec<_>, _>>()?;
    if images.is_empty() { Err("no photo was found".into()) } else { Ok(images) }
}

/// LoRA adapters of the preset with random values, here and in PEFT's layout beside.
fn adapters(backbone: &Arc<Backbone>, root: &Path, count: usize) -> Result<Vec<PathBuf>, Fault> {
    let method = MethodConfig::preset("lora").ok_or("a preset")?;
    let classes: Vec<String> = (0..10).map(|class| format!("class {class}")).collect();
    let templates = TemplateSet::named("single")?.templates().to_vec();
    let features = Tensor::zeros([classes.len(), backbone.spec().dim], backbone.device());
    let mut folders = Vec::new();
    for at in 0..count {
        let seed = Seed::new(at as u64);
        let adapter = method.init(&Start::new(backbone, &features, seed, backbone.device()))?;
        let mut parameters = adapter.parameters();
        for (name, tensor) in &mut parameters {
            tensor.data = seed.split(name).normals(tensor.data.len(), 0.02);
        }
        let adapter = adapter.with_parameters(parameters, backbone.device())?;
        let provenance = Provenance {
            classes: classes.clone(),
            templates: templates.clone(),
            data: None,
            clips: None,
            metrics: BTreeMap::new(),
        };
        let artifact = Artifact::new(adapter, method.clone(), backbone, provenance)?;
        let folder = root.join(format!("a{at}"));
        artifact.save(&folder)?;
        write_peft(&artifact, backbone, &root.join(format!("peft-a{at}")))?;
        folders.push(folder);
    }
    Ok(folders)
}

fn ours(
    backbone: &Arc<Backbone>,
    arguments: &Arguments,
    images: &[Vec<u8>],
    root: &Path,
    folders: &[PathBuf],
) -> Result<Report, Fault> {
    let settings = |fold| Settings {
        address: ([127, 0, 0, 1], 0).into(),
        adapter_root: Some(root.to_path_buf()),
        fold,
        ..Settings::default()
    };
    let preload: Vec<Preload> = folders
        .iter()
        .enumerate()
        .map(|(at, folder)| Preload::Folder { name: format!("a{at}"), folder: folder.clone() })
        .collect();
    let count = arguments.adapters;
    let mut loads = Vec::new();
    {
        let running = Server::bind(backbone.clone(), None, &preload[..1], settings(true))?.spawn();
        // The first load folds it, the second is measured.
        load("warm-up", running.address(), images, 1, arguments);
        loads.push(load("inarch, folded", running.address(), images, 1, arguments));
    }
    // Half of the adapters and one load bring the buffers to their size; what the other half adds is the adapters' own.
    let half = count.div_ceil(2);
    let running = Server::bind(backbone.clone(), None, &preload[..half], settings(false))?.spawn();
    let address = running.address();
    load("warm-up", address, images, half, arguments);
    let before = resident_bytes();
    cold(address, images, half..count);
    // After the same load, so that the buffers are those of before.
    load("warm-up", address, images, count, arguments);
    let bytes_per_adapter = resident_bytes().saturating_sub(before) / (count - half).max(1) as u64;
    for mix in [1, 16, count] {
        loads.push(load("inarch", address, images, mix, arguments));
    }
    // Half of the clients that saturate the server, each pausing as long as an answer takes.
    let half_load = paced(address, images, count, loads[loads.len() - 1].images_per_s / 2.0, arguments);
    let resident = swaps(address, images, count);
    let new = cold(address, images, count..folders.len());
    let known: Vec<String> = (0..count.min(100)).map(|at| format!("a{at}")).collect();
    known.iter().for_each(|name| forget(address, name));
    let disk = cold(address, images, 0..known.len());
    Ok(Report {
        backbone: backbone.name().into(),
        loads,
        half_load,
        swap_resident_p50_ms: percentile(&resident, 0.5),
        swap_resident_p99_ms: percentile(&resident, 0.99),
        swap_disk_p50_ms: percentile(&disk, 0.5),
        swap_disk_p99_ms: percentile(&disk, 0.99),
        swap_new_p50_ms: percentile(&new, 0.5),
        swap_new_p99_ms: percentile(&new, 0.99),
        bytes_per_adapter,
    })
}

fn agent() -> Agent {
    Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(120))).build().into()
}

/// One request; panics on anything but an answer, since a measurement of faults would mean nothing.
fn ask(agent: &Agent, address: SocketAddr, model: &str, image: &[u8]) {
    let url = format!("http://{address}/v1/classify?model={model}");
    let mut response = agent.post(url).header("content-type", "image/jpeg").send(image).expect("an answer");
    let text = response.body_mut().read_to_string().expect("a text");
    assert_eq!(response.status().as_u16(), 200, "{text}");
}

/// As many requests as the server answers, over `mix` adapters.
fn load(server: &'static str, address: SocketAddr, images: &[Vec<u8>], mix: usize, arguments: &Arguments) -> Load {
    let next = AtomicUsize::new(0);
    let until = Instant::now() + Duration::from_secs(arguments.seconds);
    let started = Instant::now();
    let times = std::thread::scope(|scope| {
        let client = |_| {
            scope.spawn(|| {
                let (agent, mut times) = (agent(), Vec::new());
                while Instant::now() < until {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let asked = Instant::now();
                    ask(&agent, address, &format!("a{}", at % mix), &images[at % images.len()]);
                    times.push(asked.elapsed());
                }
                times
            })
        };
        let clients: Vec<_> = (0..arguments.clients).map(client).collect();
        clients.into_iter().flat_map(|client| client.join().expect("a client")).collect::<Vec<_>>()
    });
    figures(server, mix, times, started.elapsed())
}

/// Requests at a fixed rate.
fn paced(address: SocketAddr, images: &[Vec<u8>], mix: usize, per_s: f64, arguments: &Arguments) -> Load {
    let started = Instant::now();
    let count = (per_s * arguments.seconds as f64).max(1.0) as usize;
    let next = AtomicUsize::new(0);
    let times = std::thread::scope(|scope| {
        let client = |_| {
            scope.spawn(|| {
                let (agent, mut times) = (agent(), Vec::new());
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= count {
                        return times;
                    }
                    let due = started + Duration::from_secs_f64(at as f64 / per_s);
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    ask(&agent, address, &format!("a{}", at % mix), &images[at % images.len()]);
                    // From the time it was due: a server that falls behind shows it.
                    times.push(due.elapsed());
                }
            })
        };
        let clients: Vec<_> = (0..arguments.clients).map(client).collect();
        clients.into_iter().flat_map(|client| client.join().expect("a client")).collect::<Vec<_>>()
    });
    figures("inarch, half load", mix, times, started.elapsed())
}

fn post(agent: &Agent, address: SocketAddr, body: &serde_json::Value) -> Duration {
    let started = Instant::now();
    let url = format!("http://{address}/v1/adapters");
    let mut response =
        agent.post(url).header("content-type", "application/json").send(body.to_string()).expect("an answer");
    let text = response.body_mut().read_to_string().expect("a text");
    assert_eq!(response.status().as_u16(), 201, "{text}");
    started.elapsed()
}

/// Times of giving a name to another version that is in memory, whole requests.
fn swaps(address: SocketAddr, images: &[Vec<u8>], count: usize) -> Vec<f64> {
    let agent = agent();
    let times = (0..200).map(|at| {
        let body = json!({ "name": "live", "path": format!("a{}", at % count), "replace": true });
        let took = post(&agent, address, &body);
        ask(&agent, address, "live", &images[0]);
        took.as_secs_f64() * 1e3
    });
    times.collect()
}

/// Takes a name away, and with it the adapter out of memory.
fn forget(address: SocketAddr, name: &str) {
    let response = agent().delete(format!("http://{address}/v1/adapters/{name}")).call().expect("an answer");
    assert_eq!(response.status().as_u16(), 204);
}

/// Times of naming adapters that are on disk and in no memory, up to the first answer, less that of a second one.
fn cold(address: SocketAddr, images: &[Vec<u8>], adapters: std::ops::Range<usize>) -> Vec<f64> {
    let agent = agent();
    let times = adapters.map(|at| {
        let name = format!("a{at}");
        let body = json!({ "name": name, "path": name });
        let started = Instant::now();
        post(&agent, address, &body);
        ask(&agent, address, &name, &images[0]);
        let first = started.elapsed();
        let started = Instant::now();
        ask(&agent, address, &name, &images[0]);
        (first.saturating_sub(started.elapsed())).as_secs_f64() * 1e3
    });
    times.collect()
}

fn figures(server: &'static str, adapters: usize, times: Vec<Duration>, took: Duration) -> Load {
    let times: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
    let load = Load {
        server,
        adapters,
        images_per_s: times.len() as f64 / took.as_secs_f64(),
        p50_ms: percentile(&times, 0.5),
        p99_ms: percentile(&times, 0.99),
    };
    say(&format!("{server}, {adapters} adapters: {:.1} images/s", load.images_per_s));
    load
}

/// What has been done so far, for those who wait.
fn say(line: &str) {
    eprintln!("{line}");
}

fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (share * (sorted.len().saturating_sub(1)) as f64).round() as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

/// Bytes of this process in memory; 0 where the system does not tell.
fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

#[expect(clippy::print_stdout, reason = "this is what the program is for")]
fn print(report: &Report) {
    println!("| server | adapters in the mix | images/s | p50 ms | p99 ms |\n| --- | ---: | ---: | ---: | ---: |");
    for load in report.loads.iter().chain([&report.half_load]) {
        let Load { server, adapters, images_per_s, p50_ms, p99_ms } = load;
        println!("| {server} | {adapters} | {images_per_s:.1} | {p50_ms:.1} | {p99_ms:.1} |");
    }
    let of = |server: &str, mix: usize| {
        report.loads.iter().find(|load| load.server == server && load.adapters == mix).map(|load| load.images_per_s)
    };
    let most_of =
        |server: &str| report.loads.iter().filter(|load| load.server == server).max_by_key(|load| load.adapters);
    if let (Some(folded), Some(mixed)) = (of("inarch, folded", 1), most_of("inarch")) {
        let (count, speed) = (mixed.adapters, mixed.images_per_s);
        println!("\n{count} adapters against the folded single one: {:.2}x", speed / folded);
        for theirs in ["PEFT, set_adapter", "PEFT, adapter_names"].into_iter().filter_map(most_of) {
            let Load { server, adapters, images_per_s, .. } = theirs;
            println!("{count} adapters against {server} with {adapters}: {:.1}x", speed / images_per_s);
        }
    }
    let Report { swap_resident_p50_ms, swap_resident_p99_ms, swap_disk_p50_ms, swap_disk_p99_ms, .. } = report;
    println!("swap, resident: p50 {swap_resident_p50_ms:.2} ms, p99 {swap_resident_p99_ms:.2} ms");
    println!("swap, from disk: p50 {swap_disk_p50_ms:.1} ms, p99 {swap_disk_p99_ms:.1} ms");
    let Report { swap_new_p50_ms, swap_new_p99_ms, bytes_per_adapter, .. } = report;
    println!("swap, never seen: p50 {swap_new_p50_ms:.1} ms, p99 {swap_new_p99_ms:.1} ms");
    println!("memory: {:.2} MiB for each adapter", *bytes_per_adapter as f64 / f64::from(1 << 20));
    println!("{}", serde_json::to_string(report).unwrap_or_default());
}
