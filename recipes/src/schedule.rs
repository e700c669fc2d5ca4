//! The length of a run and its learning rates.

use serde::{Deserialize, Serialize};

/// How long to train.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Budget {
    /// Passes over the training images.
    Epochs(usize),
    /// Steps.
    Iterations(usize),
    /// Steps for each shot; 16 shots are assumed when all images are used.
    IterationsPerShot(usize),
    /// 50 epochs for 1 shot, 100 for 2 to 4, 200 for more (CoOp).
    #[serde(rename = "coop-epochs")]
    CoopEpochs,
}

impl Budget {
    /// The number of steps for a run of `shots` with `steps_per_epoch` steps in an epoch.
    pub(crate) fn steps(self, shots: usize, steps_per_epoch: usize) -> usize {
        match self {
            Self::Epochs(epochs) => epochs.saturating_mul(steps_per_epoch),
            Self::Iterations(steps) => steps,
            Self::IterationsPerShot(steps) => steps.saturating_mul(shots),
            Self::CoopEpochs => {
                let epochs = match shots {
                    0..=1 => 50,
                    2..=4 => 100,
                    _ => 200,
                };
                epochs * steps_per_epoch
            }
        }
    }
}

/// How the learning rate changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// The trunk of CoOp's descendants: by epoch; the first at 1e-5, then cosine.
    Coop,
    /// By step, cosine to 1e-6.
    Cosine,
    /// No change.
    Constant,
}

/// The rate of the warm-up epoch and the end of the per-step cosine.
const WARMUP_LR: f64 = 1e-5;
const FINAL_LR: f64 = 1e-6;

/// The rate at `step` of `steps`, with `steps_per_epoch` steps in an epoch.
///
/// `coop` is the trunk of Dassl: epoch 1 at 1e-5, and in epoch e >= 2 `lr / 2 * (1 + cos(pi * (e - 2) / epochs))`, so
/// the rate never comes to zero.
pub(crate) fn learning_rate(schedule: Schedule, lr: f64, step: usize, steps: usize, steps_per_epoch: usize) -> f64 {
    let cosine = |progress: f64| 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
    match schedule {
        Schedule::Constant => lr,
        Schedule::Cosine => FINAL_LR + (lr - FINAL_LR) * cosine(step as f64 / steps.max(1) as f64),
        Schedule::Coop => {
            let per_epoch = steps_per_epoch.max(1);
            let (epoch, epochs) = (step / per_epoch, steps.div_ceil(per_epoch).max(1));
            if epoch == 0 && epochs > 1 { WARMUP_LR } else { lr * cosine((epoch.max(1) - 1) as f64 / epochs as f64) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Schedule, learning_rate};

    #[test]
    fn the_trunk_gives_the_published_rates() {
        // multimodal-prompt-learning issue 17: lr 0.0035, 5 epochs, epochs 4 and 5.
        let rate = |epoch: usize| learning_rate(Schedule::Coop, 0.0035, (epoch - 1) * 10, 50, 10);
        assert!((rate(1) - 1e-5).abs() < 1e-12);
        assert!((rate(2) - 0.0035).abs() < 1e-12);
        assert!((rate(4) - 2.2908e-3).abs() < 1e-7, "{}", rate(4));
        assert!((rate(5) - 1.2092e-3).abs() < 1e-7, "{}", rate(5));
    }
}
