//! `inarch doctor`: devices, features, versions, and what is missing.

use serde::Serialize;

use crate::error::CommandError;
use crate::home::home;
use crate::output::{Output, table};

/// What is printed with `--json`.
#[derive(Serialize)]
struct Doctor {
    inarch: &'static str,
    burn: &'static str,
    target: String,
    threads: usize,
    avx512: bool,
    home: String,
    home_writable: bool,
    devices: Vec<DeviceState>,
}

#[derive(Serialize)]
struct DeviceState {
    name: &'static str,
    compiled_in: bool,
    /// How to get it, when it is missing.
    cure: Option<String>,
}

pub(crate) fn run(output: &Output) -> Result<(), CommandError> {
    let home = home()?;
    let writable = inarch_core::file::create_folder(&home).is_ok() && tempfile_works(&home);
    let devices = inarch_core::devices()
        .into_iter()
        .map(|(name, feature, compiled_in)| DeviceState {
            name,
            compiled_in,
            cure: (!compiled_in).then(|| cure(feature)),
        })
        .collect();
    let doctor = Doctor {
        inarch: env!("CARGO_PKG_VERSION"),
        burn: "0.22.1",
        target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        avx512: avx512(),
        home: home.display().to_string(),
        home_writable: writable,
        devices,
    };
    output.result(&doctor, || text(&doctor));
    Ok(())
}

fn tempfile_works(home: &std::path::Path) -> bool {
    let probe = home.join(".doctor");
    inarch_core::file::write(&probe, b"").and_then(|()| inarch_core::file::remove(&probe)).is_ok()
}

#[cfg(target_arch = "x86_64")]
fn avx512() -> bool {
    std::arch::is_x86_feature_detected!("avx512f")
}

#[cfg(not(target_arch = "x86_64"))]
fn avx512() -> bool {
    false
}

fn cure(feature: &str) -> String {
    let build = format!("build with `cargo build --release --features {feature}`");
    match feature {
        "libtorch" => format!(
            "{build}; it needs libtorch 2.9.0: LIBTORCH=<folder>, or LIBTORCH_USE_PYTORCH=1 with that torch in python3, \
             else the build downloads it; at run time LD_LIBRARY_PATH must name its lib folder"
        ),
        "cuda" => format!("{build}; it needs the CUDA toolkit and driver"),
        "rocm" => format!("{build}; it needs ROCm"),
        _ => build,
    }
}

fn text(doctor: &Doctor) -> String {
    let yes = |value: bool| if value { "yes" } else { "no" };
    let mut text = format!(
        "inarch {} with burn {} on {}, {} threads, AVX-512 {}\nstate in {} (writable: {})\n\n",
        doctor.inarch,
        doctor.burn,
        doctor.target,
        doctor.threads,
        yes(doctor.avx512),
        doctor.home,
        yes(doctor.home_writable)
    );
    let mut rows = vec![["device", "compiled in"].map(String::from).to_vec()];
    rows.extend(doctor.devices.iter().map(|device| vec![device.name.to_string(), yes(device.compiled_in).to_string()]));
    text.push_str(&table(&rows));
    for device in &doctor.devices {
        if let Some(cure) = &device.cure {
            text.push_str(&format!("{}: {cure}\n", device.name));
        }
    }
    text
}
