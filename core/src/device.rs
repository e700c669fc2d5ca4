//! Devices by name.

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::tensor::{Device, FloatDType, Tensor};

use crate::error::{Error, Result};
use crate::parallel;

/// Every kind of device: its name, the cargo feature that compiles it in, and what may follow the name.
const KNOWN: [(&str, &str, &str); 8] = [
    ("cpu", "flex", "`cpu`"),
    ("libtorch", "libtorch", "`libtorch`, `libtorch:cuda:0` or `libtorch:mps`"),
    ("cuda", "cuda", "`cuda` or `cuda:0`"),
    ("vulkan", "vulkan", "`vulkan`"),
    ("wgpu", "wgpu", "`wgpu`"),
    ("metal", "metal", "`metal`"),
    ("rocm", "rocm", "`rocm` or `rocm:0`"),
    ("remote", "remote", "`remote:HOST:PORT` of a machine that runs `inarch lend`"),
];

/// Words in the framework's name of a device with the kind that they tell; the first in this order that is there decides, and of
/// `wgpu` the driver interface, where one is pinned.
const KINDS: [(&str, &str); 7] = [
    ("LibTorch", "libtorch"),
    ("Flex", "cpu"),
    ("Cuda", "cuda"),
    ("Hip", "rocm"),
    ("Vulkan", "vulkan"),
    ("Metal", "metal"),
    ("Wgpu", "wgpu"),
];

/// In which precision a device keeps weights and computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DevicePrecision {
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit floats of 11 significant bits, up to 65,504.
    F16,
    /// 16-bit floats of 8 significant bits and the range of 32-bit ones.
    Bf16,
}

/// Parses a device name: `cpu`, `libtorch`, `libtorch:cuda:0`, `cuda:0`, `vulkan`, `wgpu`, `metal`,
/// `rocm`, `remote:HOST:PORT`.
///
/// # Errors
/// [`Error::Unknown`] for another name, [`Error::Invalid`] naming the cargo feature for a device that is not compiled
/// in, or why one that is does not answer.
pub fn device(name: &str) -> Result<Device> {
    device_in(name, DevicePrecision::F32)
}

/// As [`device`], for inference in `precision`. The precision holds for all that this process does on the device.
///
/// # Errors
/// As [`device`]; [`Error::Invalid`] when the device does not have the precision.
pub fn device_in(name: &str, precision: DevicePrecision) -> Result<Device> {
    let mut device = open(name)?;
    let float = match precision {
        DevicePrecision::F32 => FloatDType::F32,
        DevicePrecision::F16 => FloatDType::F16,
        DevicePrecision::Bf16 => FloatDType::BF16,
    };
    // What a device computes in is settled by its first tensor.
    if device.settings().float_dtype != float {
        device.configure(float).map_err(|error| {
            let reason = format!("it does not compute in {float:?} ({error}); leave `--precision` at `f32`");
            Error::invalid(format!("device `{name}`"), reason)
        })?;
    }
    if !on_processor(&device) {
        answers(name, &device)?;
    }
    Ok(device)
}

/// The device of a name, which may not work.
fn open(name: &str) -> Result<Device> {
    let (kind, rest) = name.split_once(':').map_or((name, None), |(kind, rest)| (kind, Some(rest)));
    let Some((_, feature, written)) = KNOWN.iter().find(|(known, ..)| *known == kind) else {
        return Err(Error::Unknown {
            kind: "device",
            name: name.into(),
            candidates: KNOWN.iter().map(|(known, ..)| (*known).to_string()).collect(),
        });
    };
    if !compiled_in(feature) {
        return Err(Error::invalid(
            format!("device `{name}`"),
            format!("not compiled in; build with `--features {feature}` (`inarch doctor` lists what this binary has)"),
        ));
    }
    let number = |rest: Option<&str>| rest.map_or(Some(0), |rest| rest.parse::<usize>().ok());
    let _ = &number;
    let found = match (kind, rest) {
        #[cfg(feature = "flex")]
        ("cpu", None) => Some(Device::flex()),
        #[cfg(feature = "cuda")]
        ("cuda", rest) => number(rest).map(Device::cuda),
        #[cfg(feature = "rocm")]
        ("rocm", rest) => number(rest).map(Device::rocm),
        #[cfg(feature = "vulkan")]
        ("vulkan", None) => Some(Device::vulkan(burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(feature = "wgpu")]
        ("wgpu", None) => Some(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(feature = "metal")]
        ("metal", None) => Some(Device::metal(burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(feature = "libtorch")]
        ("libtorch", rest) => libtorch(rest),
        #[cfg(feature = "remote")]
        ("remote", Some(address)) => Some(crate::lend::borrow(address)?),
        _ => None,
    };
    found.ok_or_else(|| Error::invalid(format!("device `{name}`"), format!("expected {written}")))
}

/// Computes one value, so that a driver or card that is missing is told here and not by a panic in the middle of work.
fn answers(name: &str, device: &Device) -> Result<()> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let tensor = Tensor::<1>::from_data([3.0f32], &device.clone()) * 2.0;
        tensor.try_into_data().map(|data| data.iter::<f32>().collect::<Vec<_>>()).map_err(|error| error.to_string())
    }));
    std::panic::set_hook(hook);
    let reason = match outcome {
        Ok(Ok(values)) if values == [6.0] => return Ok(()),
        Ok(Ok(values)) => format!("it computed 3 * 2 = {values:?}"),
        Ok(Err(error)) => error,
        Err(panic) => match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
            (Some(text), _) => text.clone(),
            (None, Some(text)) => (*text).to_string(),
            (None, None) => "it failed without a word".into(),
        },
    };
    let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    Err(Error::invalid(format!("device `{name}`"), format!("compiled in, but it does not work here: {reason}")))
}

#[cfg(feature = "libtorch")]
#[expect(deprecated, reason = "burn 0.22 deprecates libtorch, which serves those who have it already")]
fn libtorch(rest: Option<&str>) -> Option<Device> {
    match rest {
        None | Some("cpu") => Some(Device::libtorch()),
        Some("mps") => Some(Device::libtorch_mps()),
        Some(other) => match other.strip_prefix("cuda")? {
            "" => Some(Device::libtorch_cuda(0)),
            number => Some(Device::libtorch_cuda(number.strip_prefix(':')?.parse::<usize>().ok()?)),
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

/// What kind of device one is: the name that [`device`] takes, without a number or an address; `other` for what it never
/// gives.
pub fn device_kind(device: &Device) -> &'static str {
    if is_borrowed(device) {
        return "remote";
    }
    // Which API a device of CubeCL computes by is in its name alone.
    kind_of(&format!("{device:?}"))
}

fn kind_of(name: &str) -> &'static str {
    KINDS.iter().find(|(word, _)| name.contains(*word)).map_or("other", |(_, kind)| *kind)
}

/// Whether a device belongs to another machine.
pub fn is_borrowed(device: &Device) -> bool {
    #[cfg(feature = "remote")]
    return matches!(device.clone().without_autodiff().as_dispatch(), burn::backend::DispatchDevice::Remote(_));
    #[cfg(not(feature = "remote"))]
    return {
        let _ = device;
        false
    };
}

/// On how many threads parts of one piece of work may run on a device: a thread that only feeds a device of its own
/// threads, or another machine, gains nothing from a second one.
pub fn workers(device: &Device) -> usize {
    if on_processor(device) { parallel::threads() } else { 1 }
}

fn compiled_in(feature: &str) -> bool {
    match feature {
        "flex" => cfg!(feature = "flex"),
        "libtorch" => cfg!(feature = "libtorch"),
        "cuda" => cfg!(feature = "cuda"),
        "vulkan" => cfg!(feature = "vulkan"),
        "wgpu" => cfg!(feature = "wgpu"),
        "metal" => cfg!(feature = "metal"),
        "rocm" => cfg!(feature = "rocm"),
        "remote" => cfg!(feature = "remote"),
        _ => false,
    }
}

/// Which devices this binary can use, as `(name, feature, compiled in)`.
pub fn devices() -> Vec<(&'static str, &'static str, bool)> {
    KNOWN.into_iter().map(|(name, feature, _)| (name, feature, compiled_in(feature))).collect()
}

#[cfg(test)]
mod tests {
    use super::{DevicePrecision, KNOWN, device, device_in, device_kind, devices, is_borrowed, kind_of};
    use crate::error::Error;

    #[test]
    fn names_that_mean_nothing_are_refused_with_what_was_expected() {
        assert!(matches!(device("gpu"), Err(Error::Unknown { candidates, .. }) if candidates.len() == devices().len()));
        for (name, feature, compiled_in) in devices() {
            let wrong = device(&format!("{name}:?")).map(|_| ()).unwrap_err().to_string();
            let words = if compiled_in { "expected" } else { feature };
            assert!(wrong.contains(words) && wrong.contains(name), "{wrong}");
            if !compiled_in {
                let missing = device(name).map(|_| ()).unwrap_err().to_string();
                assert!(missing.contains(&format!("--features {feature}`")), "{missing}");
            }
        }
    }

    #[test]
    fn the_kind_is_told_by_the_name_that_the_framework_gives() {
        for (name, kind) in [
            ("Device<Flex(FlexDevice)>", "cpu"),
            ("Device<LibTorch(Cuda(0))>", "libtorch"),
            ("Device<Cube(Cuda(CudaDevice { index: 1 }))>", "cuda"),
            ("Device<Cube(Wgpu(WgpuDevice { kind: DefaultDevice, backend: Vulkan }))>", "vulkan"),
            ("Device<Cube(Wgpu(WgpuDevice { kind: DefaultDevice, backend: Metal }))>", "metal"),
            ("Device<Cube(Wgpu(WgpuDevice { kind: DefaultDevice, backend: Auto }))>", "wgpu"),
            ("Device<Autodiff { device: Cube(Wgpu(WgpuDevice { kind: Cpu, backend: Auto })) }>", "wgpu"),
            ("Device<Capture(0)>", "other"),
        ] {
            assert_eq!(kind_of(name), kind, "{name}");
            assert!(kind == "other" || KNOWN.iter().any(|(known, ..)| *known == kind), "{kind}");
        }
    }

    // Named and told without a driver: what is opened on first use is not opened here.
    #[cfg(any(feature = "wgpu", feature = "vulkan"))]
    #[test]
    fn devices_of_wgpu_are_told_apart() {
        #[cfg(feature = "wgpu")]
        assert_eq!(device_kind(&super::open("wgpu").unwrap()), "wgpu");
        #[cfg(feature = "vulkan")]
        assert_eq!(device_kind(&super::open("vulkan").unwrap()), "vulkan");
    }

    #[cfg(feature = "flex")]
    #[test]
    fn the_processor_is_a_device_in_single_precision() {
        let found = device_in("cpu", DevicePrecision::F32).unwrap();
        for found in [found.clone(), found.autodiff()] {
            assert_eq!((device_kind(&found), is_borrowed(&found)), ("cpu", false));
        }
    }
}
