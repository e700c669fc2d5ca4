//! The optimizers.

use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamConfig, AdamWConfig, ModuleOptimizer, SgdConfig};
use serde::{Deserialize, Serialize};

/// The optimizer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case", deny_unknown_fields)]
pub enum OptimizerConfig {
    /// Stochastic gradient descent with momentum; weight decay is added to the gradient.
    Sgd {
        /// Learning rate for a logit scale of 100; scaled up for milder ones.
        lr: f64,
        /// Momentum, without dampening.
        momentum: f64,
        /// Weight decay.
        weight_decay: f32,
    },
    /// Adam with decoupled weight decay (Loshchilov and Hutter, 2019, arXiv 1711.05101).
    Adamw {
        /// Learning rate.
        lr: f64,
        /// Weight decay.
        weight_decay: f32,
        /// Added to the root of the second moment.
        #[serde(default = "epsilon")]
        epsilon: f32,
    },
    /// Adam (Kingma and Ba, 2015, arXiv 1412.6980); weight decay is added to the gradient.
    Adam {
        /// Learning rate.
        lr: f64,
        /// Weight decay.
        weight_decay: f32,
        /// Added to the root of the second moment.
        #[serde(default = "epsilon")]
        epsilon: f32,
    },
}

fn epsilon() -> f32 {
    1e-8
}

impl OptimizerConfig {
    /// What the learning rate is multiplied with for a backbone of this logit scale.
    ///
    /// The field's rates for SGD were found at CLIP's scale of 100, and the gradient is proportional to the scale, so
    /// that a backbone with a milder temperature would hardly move. Adam does not see the size of a gradient.
    pub(crate) fn scale_factor(&self, logit_scale: f32) -> f64 {
        match self {
            Self::Sgd { .. } => 100.0 / f64::from(logit_scale.clamp(1.0, 100.0)),
            Self::Adamw { .. } | Self::Adam { .. } => 1.0,
        }
    }

    /// The learning rate at the top of the schedule.
    pub fn lr(&self) -> f64 {
        match self {
            Self::Sgd { lr, .. } | Self::Adamw { lr, .. } | Self::Adam { lr, .. } => *lr,
        }
    }

    /// Checks the values; `Err` has the setting and what is wrong with it.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        let above = |setting: &'static str, value: f64| match value.is_finite() && value > 0.0 {
            true => Ok(()),
            false => Err((setting, format!("must be above 0, found {value}"))),
        };
        above("lr", self.lr())?;
        let weight_decay = match *self {
            Self::Sgd { momentum, weight_decay, .. } => {
                if !(0.0..1.0).contains(&momentum) {
                    return Err(("momentum", format!("must be at least 0 and below 1, found {momentum}")));
                }
                weight_decay
            }
            Self::Adamw { weight_decay, epsilon, .. } | Self::Adam { weight_decay, epsilon, .. } => {
                above("epsilon", f64::from(epsilon))?;
                weight_decay
            }
        };
        match weight_decay.is_finite() && weight_decay >= 0.0 {
            true => Ok(()),
            false => Err(("weight_decay", format!("must be at least 0, found {weight_decay}"))),
        }
    }

    /// The optimizer itself, without state.
    pub(crate) fn build(self) -> ModuleOptimizer {
        let decay = |weight_decay: f32| (weight_decay > 0.0).then(|| WeightDecayConfig::new(weight_decay));
        match self {
            Self::Sgd { momentum, weight_decay, .. } => SgdConfig::new()
                .with_momentum(Some(MomentumConfig { momentum, dampening: 0.0, nesterov: false }))
                .with_weight_decay(decay(weight_decay))
                .init(),
            Self::Adamw { weight_decay, epsilon, .. } => {
                AdamWConfig::new().with_epsilon(epsilon).with_weight_decay(weight_decay).init()
            }
            Self::Adam { weight_decay, epsilon, .. } => {
                AdamConfig::new().with_epsilon(epsilon).with_weight_decay(decay(weight_decay)).init()
            }
        }
    }
}
