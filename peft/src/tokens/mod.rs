//! Methods that change a tower's tokens: learned prompts, and learned keys and values beside them.

mod biomedcoop;
mod cocoop;
mod coda_prompt;
mod context;
mod coop;
mod deep;
mod dual_prompt;
mod ivlp;
mod kgcoop;
mod l2p;
mod maple;
mod place;
mod prefix_tuning;
mod proda;
mod prograd;
mod promptsrc;
mod s_prompts;
mod tcp;
mod vpt;

pub use biomedcoop::{BiomedCoop, BiomedCoopConfig};
pub use cocoop::{CoCoop, CoCoopConfig};
pub use coda_prompt::{CodaPrompt, CodaPromptConfig};
pub use context::ClassPosition;
pub use coop::{Coop, CoopConfig};
pub use dual_prompt::{DualPrompt, DualPromptConfig};
pub use ivlp::{Ivlp, IvlpConfig};
pub use kgcoop::{KgCoop, KgCoopConfig};
pub use l2p::{L2p, L2pConfig};
pub use maple::{Maple, MapleConfig};
pub use prefix_tuning::{PrefixTuning, PrefixTuningConfig};
pub use proda::{ProDa, ProDaConfig};
pub use prograd::{ProGrad, ProGradConfig};
pub use promptsrc::{PromptSrc, PromptSrcConfig};
pub use s_prompts::{SPrompts, SPromptsConfig};
pub use tcp::{Tcp, TcpConfig};
pub use vpt::{Vpt, VptDeepConfig, VptShallowConfig};
