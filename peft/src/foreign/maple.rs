//! Coupled prompts of MaPLe: `MultiModalPromptLearner/model.pth.tar-N`, written by Dassl.
//!
//! The state dict is that of the whole model: `prompt_learner.{ctx, proj, compound_prompts_text.N,
//! compound_prompt_projections.N, token_prefix, token_suffix}`, and the frozen `image_encoder`, `text_encoder` and
//! `logit_scale` under OpenAI's names.

use inarch_core::backbone::HostTensor;

use super::frozen::check_frozen;
use super::import::Import;
use super::prompt_rows::PromptRows;
use super::promptsrc::{openai_names, words};
use super::tensors::{Unused, transposed};
use crate::adapter::MethodConfig;
use crate::artifact::Artifact;
use crate::error::Result;
use crate::parameters::Parameters;
use crate::tokens::MapleConfig;

pub(super) fn read(import: &Import<'_>) -> Result<Artifact> {
    let mut unused = Unused::of_checkpoint(import)?;
    let rows = PromptRows::take(&mut unused, "prompt_learner.", import)?;
    let first = unused.need("prompt_learner.ctx", 2)?;
    let tokens = first.shape[0];
    let deeper = unused.run(|at| format!("prompt_learner.compound_prompts_text.{at}"));
    let mut parameters = Parameters::new();
    let mut map = |block: usize, weight: HostTensor, bias: HostTensor| -> Result<()> {
        let weight = transposed(weight).map_err(|reason| import.malformed(reason))?;
        parameters.insert(format!("maps.{block}.weight"), weight);
        parameters.insert(format!("maps.{block}.bias"), bias);
        Ok(())
    };
    map(0, unused.need("prompt_learner.proj.weight", 2)?, unused.need("prompt_learner.proj.bias", 1)?)?;
    for block in 1..=deeper.len() {
        let name = format!("prompt_learner.compound_prompt_projections.{}", block - 1);
        map(block, unused.need(&format!("{name}.weight"), 2)?, unused.need(&format!("{name}.bias"), 1)?)?;
    }
    let depth = 1 + deeper.len();
    for (block, prompt) in std::iter::once(first).chain(deeper).enumerate() {
        parameters.insert(format!("text.blocks.{block}"), prompt);
    }
    let (frozen, _) = openai_names(unused.rest());
    check_frozen(frozen, import)?;
    let method = import.configured(MethodConfig::Maple(MapleConfig { words: words(tokens), tokens, depth }))?;
    let classes = rows.classes(&method.templates()?[0], tokens, import)?;
    import.artifact(method, parameters, &classes)
}
