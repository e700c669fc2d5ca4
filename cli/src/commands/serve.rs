//! `inarch serve`: one backbone and many adapters over HTTP.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use inarch_serve::{Preload, Server, Settings, Tls};
use serde::Serialize;
use tracing_subscriber::EnvFilter;

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
        body_bytes: (args.body_mib as usize) << 20,
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

/// The libraries that read DICOM files: what they warn of quotes the file, and so perhaps its patient.
const SILENT: [&str; 6] = [
    "dicom_core",
    "dicom_encoding",
    "dicom_object",
    "dicom_parser",
    "dicom_pixeldata",
    "dicom_transfer_syntax_registry",
];

/// A filter that lets nothing of [`SILENT`] through, whatever it says of them.
fn without_patients(filter: EnvFilter) -> EnvFilter {
    let silent = SILENT.iter().filter_map(|library| format!("{library}=off").parse().ok());
    silent.fold(filter, EnvFilter::add_directive)
}

/// Logs to stderr; `RUST_LOG` decides how much where it is set.
fn log_to_stderr(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("inarch_serve=info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(without_patients(filter))
        .with_writer(std::io::stderr)
        .with_ansi(false);
    // A second logger in one process is no fault.
    let _ = match format {
        LogFormat::Text => log.with_target(false).try_init(),
        LogFormat::Json => log.json().flatten_event(true).with_target(false).try_init(),
        LogFormat::Off => Ok(()),
    };
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::EnvFilter;

    use super::{SILENT, without_patients};

    #[test]
    fn no_setting_of_the_log_makes_the_readers_of_medical_files_speak() {
        let filter = without_patients(EnvFilter::new("trace,dicom_parser=debug,inarch_serve=info")).to_string();
        let directives: Vec<&str> = filter.split(',').collect();
        for library in SILENT {
            assert!(directives.contains(&format!("{library}=off").as_str()), "{filter}");
        }
        assert!(directives.contains(&"trace") && !filter.contains("dicom_parser=debug"), "{filter}");
    }
}
