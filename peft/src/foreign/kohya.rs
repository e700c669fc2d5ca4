//! `.safetensors` of kohya's scripts and of LyCORIS: LoRA, DoRA, LoHa and LoKr of CLIP's text tower, or of both towers where
//! LyCORIS wrapped a whole `CLIPModel`.
//!
//! A module's name has its dots replaced by underscores behind `lora_te_`, `lora_te1_` (the first text encoder of two) or
//! `lycoris_`. Each module has `lora_down.weight` `[r, in]`, `lora_up.weight` `[out, r]` and a scalar `alpha` (without it, or
//! with 0, the rank), perhaps `dora_scale` `[out, 1]`; or `hada_w{1,2}_{a,b}`; or `lokr_w1`, `lokr_w2` (or `lokr_w2_{a,b}`).

use inarch_core::backbone::{HostTensor, LinearSite};
use inarch_core::checkpoint::read_safetensors;
use serde_json::Value;

use super::import::Import;
use super::names::Naming;
use super::tensors::{Unused, flat, transposed};
use crate::adapter::MethodConfig;
use crate::artifact::Artifact;
use crate::error::Result;
use crate::linear::{DoraConfig, LoHaConfig, LoKrConfig, LoraConfig, SitePattern, all_sites};
use crate::parameters::Parameters;

const PREFIXES: [&str; 3] = ["lora_te_", "lora_te1_", "lycoris_"];
/// The image generator that such files mostly hold beside the text encoder.
const GENERATOR: &str = "lora_unet_";
/// The setting that leaves it out.
const TEXT_ONLY: &str = "text_only";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Lora,
    Dora,
    LoHa,
    LoKr,
}

/// An adapted layer.
struct Layer {
    site: LinearSite,
    kind: Kind,
    rank: usize,
    alpha: f64,
}

pub(super) fn read(import: &Import<'_>) -> Result<Artifact> {
    let mut settings = import.settings.clone();
    let text_only = settings.remove(TEXT_ONLY) == Some(Value::Bool(true));
    let import = &Import { settings: &settings, ..*import };
    let (mut tensors, _) = read_safetensors(import.path)?;
    let all = tensors.len();
    tensors.retain(|name, _| !name.starts_with(GENERATOR));
    if !text_only && tensors.len() < all {
        let expected = format!("the text encoder alone; `--set {TEXT_ONLY}=true` leaves the rest out");
        let found = format!("{} tensors of an image generator (`{GENERATOR}..`)", all - tensors.len());
        return Err(import.refused("layers", expected, found));
    }
    let mut unused = Unused::new(import, tensors);
    let (mut parameters, mut layers) = (Parameters::new(), Vec::new());
    for site in all_sites(import.backbone) {
        let Some(module) = Naming::CLIP.module(site).map(|module| module.replace('.', "_")) else { continue };
        for prefix in PREFIXES {
            if let Some(layer) = layer(&format!("{prefix}{module}"), site, &mut unused, &mut parameters, import)? {
                layers.push(layer);
            }
        }
    }
    unused.finish("linear layer of this backbone, or to no LoRA, DoRA, LoHa or LoKr")?;
    let Some(first) = layers.first() else {
        return Err(import.malformed("it holds no update of a linear layer"));
    };
    if let Some(other) = layers.iter().find(|layer| layer.kind != first.kind) {
        let what = format!("kind of `{}`", other.site);
        return Err(import.refused(
            &what,
            format!("{:?}, as at `{}`", first.kind, first.site),
            format!("{:?}", other.kind),
        ));
    }
    let method = import.configured(method(&layers, import)?)?;
    import.artifact(method, parameters, import.classes)
}

/// Takes the tensors of one layer, if it has any.
fn layer(
    name: &str,
    site: LinearSite,
    unused: &mut Unused<'_>,
    parameters: &mut Parameters,
    import: &Import<'_>,
) -> Result<Option<Layer>> {
    let alpha = unused.take(&format!("{name}.alpha")).and_then(|alpha| alpha.data.first().copied()).unwrap_or(0.0);
    let key = |part: &str| format!("{name}.{part}");
    let mut keep = |ours: &str, tensor: HostTensor| -> Result<()> {
        let tensor = transposed(tensor).map_err(|reason| import.malformed(reason))?;
        parameters.insert(format!("sites.{site}.{ours}"), tensor);
        Ok(())
    };
    let (kind, rank) = if let Some(down) = unused.take(&key("lora_down.weight")) {
        let rank = down.shape.first().copied().unwrap_or(0);
        let scale = unused.take(&key("dora_scale"));
        let factors = if scale.is_some() { ["factors.a", "factors.b"] } else { ["a", "b"] };
        keep(factors[0], down)?;
        keep(factors[1], unused.need(&key("lora_up.weight"), 2)?)?;
        match scale {
            None => (Kind::Lora, rank),
            Some(scale) if scale.shape.last() == Some(&1) => {
                parameters.insert(format!("sites.{site}.magnitude"), flat(scale));
                (Kind::Dora, rank)
            }
            Some(scale) => {
                let expected = "a length for each output, `[out, 1]` (`wd_on_out`)";
                return Err(import.refused(
                    &format!("`{}`", key("dora_scale")),
                    expected,
                    format!("{:?}", scale.shape),
                ));
            }
        }
    } else if let Some(down) = unused.take(&key("hada_w1_b")) {
        let rank = down.shape.first().copied().unwrap_or(0);
        keep("a1", down)?;
        for (theirs, ours) in [("hada_w1_a", "b1"), ("hada_w2_b", "a2"), ("hada_w2_a", "b2")] {
            keep(ours, unused.need(&key(theirs), 2)?)?;
        }
        (Kind::LoHa, rank)
    } else if let Some(small) = unused.take(&key("lokr_w1")) {
        keep("c", small)?;
        match unused.take(&key("lokr_w2_b")) {
            Some(down) => {
                let rank = down.shape.first().copied().unwrap_or(0);
                keep("a", down)?;
                keep("b", unused.need(&key("lokr_w2_a"), 2)?)?;
                (Kind::LoKr, rank)
            }
            None => {
                let great = unused.need(&key("lokr_w2"), 2)?;
                // A whole factor has no rank: from half of its greater side on, none is cut. Its scale is 1.
                let rank = great.shape.iter().max().map_or(1, |side| side.div_ceil(2).max(1));
                keep("d", great)?;
                return Ok(Some(Layer { site, kind: Kind::LoKr, rank, alpha: rank as f64 }));
            }
        }
    } else {
        return Ok(None);
    };
    let alpha = if alpha == 0.0 { rank as f64 } else { f64::from(alpha) };
    Ok(Some(Layer { site, kind, rank, alpha }))
}

/// The settings of the method.
fn method(layers: &[Layer], import: &Import<'_>) -> Result<MethodConfig> {
    let Layer { kind, rank, alpha, .. } = layers[0];
    let targets: Vec<String> = layers.iter().map(|layer| layer.site.to_string()).collect();
    let ranks = layers.iter().filter(|layer| layer.rank != rank);
    let alphas = layers.iter().filter(|layer| layer.alpha != alpha);
    if kind == Kind::Lora {
        return Ok(MethodConfig::Lora(LoraConfig {
            rank,
            alpha,
            rank_stabilised: false,
            dropout: 0.0,
            targets,
            rank_pattern: ranks.map(|layer| SitePattern { sites: layer.site.to_string(), value: layer.rank }).collect(),
            alpha_pattern: alphas
                .map(|layer| SitePattern { sites: layer.site.to_string(), value: layer.alpha })
                .collect(),
            ..LoraConfig::default()
        }));
    }
    if let Some(other) = ranks.chain(alphas).next() {
        let expected = format!("{rank} and {alpha}, as at `{}`; only LoRA may differ by layer", layers[0].site);
        let found = format!("{} and {}", other.rank, other.alpha);
        return Err(import.refused(&format!("rank and alpha at `{}`", other.site), expected, found));
    }
    Ok(match kind {
        Kind::Lora | Kind::Dora => {
            MethodConfig::Dora(DoraConfig { rank, alpha, rank_stabilised: false, dropout: 0.0, targets })
        }
        Kind::LoHa => MethodConfig::LoHa(LoHaConfig { rank, alpha, targets }),
        Kind::LoKr => MethodConfig::LoKr(LoKrConfig { rank, alpha, factor: 0, targets }),
    })
}
