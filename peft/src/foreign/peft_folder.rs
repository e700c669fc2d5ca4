//! A Hugging Face PEFT folder: `adapter_config.json` and `adapter_model.safetensors`, for the module names of
//! `transformers.CLIPModel`. LoRA with rank and alpha patterns, rsLoRA and DoRA are read and written.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Tensor;
use inarch_core::backbone::{Backbone, HostTensor, LinearSite};
use inarch_core::checkpoint::{Precision, encode_safetensors, read_safetensors};
use inarch_core::text::TemplateSet;
use inarch_core::{Seed, file};
use serde_json::{Map, Value, json};

use super::config::PeftLora;
use super::names::module_of;
use crate::adapter::MethodConfig;
use crate::artifact::{Artifact, Provenance};
use crate::error::Result;
use crate::linear::{DoraConfig, LoraConfig, LoraInit, SitePattern, all_sites};
use crate::method::Start;
use crate::parameters::Parameters;

/// The settings.
pub const PEFT_CONFIG_FILE: &str = "adapter_config.json";
/// The tensors.
pub const PEFT_TENSORS_FILE: &str = "adapter_model.safetensors";
/// What PEFT puts before a module's name.
const PREFIX: &str = "base_model.model.";

/// Names of the parts of an update: in PEFT, in our LoRA, in our DoRA.
const PARTS: [(&str, &str, &str); 3] = [
    ("lora_A.weight", "a", "factors.a"),
    ("lora_B.weight", "b", "factors.b"),
    ("lora_magnitude_vector", "", "magnitude"),
];

/// Reads a PEFT folder as an adapter of `backbone`. It knows no classes.
///
/// # Errors
/// `Refused` for a kind or setting that is not read here, each with its reason; `Malformed` for tensors that are missing,
/// superfluous, of another shape or not finite.
pub fn read_peft(folder: &Path, backbone: &Backbone) -> Result<Artifact> {
    let path = folder.join(PEFT_TENSORS_FILE);
    let pickle = folder.join("adapter_model.bin");
    if !path.exists() && pickle.exists() {
        return Err(inarch_core::Error::Refused {
            what: format!("tensors of PEFT adapter `{}`", folder.display()),
            expected: format!("`{PEFT_TENSORS_FILE}`; save it anew with `safe_serialization=True`"),
            found: "adapter_model.bin, a pickle".into(),
        }
        .into());
    }
    let config = PeftLora::read(&folder.join(PEFT_CONFIG_FILE))?;
    let malformed = |reason: String| inarch_core::Error::malformed("PEFT adapter", &path, reason);
    let (mut tensors, _) = read_safetensors(&path)?;
    let mut parameters = Parameters::new();
    let mut sites: Vec<(LinearSite, usize, f64)> = Vec::new();
    for site in all_sites(backbone) {
        let module = module_of(site);
        let key = |part: &str| format!("{PREFIX}{module}.{part}");
        let Some(a) = tensors.get(&key(PARTS[0].0)) else { continue };
        let rank = config.rank_at(&module);
        if a.shape.first() != Some(&rank) {
            let reason =
                format!("`{}`: expected rank {rank} by the configuration, found shape {:?}", key(PARTS[0].0), a.shape);
            return Err(malformed(reason).into());
        }
        for (theirs, lora, dora) in PARTS {
            let ours = if config.dora { dora } else { lora };
            // Older versions keep the magnitude as the weight of a module.
            let found = tensors.remove(&key(theirs)).or_else(|| tensors.remove(&key(&format!("{theirs}.weight"))));
            if ours.is_empty() {
                if found.is_some() {
                    return Err(malformed(format!("`{}` is there, but `use_dora` is not set", key(theirs))).into());
                }
                continue;
            }
            let tensor = found.ok_or_else(|| malformed(format!("`{}` is missing", key(theirs))))?;
            let name = format!("sites.{site}.{ours}");
            let tensor = if ours == "magnitude" { flat(tensor) } else { transposed(tensor).map_err(&malformed)? };
            parameters.insert(name.clone(), HostTensor { origin: name, ..tensor });
        }
        sites.push((site, rank, config.alpha_at(&module)));
    }
    if let Some(name) = tensors.keys().next() {
        let reason =
            format!("`{name}` fits no linear layer of backbone `{}` ({} such tensors)", backbone.name(), tensors.len());
        return Err(malformed(reason).into());
    }
    if sites.is_empty() {
        return Err(malformed("it holds no update of a linear layer".into()).into());
    }
    let method = method(&config, &sites, folder)?;
    let device = backbone.device();
    let features = Tensor::zeros([1, backbone.spec().dim], device);
    let adapter = method.init(&Start::new(backbone, &features, Seed::new(0), device))?;
    let adapter = adapter.with_parameters(parameters, device).map_err(malformed)?;
    let templates = TemplateSet::named("single")?.templates().to_vec();
    let provenance = Provenance { classes: Vec::new(), templates, data: None, metrics: BTreeMap::new() };
    Artifact::new(adapter, method, backbone, provenance)
}

fn method(config: &PeftLora, sites: &[(LinearSite, usize, f64)], folder: &Path) -> Result<MethodConfig> {
    let targets: Vec<String> = sites.iter().map(|(site, ..)| site.to_string()).collect();
    let PeftLora { rank, alpha, dropout, rank_stabilised, dora, .. } = *config;
    let one = |name: &LinearSite| name.to_string();
    let ranks = sites.iter().filter(|(_, own, _)| *own != rank);
    let rank_pattern: Vec<_> = ranks.map(|(site, own, _)| SitePattern { sites: one(site), value: *own }).collect();
    let alphas = sites.iter().filter(|(_, _, own)| *own != alpha);
    let alpha_pattern: Vec<_> = alphas.map(|(site, _, own)| SitePattern { sites: one(site), value: *own }).collect();
    if !dora {
        let init = LoraInit::Kaiming;
        return Ok(MethodConfig::Lora(LoraConfig {
            rank,
            alpha,
            rank_stabilised,
            dropout,
            targets,
            init,
            b_rate: 1.0,
            rank_pattern,
            alpha_pattern,
        }));
    }
    if !(rank_pattern.is_empty() && alpha_pattern.is_empty()) {
        return Err(inarch_core::Error::Refused {
            what: format!("patterns of PEFT adapter `{}`", folder.display()),
            expected: "one rank and one alpha for all layers of a DoRA".into(),
            found: "several".into(),
        }
        .into());
    }
    Ok(MethodConfig::Dora(DoraConfig { rank, alpha, rank_stabilised, dropout, targets }))
}

/// Writes an adapter as a PEFT folder for `transformers.CLIPModel`; the configuration last, so that a folder with one is
/// complete.
///
/// # Errors
/// `Refused` for a method that PEFT has no such adapter for; an I/O error naming the file.
pub fn write_peft(artifact: &Artifact, backbone: &Backbone, folder: &Path) -> Result<()> {
    let refused = |found: String, expected: &str| {
        let what = "method of an adapter for PEFT".to_string();
        crate::Error::from(inarch_core::Error::Refused { what, expected: expected.into(), found })
    };
    let plain = "lora or dora; `inarch combine` turns other changes of weights into lora";
    let (rank, alpha, rank_stabilised, dropout, dora) = match &artifact.manifest.method {
        MethodConfig::Lora(config) if matches!(config.init, LoraInit::Pissa | LoraInit::Olora) => {
            return Err(refused(format!("lora with start {:?}", config.init), plain));
        }
        MethodConfig::Lora(config) => (config.rank, config.alpha, config.rank_stabilised, config.dropout, false),
        MethodConfig::Dora(config) => (config.rank, config.alpha, config.rank_stabilised, config.dropout, true),
        other => return Err(refused(other.name().into(), plain)),
    };
    let parameters = artifact.adapter.parameters();
    let (mut tensors, mut modules) = (Parameters::new(), Vec::new());
    let (mut ranks, mut alphas) = (Map::new(), Map::new());
    for site in all_sites(backbone) {
        let module = module_of(site);
        let part = |ours: &str| parameters.get(&format!("sites.{site}.{ours}"));
        let Some(a) = part(if dora { PARTS[0].2 } else { PARTS[0].1 }) else { continue };
        if a.shape[1] != rank {
            ranks.insert(module.clone(), json!(a.shape[1]));
        }
        if let MethodConfig::Lora(config) = &artifact.manifest.method {
            let own = config.alpha_at(site);
            if own != alpha {
                alphas.insert(module.clone(), json!(own));
            }
        }
        for (theirs, lora, in_dora) in PARTS {
            let Some(tensor) = part(if dora { in_dora } else { lora }) else { continue };
            let key = format!("{PREFIX}{module}.{theirs}");
            let tensor = if tensor.shape.len() == 2 {
                transposed(tensor.clone()).map_err(|reason| inarch_core::Error::invalid(key.clone(), reason))?
            } else {
                tensor.clone()
            };
            tensors.insert(key, tensor);
        }
        modules.push(Value::String(module));
    }
    let config = json!({
        "peft_type": "LORA",
        "task_type": null,
        "base_model_name_or_path": null,
        "inference_mode": true,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": dropout,
        "use_rslora": rank_stabilised,
        "use_dora": dora,
        "bias": "none",
        "fan_in_fan_out": false,
        "init_lora_weights": true,
        "modules_to_save": null,
        "target_modules": modules,
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
    });
    let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
    file::create_folder(folder)?;
    file::write(&folder.join(PEFT_TENSORS_FILE), &encode_safetensors(&tensors, metadata, Precision::F32)?)?;
    Ok(file::write_json(&folder.join(PEFT_CONFIG_FILE), &config)?)
}

/// `[d_output, d_input]` to `[d_input, d_output]` and back.
fn transposed(tensor: HostTensor) -> Result<HostTensor, String> {
    let [rows, columns] = tensor.shape[..] else {
        return Err(format!("`{}`: expected a matrix, found shape {:?}", tensor.origin, tensor.shape));
    };
    let data = (0..columns).flat_map(|column| (0..rows).map(move |row| (row, column)));
    let data = data.map(|(row, column)| tensor.data[row * columns + column]).collect();
    Ok(HostTensor { shape: vec![columns, rows], data, ..tensor })
}

/// A vector that may be stored as a row or column.
fn flat(tensor: HostTensor) -> HostTensor {
    HostTensor { shape: vec![tensor.data.len()], ..tensor }
}
