//! An adapter of ours as a PEFT folder.

use std::collections::BTreeMap;
use std::path::Path;

use inarch_core::backbone::{Backbone, HostTensor};
use inarch_core::checkpoint::{Precision, encode_safetensors};
use inarch_core::{Error, file};
use serde_json::{Map, Value, json};

use super::parts::{Kind, Layout, SHARED, parts};
use super::whole::{self, LN_LAYERS};
use super::{PEFT_CONFIG_FILE, PEFT_TENSORS_FILE, PREFIX};
use crate::adapter::{Adapter, MethodConfig};
use crate::artifact::Artifact;
use crate::error::Result;
use crate::foreign::names::Naming;
use crate::foreign::tensors::{skew_blocks, transposed};
use crate::linear::{LoraInit, all_sites, matches};
use crate::parameters::Parameters;

/// Writes an adapter as a PEFT folder for the model of `transformers` that the backbone is, `CLIPModel` for example; the
/// configuration last, so that a folder with one is complete. A stack of one update and changed normalisations, an image
/// projection or a dense head becomes an update with `modules_to_save`.
///
/// # Errors
/// `Refused` for a method that PEFT has no such adapter for; an I/O error naming the file.
pub fn write_peft(artifact: &Artifact, backbone: &Backbone, folder: &Path) -> Result<()> {
    let invalid = |reason: String| Error::invalid("adapter for PEFT", reason);
    let members = match (&artifact.manifest.method, &artifact.adapter) {
        (MethodConfig::Stack(config), Adapter::Stack(stack)) => config.members.iter().zip(stack.members()).collect(),
        (method, adapter) => vec![(method, adapter)],
    };
    let naming = naming(&members, backbone)?;
    let (mut main, mut saved): (Option<(&MethodConfig, &Adapter)>, Vec<String>) = (None, Vec::new());
    let mut tensors = Parameters::new();
    for (method, adapter) in &members {
        let beside = members.len() > 1;
        match whole::give((method, adapter), backbone, naming, "").filter(|_| beside) {
            Some(whole) => {
                let (weights, modules) = whole.map_err(invalid)?;
                tensors.extend(weights);
                saved.extend(modules);
            }
            None if main.is_none() => main = Some((*method, *adapter)),
            None => return Err(refused("a stack of two updates")),
        }
    }
    let Some((method, adapter)) = main else { return Err(refused("a stack without an update")) };
    let (kind, mut config) = settings(method)?;
    let mut further = Map::new();
    let modules = match kind {
        Kind::LnTuning => match whole::give((method, adapter), backbone, naming, LN_LAYERS) {
            Some(whole) => {
                let (weights, modules) = whole.map_err(invalid)?;
                tensors.extend(weights);
                modules
            }
            None => Vec::new(),
        },
        _ => update((kind, method, adapter), (backbone, naming), &mut tensors, &mut further).map_err(invalid)?,
    };
    let saved = if saved.is_empty() { Value::Null } else { json!(saved) };
    for (key, value) in [
        ("task_type", Value::Null),
        ("base_model_name_or_path", Value::Null),
        ("inference_mode", Value::Bool(true)),
        ("modules_to_save", saved),
        ("target_modules", json!(modules)),
    ] {
        config.insert(key.into(), value);
    }
    config.extend(further);
    let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
    file::create_folder(folder)?;
    file::write(&folder.join(PEFT_TENSORS_FILE), &encode_safetensors(&tensors, metadata, Precision::F32)?)?;
    Ok(file::write_json(&folder.join(PEFT_CONFIG_FILE), &config)?)
}

/// The names of the modules; a dense head makes it a model with one.
fn naming(members: &[(&MethodConfig, &Adapter)], backbone: &Backbone) -> Result<Naming> {
    let image = &backbone.spec().image;
    if image.style.trunk.is_some() || image.transformer.head_width.is_some() {
        let what = format!("backbone `{}` of an adapter for PEFT", backbone.name());
        let expected = "a model that `transformers` has: CLIP, SigLIP, ViT, DeiT, DINOv2, BERT, BLIP, ViLT".into();
        let found = "blocks that none of them has".into();
        return Err(Error::Refused { what, expected, found }.into());
    }
    let with_head = members.iter().any(|(method, _)| matches!(method, MethodConfig::LinearHead(_)));
    Ok(Naming::written(backbone, with_head))
}

/// Adds the tensors of an update of linear layers, and the settings that depend on them; gives its modules.
fn update(
    (kind, method, adapter): (Kind, &MethodConfig, &Adapter),
    (backbone, naming): (&Backbone, Naming),
    tensors: &mut Parameters,
    further: &mut Map<String, Value>,
) -> Result<Vec<String>, String> {
    let mut parameters = adapter.parameters();
    if kind == Kind::Vera {
        for (theirs, ours) in SHARED {
            let tensor = parameters.remove(ours).ok_or_else(|| format!("`{ours}` is missing"))?;
            tensors.insert(theirs.into(), transposed(tensor)?);
        }
    }
    let (mut modules, mut at_input) = (Vec::new(), Vec::new());
    let (mut ranks, mut alphas) = (Map::new(), Map::new());
    for site in all_sites(backbone) {
        let Some(module) = naming.module(site) else {
            let start = format!("sites.{site}.");
            if parameters.keys().any(|name| name.starts_with(&start)) {
                return Err(format!("`{site}` is no module of its own in `transformers`; leave it out of `targets`"));
            }
            continue;
        };
        let before = tensors.len();
        let input = match method {
            MethodConfig::Ia3(config) => config.inputs.iter().any(|pattern| matches(pattern, &site.to_string())),
            _ => false,
        };
        for part in parts(kind) {
            let Some(tensor) = parameters.remove(&format!("sites.{site}.{}", part.ours)) else { continue };
            let tensor = match (part.layout, kind) {
                (Layout::Vector, Kind::Ia3) => {
                    let count = tensor.data.len();
                    HostTensor { shape: if input { vec![1, count] } else { vec![count, 1] }, ..tensor }
                }
                // BOFT stores its scales as a column.
                (Layout::Vector, Kind::Boft) => HostTensor { shape: vec![tensor.data.len(), 1], ..tensor },
                (Layout::Vector | Layout::Same, _) => tensor,
                (Layout::Skew, _) => match method {
                    MethodConfig::Boft(own) => skew_blocks(tensor, own.factors, own.block),
                    other => return Err(format!("`{}` has no blocks", other.name())),
                },
                (Layout::Transposed, _) => transposed(tensor)?,
            };
            tensors.insert(format!("{PREFIX}{module}.{}", part.theirs), tensor);
        }
        if tensors.len() == before {
            continue;
        }
        if let MethodConfig::Lora(config) = method {
            let (rank, alpha) = (config.rank_at(site), config.alpha_at(site));
            if rank != config.rank {
                ranks.insert(module.clone(), json!(rank));
            }
            if alpha != config.alpha {
                alphas.insert(module.clone(), json!(alpha));
            }
        }
        if input {
            at_input.push(module.clone());
        }
        modules.push(module);
    }
    match kind {
        Kind::Lora => {
            further.insert("rank_pattern".into(), ranks.into());
            further.insert("alpha_pattern".into(), alphas.into());
        }
        Kind::Ia3 => drop(further.insert("feedforward_modules".into(), json!(at_input))),
        _ => {}
    }
    Ok(modules)
}

/// The kind of a method in PEFT, and its settings there.
fn settings(method: &MethodConfig) -> Result<(Kind, Map<String, Value>)> {
    let lora = |rank: usize, alpha: f64, dropout: f64, stabilised: bool, dora: bool| {
        json!({
            "peft_type": "LORA", "r": rank, "lora_alpha": alpha, "lora_dropout": dropout, "use_rslora": stabilised,
            "use_dora": dora, "bias": "none", "fan_in_fan_out": false, "init_lora_weights": true,
        })
    };
    let (kind, config) = match method {
        MethodConfig::Lora(own) if !matches!(own.init, LoraInit::Pissa | LoraInit::Olora) => {
            (Kind::Lora, lora(own.rank, own.alpha, own.dropout, own.rank_stabilised, false))
        }
        MethodConfig::Dora(own) => (Kind::Dora, lora(own.rank, own.alpha, own.dropout, own.rank_stabilised, true)),
        MethodConfig::Vera(own) => (
            Kind::Vera,
            json!({
                "peft_type": "VERA", "r": own.rank, "vera_dropout": own.dropout, "save_projection": true, "bias": "none",
                "fan_in_fan_out": false, "projection_prng_key": 0,
            }),
        ),
        MethodConfig::Ia3(_) => (Kind::Ia3, json!({ "peft_type": "IA3", "fan_in_fan_out": false })),
        MethodConfig::LoHa(own) => (Kind::LoHa, json!({ "peft_type": "LOHA", "r": own.rank, "alpha": own.alpha })),
        MethodConfig::LoKr(own) if own.factor == 0 => {
            (Kind::LoKr, json!({ "peft_type": "LOKR", "r": own.rank, "alpha": own.alpha, "decompose_factor": -1 }))
        }
        MethodConfig::Oft(own) => (
            Kind::Oft,
            json!({
                "peft_type": "OFT", "r": 0, "oft_block_size": own.block, "bias": "none", "fan_in_fan_out": false,
                "coft": false, "block_share": false, "module_dropout": 0.0,
                "use_cayley_neumann": own.neumann_terms > 0,
                "num_cayley_neumann_terms": if own.neumann_terms > 0 { own.neumann_terms } else { 5 },
            }),
        ),
        MethodConfig::Boft(own) => (
            Kind::Boft,
            json!({
                "peft_type": "BOFT", "boft_block_size": own.block, "boft_block_num": 0, "boft_dropout": 0.0, "bias": "none",
                "boft_n_butterfly_factor": own.factors, "fan_in_fan_out": false,
            }),
        ),
        MethodConfig::LnTuning(_) => (Kind::LnTuning, json!({ "peft_type": "LN_TUNING" })),
        other => return Err(refused(other.name())),
    };
    Ok((kind, config.as_object().cloned().unwrap_or_default()))
}

fn refused(found: &str) -> crate::Error {
    Error::Refused {
        what: "method of an adapter for PEFT".into(),
        expected:
            "lora (not from pissa or olora), dora, vera, ia3, loha, lokr, oft, boft or ln-tuning, or one of these in a \
                   stack with ln-tuning, prolip or linear-head; `inarch combine` turns other changes of weights into lora"
                .into(),
        found: found.into(),
    }
    .into()
}
