//! `inarch serve`: one backbone and many adapters over HTTP.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use inarch_serve::{Preload, Server, Settings, Tls};
use serde::Serialize;

use crate::args::LogFormat;
use crate::args::ServeArgs;
use crate::backbones;
use crate::error::CommandError;
use crate::output::Output;
use crate::progress::stop_signal;
use crate::published;

/// How often the server looks whether it shall stop.
const GLANCE: Duration = Duration::from_millis(50);

/// What is printed with `--json`, once the server listens.
#[derive(Serialize)]
struct ServeResult {
    url: String,
    backbone: String,
    adapters: Vec<String>,
}

pub(crate) fn run(args: &ServeArgs, output: &Output) -> Result<(), CommandError> {
    log_to_stderr(args.log);
    let device = inarch_core::device(&args.device.device)?;
    let backbone = Arc::new(backbones::open(&args.backbone, &device)?);
    let name = backbone.name().to_string();
    let preload: Vec<Preload> = args.adapter.iter().map(|adapter| preload(adapter)).collect();
    let server = Server::bind(backbone, Some(Arc::new(published::open()?)), &preload, settings(args))?;
    let scheme = if args.tls_certificate.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}", server.address());
    let adapters = preload.iter().map(|one| match one {
        Preload::Folder { name, .. } | Preload::Reference(name) => name.clone(),
    });
    let result = ServeResult { url, backbone: name, adapters: adapters.collect() };
    output.result(&result, || {
        let open = if args.tokens.is_some() { "" } else { "; open to all who reach it" };
        format!(
            "{} serves `{}`, {} adapters pinned{open}; Ctrl-C stops it",
            result.url,
            result.backbone,
            result.adapters.len()
        )
    });
    let stop = stop_signal();
    Ok(server.run(async move {
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            tokio::time::sleep(GLANCE).await;
        }
    })?)
}

/// `NAME=FOLDER`, a folder, or a name of the registry.
fn preload(adapter: &str) -> Preload {
    if let Some((name, folder)) = adapter.split_once('=') {
        return Preload::Folder { name: name.into(), folder: folder.into() };
    }
    let folder = Path::new(adapter);
    if !folder.is_dir() {
        return Preload::Reference(adapter.into());
    }
    let name = folder.canonicalize().ok().and_then(|full| Some(full.file_name()?.to_string_lossy().into_owned()));
    Preload::Folder { name: name.unwrap_or_else(|| adapter.into()), folder: folder.into() }
}

fn settings(args: &ServeArgs) -> Settings {
    let tls = match (&args.tls_certificate, &args.tls_key) {
        (Some(certificate), Some(key)) => Some(Tls { certificate: certificate.clone(), key: key.clone() }),
        _ => None,
    };
    Settings {
        address: SocketAddr::new(args.host, args.port),
        body_bytes: args.body_mib << 20,
        batch: args.batch,
        batch_wait: Duration::from_millis(args.batch_wait_ms),
        queue: args.queue,
        workers: args.workers,
        timeout: Duration::from_secs(args.timeout_s),
        adapter_bytes: args.adapter_memory_mib << 20,
        fold: !args.no_fold,
        adapter_root: args.adapter_root.clone(),
        tokens: args.tokens.clone(),
        tls,
        cors: args.cors_origin.clone(),
        ..Settings::default()
    }
}

/// Logs to stderr; `RUST_LOG` decides how much where it is set.
fn log_to_stderr(format: LogFormat) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("inarch_serve=info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    // A second logger in one process is no fault.
    let _ = match format {
        LogFormat::Text => log.with_target(false).try_init(),
        LogFormat::Json => log.json().flatten_event(true).with_target(false).try_init(),
        LogFormat::Off => Ok(()),
    };
}
