//! From settings to strategies: one exhaustive match.

use super::bic::Bic;
use super::coda_prompt::CodaPrompt;
use super::config::GradientConfig;
use super::distil::Distil;
use super::dual_prompt::DualPrompt;
use super::gem::Gem;
use super::gss::Gss;
use super::icarl::Icarl;
use super::importance::{Importance, Quadratic};
use super::inflora::Inflora;
use super::mir::Mir;
use super::moe_adapters::MoeAdapters;
use super::needs::L2P;
use super::o_lora::OLora;
use super::own_classes::OwnClasses;
use super::replay::{Replay, ReplayLoss};
use super::s_prompts::SPrompts;
use super::sd_lora::SdLora;
use super::slca::{Alignment, Slca};
use super::weights::{Merging, WeightRule};
use super::{Plain, Strategy};

impl GradientConfig {
    /// The strategy itself, without state.
    pub(crate) fn build(&self) -> Box<dyn Strategy> {
        match *self {
            Self::Naive { own_classes: true } => Box::new(OwnClasses::default()),
            Self::Naive { own_classes: false } | Self::Joint {} | Self::Gdumb {} => Box::new(Plain),
            Self::Er { replay } => Box::new(Replay::new(replay, ReplayLoss::Mixed)),
            Self::ErAce { replay } => Box::new(Replay::new(replay, ReplayLoss::Asymmetric)),
            Self::Der { replay, alpha } => Box::new(Replay::new(replay, ReplayLoss::Scores { alpha, beta: None })),
            Self::DerPlusPlus { replay, alpha, beta } => {
                Box::new(Replay::new(replay, ReplayLoss::Scores { alpha, beta: Some(beta) }))
            }
            Self::AGem { replay } => Box::new(Replay::new(replay, ReplayLoss::Guide)),
            Self::Gem { replay, margin } => Box::new(Gem::new(replay, margin)),
            Self::Mir { replay, candidates } => Box::new(Mir::new(replay, candidates)),
            Self::GssGreedy { replay, compare } => Box::new(Gss::new(replay, compare)),
            Self::Bic { replay, temperature, held_out, hold } => {
                Box::new(Bic::new(replay, temperature, held_out, hold))
            }
            Self::Icarl { replay, weight, temperature } => Box::new(Icarl::new(replay, weight, temperature)),
            Self::Slca { slow, draws, epochs, temperature } => {
                Box::new(Slca::new(slow, Alignment { draws, epochs, temperature }))
            }
            Self::OLora { weight } => Box::new(OLora::new(weight)),
            Self::Inflora { threshold } => Box::new(Inflora::new(threshold)),
            Self::SdLora { magnitude } => Box::new(SdLora::new(magnitude)),
            Self::MoeAdapters { outside } => Box::new(MoeAdapters::new(outside)),
            Self::L2p {} => Box::new(OwnClasses::around(L2P)),
            Self::DualPrompt {} => Box::new(DualPrompt::default()),
            Self::CodaPrompt {} => Box::new(CodaPrompt::default()),
            Self::SPrompts { centroids, text } => Box::new(SPrompts::new(centroids, text)),
            Self::Ewc { weight, samples } => {
                Box::new(Quadratic::new(weight, Importance::Fisher { samples, decay: None }))
            }
            Self::OnlineEwc { weight, samples, decay } => {
                Box::new(Quadratic::new(weight, Importance::Fisher { samples, decay: Some(decay) }))
            }
            Self::Si { weight, damping } => Box::new(Quadratic::new(weight, Importance::Path { damping })),
            Self::Mas { weight, samples } => Box::new(Quadratic::new(weight, Importance::Sensitivity { samples })),
            Self::Lwf { weight, temperature } => Box::new(Distil::from_before(weight, temperature)),
            Self::Zscl { weight, temperature, hold } => Box::new(Distil::from_frozen(weight, temperature, hold)),
            Self::WiseFt { share } => Box::new(Merging::new(WeightRule::Share(share))),
            Self::Ema { decay } => Box::new(Merging::new(WeightRule::Fading(decay))),
            Self::Magmax { scale } => Box::new(Merging::new(WeightRule::Greatest { scale })),
            Self::Ties { density, scale } => Box::new(Merging::new(WeightRule::Elected { density, scale })),
        }
    }
}
