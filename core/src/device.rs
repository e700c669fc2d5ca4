//! Devices by name.

use burn::tensor::Device;

use crate::error::{Error, Result};

/// Every device name and the cargo feature that compiles it in.
const KNOWN: [(&str, &str); 6] = [
    ("cpu", "flex"),
    ("libtorch", "libtorch"),
    ("cuda", "cuda"),
    ("vulkan", "vulkan"),
    ("metal", "metal"),
    ("rocm", "rocm"),
];

/// Parses a device name: `cpu`, `libtorch`, `libtorch:cuda:0`, `cuda:0`, `vulkan`, `metal`, `rocm`.
///
/// # Errors
/// [`Error::Unknown`] for another name, [`Error::Invalid`] naming the cargo feature for a device that is not compiled
/// in.
pub fn device(name: &str) -> Result<Device> {
    let (kind, rest) = name.split_once(':').map_or((name, None), |(kind, rest)| (kind, Some(rest)));
    let Some((_, feature)) = KNOWN.iter().find(|(known, _)| *known == kind) else {
        return Err(Error::Unknown {
            kind: "device",
            name: name.into(),
            candidates: KNOWN.iter().map(|(known, _)| (*known).to_string()).collect(),
        });
    };
    let missing = || {
        Error::invalid(
            format!("device `{name}`"),
            format!("not compiled in; build with `--features {feature}` (`inarch doctor` lists what this binary has)"),
        )
    };
    let index = |text: &str| -> Result<usize> {
        text.parse().map_err(|_| {
            Error::invalid(format!("device `{name}`"), format!("`{text}` is not a device number, as in `{kind}:0`"))
        })
    };
    let _ = &index;
    match (kind, rest) {
        #[cfg(feature = "flex")]
        ("cpu", None) => Ok(Device::flex()),
        #[cfg(feature = "cuda")]
        ("cuda", rest) => Ok(Device::cuda(rest.map_or(Ok(0), index)?)),
        #[cfg(feature = "rocm")]
        ("rocm", rest) => Ok(Device::rocm(rest.map_or(Ok(0), index)?)),
        #[cfg(feature = "vulkan")]
        ("vulkan", None) => Ok(Device::vulkan(burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(feature = "metal")]
        ("metal", None) => Ok(Device::metal(burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(feature = "libtorch")]
        ("libtorch", rest) => libtorch(name, rest, index),
        _ => Err(missing()),
    }
}

#[cfg(feature = "libtorch")]
#[expect(deprecated, reason = "burn 0.22 deprecates libtorch; the owner asked for it and it is the fastest CPU path")]
fn libtorch(name: &str, rest: Option<&str>, index: impl Fn(&str) -> Result<usize>) -> Result<Device> {
    match rest {
        None | Some("cpu") => Ok(Device::libtorch()),
        Some("mps") => Ok(Device::libtorch_mps()),
        Some(other) => match other.strip_prefix("cuda") {
            Some("") => Ok(Device::libtorch_cuda(0)),
            Some(number) => Ok(Device::libtorch_cuda(index(number.trim_start_matches(':'))?)),
            None => Err(Error::invalid(
                format!("device `{name}`"),
                "expected `libtorch`, `libtorch:cuda:0` or `libtorch:mps`",
            )),
        },
    }
}

/// Whether work on a device is done by the processor's own threads.
pub(crate) fn on_processor(device: &Device) -> bool {
    #[cfg(feature = "flex")]
    return *device == Device::flex();
    #[cfg(not(feature = "flex"))]
    return {
        let _ = device;
        false
    };
}

/// Which devices this binary can use, as `(name, feature, compiled in)`.
pub fn devices() -> Vec<(&'static str, &'static str, bool)> {
    KNOWN
        .into_iter()
        .map(|(name, feature)| {
            let compiled = match feature {
                "flex" => cfg!(feature = "flex"),
                "libtorch" => cfg!(feature = "libtorch"),
                "cuda" => cfg!(feature = "cuda"),
                "vulkan" => cfg!(feature = "vulkan"),
                "metal" => cfg!(feature = "metal"),
                "rocm" => cfg!(feature = "rocm"),
                _ => false,
            };
            (name, feature, compiled)
        })
        .collect()
}
