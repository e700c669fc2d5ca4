//! Settings of the strategies.

use serde::{Deserialize, Serialize};

use super::Scope;
use super::defaults::{
    candidates, compare, damping, density, der_alpha, der_beta, ema_decay, ewc_weight, fisher_samples, five, half,
    hold, kept, magnitude, one, reference, replay, slow, tenth, twentieth, two, zscl_hold,
};

/// All names.
pub(crate) const GRADIENT_STRATEGIES: &[&str] = &[
    "naive",
    "joint",
    "gdumb",
    "er",
    "er-ace",
    "der",
    "der-plus-plus",
    "a-gem",
    "gem",
    "mir",
    "gss-greedy",
    "bic",
    "icarl",
    "slca",
    "o-lora",
    "inflora",
    "sd-lora",
    "moe-adapters",
    "l2p",
    "dual-prompt",
    "coda-prompt",
    "s-prompts",
    "ewc",
    "online-ewc",
    "si",
    "mas",
    "lwf",
    "zscl",
    "wise-ft",
    "ema",
    "magmax",
    "ties",
];

/// A strategy with its settings; the defaults are those of mammoth or of the paper, where they carry over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case", deny_unknown_fields)]
pub enum GradientConfig {
    /// Training on what arrives, and nothing else: the lower bound.
    Naive {
        /// Whether what arrives is told apart from its own classes only.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        own_classes: bool,
    },
    /// Training on everything so far, from a fresh start: the upper bound.
    Joint {},
    /// A balanced memory and a training on it from a fresh start (GDumb: Prabhu et al., ECCV 2020).
    Gdumb {},
    /// Rehearsal: samples of the memory join each batch, under one mean loss (ER: Chaudhry et al., 2019, arXiv 1902.10486).
    Er {
        /// Rehearsed samples in a step.
        #[serde(default = "replay")]
        replay: usize,
    },
    /// ER, where what arrives is told apart from its own classes only, and from all when it is rehearsed (ER-ACE: Caccia et al.,
    /// 2022, arXiv 2104.05025).
    ErAce {
        /// Rehearsed samples in a step.
        #[serde(default = "replay")]
        replay: usize,
    },
    /// Remembered scores are to be given again (DER: Buzzega et al., 2020, arXiv 2004.07211).
    Der {
        /// Rehearsed samples in a step.
        #[serde(default = "replay")]
        replay: usize,
        /// Weight of the squared difference of scores.
        #[serde(default = "der_alpha")]
        alpha: f64,
    },
    /// DER, and the cross entropy of a second, independent draw.
    DerPlusPlus {
        /// Rehearsed samples in each of the two draws of a step.
        #[serde(default = "replay")]
        replay: usize,
        /// Weight of the squared difference of scores.
        #[serde(default = "der_alpha")]
        alpha: f64,
        /// Weight of the cross entropy.
        #[serde(default = "der_beta")]
        beta: f64,
    },
    /// The part of a step's gradient that works against the memory's is taken out (A-GEM: Chaudhry et al., 2019, arXiv
    /// 1812.00420).
    AGem {
        /// Samples in the reference gradient.
        #[serde(default = "reference")]
        replay: usize,
    },
    /// A step works against no past experience (GEM: Lopez-Paz and Ranzato, 2017, arXiv 1706.08840).
    Gem {
        /// Samples of each past experience in its reference gradient.
        #[serde(default = "reference")]
        replay: usize,
        /// Least weight of every reference gradient in a corrected step.
        #[serde(default = "half")]
        margin: f64,
    },
    /// ER of the samples that a step would hurt most (MIR: Aljundi et al., 2019, arXiv 1908.04742).
    Mir {
        /// Rehearsed samples in a step.
        #[serde(default = "replay")]
        replay: usize,
        /// Samples among which they are looked for.
        #[serde(default = "candidates")]
        candidates: usize,
    },
    /// ER with a memory of samples whose gradients point in different directions (GSS-greedy: Aljundi et al., 2019, arXiv
    /// 1903.08671).
    GssGreedy {
        /// Rehearsed samples in a step.
        #[serde(default = "replay")]
        replay: usize,
        /// Samples of the memory that a new one is compared with.
        #[serde(default = "compare")]
        compare: usize,
    },
    /// Rehearsal with distillation, and a correction of the latest classes' scores (BiC: Wu et al., 2019, arXiv 1905.13260).
    Bic {
        /// Rehearsed samples in a step.
        #[serde(default = "replay")]
        replay: usize,
        /// Temperature of the distillation.
        #[serde(default = "two")]
        temperature: f64,
        /// Share of all samples that is held out for the correction.
        #[serde(default = "tenth")]
        held_out: f64,
        /// Weight of the correction's distance to none.
        #[serde(default = "hold")]
        hold: f64,
    },
    /// Rehearsal with distillation, and class means of herded exemplars that answer (iCaRL: Rebuffi et al., 2017, arXiv
    /// 1611.07725).
    Icarl {
        /// Rehearsed samples in a step.
        #[serde(default = "replay")]
        replay: usize,
        /// Weight of the distillation.
        #[serde(default = "one")]
        weight: f64,
        /// Temperature of the distillation.
        #[serde(default = "two")]
        temperature: f64,
    },
    /// A slow representation, and a head aligned with Gaussians of all classes (SLCA: Zhang et al., 2023, arXiv 2303.05118).
    Slca {
        /// Factor on the learning rate of all but the head.
        #[serde(default = "slow")]
        slow: f64,
        /// Features drawn for each class in the alignment.
        #[serde(default = "reference")]
        draws: usize,
        /// How often they are gone through.
        #[serde(default = "five")]
        epochs: usize,
        /// Temperature of the normalised scores in the alignment.
        #[serde(default = "tenth")]
        temperature: f64,
    },
    /// An update of low rank for each experience, apart from those before (O-LoRA: Wang et al., 2023, arXiv 2310.14152).
    OLora {
        /// Weight of the overlap with the subspaces before.
        #[serde(default = "half")]
        weight: f64,
    },
    /// An update of low rank for each experience, in directions that those before did not need (InfLoRA: Liang and Li, CVPR 2024,
    /// arXiv 2404.00228).
    Inflora {
        /// Share of the inputs' energy that is kept clear of later updates, in the first experience; it grows from then on.
        #[serde(default = "kept")]
        threshold: f64,
    },
    /// An update of low rank for each experience whose direction stands still when it is over, while its magnitude is trained on
    /// (SD-LoRA: Wu et al., ICLR 2025, arXiv 2501.13198).
    SdLora {
        /// Where a magnitude starts, in units of the scale of `fit.method`'s `lora`.
        #[serde(default = "magnitude")]
        magnitude: f64,
    },
    /// Experts that a router of each experience chooses from, and a look at the frozen feature that tells which router, or that
    /// the image is of none (MoE-Adapters: Yu et al., CVPR 2024, arXiv 2403.11549).
    MoeAdapters {
        /// Share of an experience's own images that may be taken for images of none.
        #[serde(default = "twentieth")]
        outside: f64,
    },
    /// A pool of prompts that an image chooses from, under a loss among what arrives (L2P: Wang et al., CVPR 2022, arXiv
    /// 2112.08654).
    L2p {},
    /// Keys and values that all experiences share, and an expert of each, found by its key (DualPrompt: Wang et al., ECCV 2022,
    /// arXiv 2204.04799).
    DualPrompt {},
    /// Components of each experience beside those before, which stand still; a prompt is their weighted sum (CODA-Prompt: Smith
    /// et al., CVPR 2023, arXiv 2211.13218).
    CodaPrompt {},
    /// Prompts of each experience by themselves, found by the nearest centroid of frozen features (S-Prompts: Wang et al., NeurIPS
    /// 2022, arXiv 2207.12819).
    SPrompts {
        /// Centroids of an experience.
        #[serde(default = "five")]
        centroids: usize,
        /// Whether the classes of each experience have a text context of their own too, by a `coop` in `fit.method`.
        #[serde(default)]
        text: bool,
    },
    /// Values are held in proportion to their Fisher information (EWC: Kirkpatrick et al., 2017, arXiv 1612.00796).
    Ewc {
        /// Weight of the penalty.
        #[serde(default = "ewc_weight")]
        weight: f64,
        /// Samples that the information is a mean over.
        #[serde(default = "fisher_samples")]
        samples: usize,
    },
    /// EWC with one fading sum (Schwarz et al., 2018, arXiv 1805.06370).
    OnlineEwc {
        /// Weight of the penalty.
        #[serde(default = "ewc_weight")]
        weight: f64,
        /// Samples that the information is a mean over.
        #[serde(default = "fisher_samples")]
        samples: usize,
        /// What is left of the old sum in each experience.
        #[serde(default = "one")]
        decay: f64,
    },
    /// Values are held in proportion to what they contributed along the way (SI: Zenke et al., 2017, arXiv 1703.04200).
    Si {
        /// Weight of the penalty.
        #[serde(default = "one")]
        weight: f64,
        /// Added to the squared distance that a value went.
        #[serde(default = "damping")]
        damping: f64,
    },
    /// Values are held in proportion to the sensitivity of the scores (MAS: Aljundi et al., 2018, arXiv 1711.09601).
    Mas {
        /// Weight of the penalty.
        #[serde(default = "one")]
        weight: f64,
        /// Samples that the sensitivity is a mean over.
        #[serde(default = "fisher_samples")]
        samples: usize,
    },
    /// What arrives is to be scored for the old classes as before (LwF: Li and Hoiem, 2016, arXiv 1606.09282).
    Lwf {
        /// Weight of the distillation.
        #[serde(default = "one")]
        weight: f64,
        /// Temperature.
        #[serde(default = "two")]
        temperature: f64,
    },
    /// What arrives is to be scored as by the frozen backbone, values stay close to where they were, and the mean along the
    /// way answers (after ZSCL: Zheng et al., 2023, arXiv 2303.06628).
    Zscl {
        /// Weight of the distillation from the frozen backbone.
        #[serde(default = "one")]
        weight: f64,
        /// Temperature.
        #[serde(default = "two")]
        temperature: f64,
        /// Weight of the squared distance to the values before.
        #[serde(default = "zscl_hold")]
        hold: f64,
    },
    /// The mean of the values before and after an experience (WiSE-FT: Wortsman et al., 2022, arXiv 2109.01903).
    WiseFt {
        /// Share of the values after.
        #[serde(default = "half")]
        share: f64,
    },
    /// A fading mean of the values along the way.
    Ema {
        /// What is left of the mean in each step.
        #[serde(default = "ema_decay")]
        decay: f64,
    },
    /// Of all experiences' changes, the greatest of each value (MagMax: Marczak et al., 2024, arXiv 2407.06322).
    Magmax {
        /// Factor on the merged change.
        #[serde(default = "one")]
        scale: f64,
    },
    /// Of all experiences' changes, the greatest, merged with an elected sign (TIES: Yadav et al., 2023, arXiv 2306.01708).
    Ties {
        /// Share of the values of each change that is kept.
        #[serde(default = "density")]
        density: f64,
        /// Factor on the merged change.
        #[serde(default = "one")]
        scale: f64,
    },
}

impl GradientConfig {
    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Naive { .. } => "naive",
            Self::Joint {} => "joint",
            Self::Gdumb {} => "gdumb",
            Self::Er { .. } => "er",
            Self::ErAce { .. } => "er-ace",
            Self::Der { .. } => "der",
            Self::DerPlusPlus { .. } => "der-plus-plus",
            Self::AGem { .. } => "a-gem",
            Self::Gem { .. } => "gem",
            Self::Mir { .. } => "mir",
            Self::GssGreedy { .. } => "gss-greedy",
            Self::Bic { .. } => "bic",
            Self::Icarl { .. } => "icarl",
            Self::Slca { .. } => "slca",
            Self::OLora { .. } => "o-lora",
            Self::Inflora { .. } => "inflora",
            Self::SdLora { .. } => "sd-lora",
            Self::MoeAdapters { .. } => "moe-adapters",
            Self::L2p {} => "l2p",
            Self::DualPrompt {} => "dual-prompt",
            Self::CodaPrompt {} => "coda-prompt",
            Self::SPrompts { .. } => "s-prompts",
            Self::Ewc { .. } => "ewc",
            Self::OnlineEwc { .. } => "online-ewc",
            Self::Si { .. } => "si",
            Self::Mas { .. } => "mas",
            Self::Lwf { .. } => "lwf",
            Self::Zscl { .. } => "zscl",
            Self::WiseFt { .. } => "wise-ft",
            Self::Ema { .. } => "ema",
            Self::Magmax { .. } => "magmax",
            Self::Ties { .. } => "ties",
        }
    }

    /// With as many rehearsed samples in a step, where a step's batch and they are one mixture. A reference for gradients, and a choice
    /// among candidates, have sizes of their own.
    #[must_use]
    pub(crate) fn rehearsing(mut self, rows: usize) -> Self {
        match &mut self {
            Self::Er { replay }
            | Self::ErAce { replay }
            | Self::Der { replay, .. }
            | Self::DerPlusPlus { replay, .. }
            | Self::GssGreedy { replay, .. }
            | Self::Bic { replay, .. }
            | Self::Icarl { replay, .. } => *replay = rows,
            _ => {}
        }
        self
    }

    /// What it trains on.
    pub fn scope(&self) -> Scope {
        match self {
            Self::Joint {} => Scope::Everything,
            Self::Gdumb {} => Scope::Memory,
            _ => Scope::Arrival,
        }
    }
}

/// A strategy as a test writes it.
#[cfg(test)]
pub(super) fn strategy(text: &str) -> GradientConfig {
    toml::from_str(text).expect("a strategy")
}

#[cfg(test)]
mod tests {
    use super::{GRADIENT_STRATEGIES, GradientConfig};

    #[test]
    fn mixtures_take_another_size_and_nothing_else_changes() {
        for name in GRADIENT_STRATEGIES {
            let config: GradientConfig = toml::from_str(&format!("name = {name:?}")).expect(name);
            let written = toml::to_string(&config.clone().rehearsing(7)).expect("plain");
            let mixes = written.contains("replay = ") && !["gem", "a-gem", "mir"].contains(name);
            assert_eq!(written.contains("replay = 7"), mixes, "{name}");
            assert_eq!(config.clone().rehearsing(7).rehearsing(32), config.rehearsing(32), "{name}");
        }
    }

    #[test]
    fn every_name_is_a_strategy_and_unknown_settings_are_refused() {
        for name in GRADIENT_STRATEGIES {
            let config: GradientConfig = toml::from_str(&format!("name = {name:?}")).expect(name);
            assert_eq!(config.name(), *name);
            let again: GradientConfig = toml::from_str(&toml::to_string(&config).expect("plain")).expect(name);
            assert_eq!(again, config);
            assert!(toml::from_str::<GradientConfig>(&format!("name = {name:?}\nsurprise = 1")).is_err(), "{name}");
        }
    }
}
