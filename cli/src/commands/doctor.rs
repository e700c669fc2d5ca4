//! `inarch doctor`: devices, features, versions, and what is missing.

use inarch_core::data::decodes_video;
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
    /// Whether video files are decoded.
    video: bool,
    devices: Vec<DeviceState>,
}

#[derive(Serialize)]
struct DeviceState {
    name: &'static str,
    compiled_in: bool,
    /// Whether it computes on this machine; unknown for what is not compiled in or has no address.
    works: Option<bool>,
    /// How to get it, when it is missing, or why it does not work.
    cure: Option<String>,
}

pub(crate) fn run(output: &Output) -> Result<(), CommandError> {
    let home = home()?;
    let writable = inarch_core::file::create_folder(&home).is_ok() && tempfile_works(&home);
    let devices = inarch_core::devices()
        .into_iter()
        .map(|(name, feature, compiled_in)| {
            // One that is borrowed has no address that could be asked.
            let asked = compiled_in && name != "remote";
            let fault = if asked { inarch_core::device(name).err() } else { None };
            let works = asked.then_some(fault.is_none());
            let cure = if compiled_in { fault.map(|fault| fault.to_string()) } else { Some(cure(feature)) };
            DeviceState { name, compiled_in, works, cure }
        })
        .collect();
    let doctor = Doctor {
        inarch: env!("CARGO_PKG_VERSION"),
        burn: inarch_recipes::BURN,
        target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        avx512: avx512(),
        home: home.display().to_string(),
        home_writable: writable,
        video: decodes_video(),
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
            "`eval \"$(scripts/libtorch.sh)\"`, which finds or installs libtorch 2.9 and sets LIBTORCH and LD_LIBRARY_PATH, \
             then {build}; without LIBTORCH the build downloads it; at run time LD_LIBRARY_PATH must name its lib folder"
        ),
        "cuda" => format!("{build}; it needs the CUDA toolkit and driver"),
        "rocm" => format!("{build}; it needs ROCm"),
        "vulkan" => format!(
            "{build}; it needs a Vulkan driver (on Debian `mesa-vulkan-drivers`, which has one in software too)"
        ),
        "wgpu" => format!(
            "{build} and without `vulkan`, which makes SPIR-V of its kernels too; it needs a driver for Vulkan, DirectX 12, \
             OpenGL or Metal"
        ),
        "metal" => format!("{build}, on macOS"),
        "video" => {
            format!("{build}, which compiles OpenH264 and needs a C++ compiler; or make frames of them with ffmpeg")
        }
        "remote" => format!("{build} here and on the machine that runs `inarch lend`"),
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
    let mut rows = vec![["device", "compiled in", "works here"].map(String::from).to_vec()];
    rows.extend(doctor.devices.iter().map(|device| {
        let works = device.works.map_or("", yes);
        [device.name, yes(device.compiled_in), works].map(String::from).to_vec()
    }));
    text.push_str(&table(&rows));
    for device in &doctor.devices {
        if let Some(cure) = &device.cure {
            text.push_str(&format!("{}: {cure}\n", device.name));
        }
    }
    let video = if doctor.video { String::from("decoded") } else { cure("video") };
    text.push_str(&format!("video files: {video}\n"));
    text
}
