//! Contexts of CoOp, CoCoOp, KgCoOp and ProGrad: `prompt_learner/model.pth.tar-N`, written by Dassl.
//!
//! The state dict holds `ctx` `[n, width]` (or `[classes, n, width]`, a context for each class), the frozen buffers
//! `token_prefix` and `token_suffix`, for CoCoOp `meta_net.linear{1,2}`, and for KgCoOp a `bias_vectors` and a `meta_net` that
//! its forward pass never reads. ProGrad's layout is CoOp's; both are read as `coop`.

use inarch_core::backbone::HostTensor;

use super::import::Import;
use super::prompt_rows::PromptRows;
use super::tensors::{Unused, flat, transposed};
use crate::adapter::MethodConfig;
use crate::artifact::Artifact;
use crate::error::Result;
use crate::parameters::Parameters;
use crate::tokens::{CoCoopConfig, CoopConfig, KgCoopConfig};

/// What KgCoOp keeps and does not use.
const LEFTOVERS: [&str; 5] = [
    "bias_vectors",
    "meta_net.linear1.weight",
    "meta_net.linear1.bias",
    "meta_net.linear2.weight",
    "meta_net.linear2.bias",
];

pub(super) fn read(import: &Import<'_>) -> Result<Artifact> {
    let mut unused = Unused::of_checkpoint(import)?;
    let rows = PromptRows::take(&mut unused, "", import)?;
    let ctx = unused.take("ctx").ok_or_else(|| import.malformed("`ctx`, the learned context, is missing"))?;
    let (tokens, class_specific) = match ctx.shape[..] {
        [tokens, _] => (tokens, false),
        [_, tokens, _] => (tokens, true),
        _ => return Err(import.malformed(format!("`ctx`: expected two or three axes, found shape {:?}", ctx.shape))),
    };
    let (width, words) = (ctx.shape.last().copied().unwrap_or(0), String::new());
    let context = HostTensor { shape: vec![ctx.data.len() / width.max(1), width], ..ctx };
    let mut parameters = Parameters::new();
    let method = if unused.has("bias_vectors") {
        LEFTOVERS.iter().for_each(|name| drop(unused.take(name)));
        parameters.insert("prompt.context".into(), context);
        MethodConfig::KgCoop(KgCoopConfig { context: tokens, words, ..KgCoopConfig::default() })
    } else if unused.has("meta_net.linear1.weight") {
        let hidden = unused.need("meta_net.linear1.bias", 1)?;
        let dim = import.backbone.spec().dim;
        let reduction = (1..=dim).find(|reduction| dim / reduction == hidden.data.len()).ok_or_else(|| {
            import.malformed(format!("`meta_net` has {} hidden values, which no part of {dim} is", hidden.data.len()))
        })?;
        parameters.insert("down.bias".into(), hidden);
        parameters.insert("up.bias".into(), flat(unused.need("meta_net.linear2.bias", 1)?));
        for (theirs, ours) in [("meta_net.linear1.weight", "down.weight"), ("meta_net.linear2.weight", "up.weight")] {
            let weight = transposed(unused.need(theirs, 2)?).map_err(|reason| import.malformed(reason))?;
            parameters.insert(ours.into(), weight);
        }
        parameters.insert("context".into(), context);
        MethodConfig::CoCoop(CoCoopConfig { context: tokens, words, reduction })
    } else {
        parameters.insert("context".into(), context);
        MethodConfig::Coop(CoopConfig { context: tokens, words, class_specific, ..CoopConfig::default() })
    };
    unused.finish("context of CoOp, CoCoOp, KgCoOp or ProGrad")?;
    let method = import.configured(method)?;
    // The buffers are of a prompt with the name at the end, wherever it is put afterwards.
    let neutral = MethodConfig::Coop(CoopConfig { context: tokens, ..CoopConfig::default() }).templates()?;
    let classes = rows.classes(&neutral[0], tokens, import)?;
    import.artifact(method, parameters, &classes)
}
