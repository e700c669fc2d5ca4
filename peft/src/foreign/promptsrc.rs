//! Independent prompts of both towers (PromptSRC, IVLP) or of the image tower (VPT), as the code of MaPLe and PromptSRC
//! writes them: `VLPromptLearner/model.pth.tar-N`.
//!
//! The state dict is that of the whole model: `prompt_learner.{ctx, token_prefix, token_suffix}`, `image_encoder.VPT`,
//! `{image,text}_encoder.transformer.resblocks.N.VPT_shallow` from the second block on, the frozen towers under OpenAI's
//! names, and for PromptSRC `prompt_learner.ZS_image_encoder`, a second frozen image tower.

use inarch_core::backbone::{HostTensor, StateDict, Tower};

use super::frozen::check_frozen;
use super::import::Import;
use super::prompt_rows::PromptRows;
use super::tensors::Unused;
use crate::adapter::MethodConfig;
use crate::artifact::Artifact;
use crate::error::Result;
use crate::parameters::Parameters;
use crate::tokens::{IvlpConfig, PromptSrcConfig, VptDeepConfig, VptShallowConfig};

/// The words that the authors start from.
const WORDS: &str = "a photo of a";
/// The second image tower.
const TEACHER: &str = "prompt_learner.ZS_image_encoder.";

pub(super) fn read(import: &Import<'_>) -> Result<Artifact> {
    let mut unused = Unused::of_checkpoint(import)?;
    let deeper = |unused: &mut Unused<'_>, tower: &str| {
        unused.run(|at| format!("{tower}_encoder.transformer.resblocks.{}.VPT_shallow", at + 1))
    };
    let image = prompts(unused.need("image_encoder.VPT", 2)?, deeper(&mut unused, "image"), import)?;
    let (image_tokens, image_depth) = (image[0].shape[0], image.len());
    let mut parameters = Parameters::new();
    let (method, rows) = if unused.has("prompt_learner.ctx") {
        let rows = PromptRows::take(&mut unused, "prompt_learner.", import)?;
        let text = prompts(unused.need("prompt_learner.ctx", 2)?, deeper(&mut unused, "text"), import)?;
        let (text_tokens, depth) = (text[0].shape[0], image_depth.max(text.len()));
        for (tower, found) in [(Tower::Image, image_depth), (Tower::Text, text.len())] {
            let expected = depth.min(import.backbone.depth(tower));
            if found != expected {
                let expected = format!("{expected}, as deep as the other tower");
                return Err(import.refused(&format!("depth of the {tower} prompts"), expected, found));
            }
        }
        let (frozen, teacher) = openai_names(unused.rest());
        let words = words(text_tokens);
        let (prefix, method) = match teacher.is_empty() {
            true => ("", MethodConfig::Ivlp(IvlpConfig { words, text_tokens, image_tokens, depth })),
            false => {
                let own = PromptSrcConfig { words, text_tokens, image_tokens, depth, ..PromptSrcConfig::default() };
                ("prompts.", MethodConfig::PromptSrc(own))
            }
        };
        check_frozen(frozen, import)?;
        check_frozen(teacher, import)?;
        for (tower, prompts) in [("image", image), ("text", text)] {
            let named = |(block, prompt)| (format!("{prefix}{tower}.blocks.{block}"), prompt);
            parameters.extend(prompts.into_iter().enumerate().map(named));
        }
        (method, Some((rows, text_tokens)))
    } else {
        check_frozen(openai_names(unused.rest()).0, import)?;
        parameters
            .extend(image.into_iter().enumerate().map(|(block, prompt)| (format!("image.blocks.{block}"), prompt)));
        let (tokens, depth) = (image_tokens, image_depth);
        let method = match depth {
            1 => MethodConfig::VptShallow(VptShallowConfig { tokens }),
            _ => MethodConfig::VptDeep(VptDeepConfig { tokens, depth }),
        };
        (method, None)
    };
    let method = import.configured(method)?;
    let classes = match rows {
        Some((rows, tokens)) => rows.classes(&method.templates()?[0], tokens, import)?,
        None => import.classes.to_vec(),
    };
    import.artifact(method, parameters, &classes)
}

/// The prompts of a tower, which must have one length.
fn prompts(first: HostTensor, deeper: Vec<HostTensor>, import: &Import<'_>) -> Result<Vec<HostTensor>> {
    let prompts: Vec<HostTensor> = std::iter::once(first).chain(deeper).collect();
    match prompts.iter().find(|prompt| prompt.shape != prompts[0].shape) {
        None => Ok(prompts),
        Some(other) => {
            let (expected, found) = (&prompts[0].shape, &other.shape);
            Err(import.malformed(format!("`{}`: expected shape {expected:?}, found {found:?}", other.origin)))
        }
    }
}

/// The words that a prompt of so many learned tokens stands among: the authors' words where it is no longer than they are.
pub(super) fn words(tokens: usize) -> String {
    match WORDS.split(' ').count() {
        most if tokens <= most => WORDS.into(),
        _ => vec!["X"; tokens].join(" "),
    }
}

/// Frozen tensors under OpenAI's own names: those of the model, and those of a second image tower.
pub(super) fn openai_names(tensors: Parameters) -> (StateDict, StateDict) {
    let (mut own, mut teacher) = (StateDict::new(), StateDict::new());
    for (name, tensor) in tensors {
        if let Some(rest) = name.strip_prefix(TEACHER) {
            teacher.insert(format!("visual.{rest}"), tensor);
        } else if let Some(rest) = name.strip_prefix("image_encoder.") {
            own.insert(format!("visual.{rest}"), tensor);
        } else {
            own.insert(name.strip_prefix("text_encoder.").unwrap_or(&name).to_string(), tensor);
        }
    }
    (own, teacher)
}
