//! How every report begins: what ran, on what, beside which backbone.

use inarch_core::backbone::Backbone;
use inarch_core::device_kind;
use inarch_peft::BackboneRef;
use serde::Serialize;

/// Version of burn, the framework that computes.
pub const BURN: &str = "0.22.1";

/// What all reports have in common, at the top level of each.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReportHead {
    /// Version of this program.
    pub inarch: &'static str,
    /// Version of burn.
    pub burn: &'static str,
    /// The kind of device that computed, as `--device` takes it.
    pub device: &'static str,
    /// The backbone.
    pub backbone: BackboneRef,
    /// Largest resident size of the process so far; `null` where the system does not tell.
    pub peak_memory_bytes: Option<u64>,
}

impl ReportHead {
    /// The head of what was done with a backbone, at the end of it.
    pub fn new(backbone: &Backbone) -> Self {
        Self {
            inarch: env!("CARGO_PKG_VERSION"),
            burn: BURN,
            device: device_kind(backbone.device()),
            backbone: BackboneRef { name: backbone.name().into(), digest: backbone.digest().clone() },
            peak_memory_bytes: peak_memory_bytes(),
        }
    }
}

/// Largest resident size of this process, where the system tells (Linux).
pub fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Lets [`peak_memory_bytes`] count from now on, where the system allows it (Linux).
pub(crate) fn reset_peak_memory() {
    // Where it is not allowed, the peak is that of the whole process, which is an upper bound.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}
