//! Staged rollout: which devices go first, and when to stop.

use serde::{Deserialize, Serialize};

use super::device::{Outcome, StepReport};
use crate::channel::Offer;
use crate::digest::Digest;
use crate::name::Name;

/// Where a device stands among all, from 0 to 9,999, for one version. It depends on nothing but the names, so a growing
/// share only ever adds devices; each version draws anew, so that not always the same devices go first.
pub fn draw(device: &str, name: &Name, number: u64) -> u32 {
    let digest = Digest::of(format!("rollout\0{device}\0{name}\0{number}").as_bytes());
    let [a, b, c, d, ..] = *digest.bytes();
    u32::from_be_bytes([a, b, c, d]) % 10_000
}

/// The newest offer of a name that is meant for a device.
pub(super) fn choose<'a>(offers: &'a [Offer], device: &str, name: &Name) -> Option<&'a Offer> {
    let meant = offers.iter().filter(|offer| offer.name == *name && draw(device, name, offer.number) < offer.share);
    meant.max_by_key(|offer| offer.number)
}

/// When a rollout goes on and when it stops.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RolloutLimits {
    /// How many devices must have reported before it goes on.
    pub least_reports: usize,
    /// The share of failures, from 0 to 1, at which it stops.
    pub failures: f64,
}

impl Default for RolloutLimits {
    fn default() -> Self {
        Self { least_reports: 5, failures: 0.05 }
    }
}

/// What becomes of a rollout.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "decision")]
pub enum RolloutDecision {
    /// More devices may have it.
    Advance {
        /// Devices that run it well.
        succeeded: usize,
        /// Devices that went back.
        failed: usize,
    },
    /// Not enough is known yet.
    Wait {
        /// Devices that reported.
        reports: usize,
    },
    /// Too many devices went back: withdraw it.
    Halt {
        /// Devices that run it well.
        succeeded: usize,
        /// Devices that went back.
        failed: usize,
    },
}

/// Decides from the last report of each device.
pub fn decide<'a>(
    reports: impl IntoIterator<Item = &'a StepReport>,
    name: &Name,
    number: u64,
    limits: &RolloutLimits,
) -> RolloutDecision {
    let (mut succeeded, mut failed) = (0, 0);
    for report in reports {
        for outcome in &report.outcomes {
            match outcome {
                Outcome::Committed { name: of, number: at } if of == name && *at == number => succeeded += 1,
                Outcome::Current { name: of, number: at } if of == name && *at == number => succeeded += 1,
                Outcome::Failed { name: of, number: at, .. } if of == name && *at == number => failed += 1,
                _ => {}
            }
        }
    }
    let reports = succeeded + failed;
    if failed > 0
        && failed as f64 >= limits.failures * reports as f64
        && (reports >= limits.least_reports || failed > 1)
    {
        RolloutDecision::Halt { succeeded, failed }
    } else if reports < limits.least_reports {
        RolloutDecision::Wait { reports }
    } else {
        RolloutDecision::Advance { succeeded, failed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_grow_by_adding_devices_and_hit_their_size() {
        let name: Name = "chest".parse().expect("a name");
        let within = |share: u32, number: u64| {
            (0..10_000).filter(|device| draw(&device.to_string(), &name, number) < share).count()
        };
        assert!((900..1_100).contains(&within(1_000, 1)), "{}", within(1_000, 1));
        assert_eq!(within(10_000, 1), 10_000);
        let both = (0..10_000).filter(|device: &i32| {
            draw(&device.to_string(), &name, 1) < 1_000 && draw(&device.to_string(), &name, 2) < 1_000
        });
        assert!(both.count() < 200, "each version draws anew");
    }
}
