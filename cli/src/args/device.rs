//! On what is computed, and in which precision.

use clap::{Args, ValueEnum};
use inarch_core::DevicePrecision;

#[derive(Debug, Args)]
pub(crate) struct DeviceArgs {
    /// Device: cpu, libtorch, cuda:0, vulkan, wgpu, metal, rocm, remote:HOST:PORT (as compiled in)
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    pub(crate) device: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PrecisionArg {
    /// 32-bit floats
    F32,
    /// 16-bit floats of 11 significant bits
    F16,
    /// 16-bit floats of 8 significant bits
    Bf16,
}

impl From<PrecisionArg> for DevicePrecision {
    fn from(arg: PrecisionArg) -> Self {
        match arg {
            PrecisionArg::F32 => Self::F32,
            PrecisionArg::F16 => Self::F16,
            PrecisionArg::Bf16 => Self::Bf16,
        }
    }
}
