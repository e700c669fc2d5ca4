//! A Hugging Face PEFT folder: `adapter_config.json` and `adapter_model.safetensors`, for the module names of
//! `transformers.CLIPModel`. LoRA with rank and alpha patterns, rsLoRA, DoRA, VeRA, IA3, LoHa and LoKr are read and written.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Tensor;
use inarch_core::backbone::{Backbone, HostTensor, LinearSite};
use inarch_core::checkpoint::{Precision, encode_safetensors, read_safetensors};
use inarch_core::text::TemplateSet;
use inarch_core::{Error, Seed, file};
use serde_json::{Map, Value, json};

use super::config::{Kind, PeftConfig};
use super::names::module_of;
use crate::adapter::MethodConfig;
use crate::artifact::{Artifact, Provenance};
use crate::error::Result;
use crate::linear::{
    DoraConfig, Ia3Config, LoHaConfig, LoKrConfig, LoraConfig, LoraInit, SitePattern, VeraConfig, all_sites, matches,
};
use crate::method::Start;
use crate::parameters::Parameters;

/// The settings.
pub const PEFT_CONFIG_FILE: &str = "adapter_config.json";
/// The tensors.
pub const PEFT_TENSORS_FILE: &str = "adapter_model.safetensors";
/// What PEFT puts before a module's name.
const PREFIX: &str = "base_model.model.";
/// VeRA's shared matrices, in PEFT and here.
const SHARED: [(&str, &str); 2] = [("base_model.vera_A", "a.fixed"), ("base_model.vera_B", "b.fixed")];

/// The tensors of an adapted layer: their names in PEFT and here, and whether each layer has them.
fn parts(kind: Kind) -> &'static [(&'static str, &'static str, bool)] {
    match kind {
        Kind::Lora => &[("lora_A.weight", "a", true), ("lora_B.weight", "b", true)],
        Kind::Dora => &[
            ("lora_A.weight", "factors.a", true),
            ("lora_B.weight", "factors.b", true),
            ("lora_magnitude_vector", "magnitude", true),
        ],
        Kind::Vera => &[("vera_lambda_d", "d", true), ("vera_lambda_b", "e", true)],
        Kind::Ia3 => &[("ia3_l", "gain", true)],
        Kind::LoHa => &[
            ("hada_w1_b", "a1", true),
            ("hada_w1_a", "b1", true),
            ("hada_w2_b", "a2", true),
            ("hada_w2_a", "b2", true),
        ],
        Kind::LoKr => {
            &[("lokr_w1", "c", true), ("lokr_w2", "d", false), ("lokr_w2_b", "a", false), ("lokr_w2_a", "b", false)]
        }
    }
}

/// Names of vectors; everything else is a matrix, which PEFT stores the other way round.
const VECTORS: [&str; 4] = ["magnitude", "d", "e", "gain"];

fn is_vector(kind: Kind, ours: &str) -> bool {
    VECTORS.contains(&ours) && kind != Kind::LoKr
}

/// An adapted layer of a PEFT folder.
struct Layer {
    site: LinearSite,
    rank: usize,
    alpha: f64,
    /// IA3: the gain is on the input.
    input: bool,
}

/// Reads a PEFT folder as an adapter of `backbone`. It knows no classes.
///
/// # Errors
/// `Refused` for a kind or setting that is not read here, each with its reason; `Malformed` for tensors that are missing,
/// superfluous, of another shape or not finite.
pub fn read_peft(folder: &Path, backbone: &Backbone) -> Result<Artifact> {
    let path = folder.join(PEFT_TENSORS_FILE);
    if !path.exists() && folder.join("adapter_model.bin").exists() {
        return Err(Error::Refused {
            what: format!("tensors of PEFT adapter `{}`", folder.display()),
            expected: format!("`{PEFT_TENSORS_FILE}`; save it anew with `safe_serialization=True`"),
            found: "adapter_model.bin, a pickle".into(),
        }
        .into());
    }
    let config = PeftConfig::read(&folder.join(PEFT_CONFIG_FILE))?;
    let kind = config.kind()?;
    let malformed = |reason: String| Error::malformed("PEFT adapter", &path, reason);
    let (mut tensors, _) = read_safetensors(&path)?;
    let mut parameters = Parameters::new();
    let mut keep =
        |ours: String, tensor: HostTensor| parameters.insert(ours.clone(), HostTensor { origin: ours, ..tensor });
    if kind == Kind::Vera {
        for (theirs, ours) in SHARED {
            let missing = || malformed(format!("`{theirs}` is missing; save it with `save_projection=True`"));
            keep(ours.into(), transposed(tensors.remove(theirs).ok_or_else(missing)?).map_err(&malformed)?);
        }
    }
    let mut layers = Vec::new();
    for site in all_sites(backbone) {
        let module = module_of(site);
        let key = |part: &str| format!("{PREFIX}{module}.{part}");
        let first = parts(kind)[0].0;
        let Some(shape) = tensors.get(&key(first)).map(|tensor| tensor.shape.clone()) else { continue };
        let layer = Layer {
            site,
            rank: config
                .pattern("rank_pattern", &module)?
                .map_or_else(|| rank(&config, kind), |rank| Ok(rank as usize))?,
            alpha: config.pattern("alpha_pattern", &module)?.map_or_else(|| alpha(&config, kind), Ok)?,
            input: shape.first() == Some(&1),
        };
        if kind == Kind::Lora && shape.first() != Some(&layer.rank) {
            let expected = layer.rank;
            let reason =
                format!("`{}`: expected rank {expected} by the configuration, found shape {shape:?}", key(first));
            return Err(malformed(reason).into());
        }
        for (theirs, ours, always) in parts(kind) {
            // Older versions keep some vectors as the weight of a module.
            let tensor = tensors.remove(&key(theirs)).or_else(|| tensors.remove(&key(&format!("{theirs}.weight"))));
            let tensor = match tensor {
                Some(tensor) if is_vector(kind, ours) => flat(tensor),
                Some(tensor) => transposed(tensor).map_err(&malformed)?,
                None if *always => return Err(malformed(format!("`{}` is missing", key(theirs))).into()),
                None => continue,
            };
            keep(format!("sites.{site}.{ours}"), tensor);
        }
        layers.push(layer);
    }
    if let Some(name) = tensors.keys().next() {
        let (name_of, count) = (backbone.name(), tensors.len());
        let reason =
            format!("`{name}` fits no linear layer of backbone `{name_of}` or no `{kind:?}` ({count} such tensors)");
        return Err(malformed(reason).into());
    }
    if layers.is_empty() {
        return Err(malformed("it holds no update of a linear layer".into()).into());
    }
    let method = method(&config, kind, &layers)?;
    let device = backbone.device();
    let features = Tensor::zeros([1, backbone.spec().dim], device);
    let adapter = method.init(&Start::new(backbone, &features, Seed::new(0), device))?;
    let adapter = adapter.with_parameters(parameters, device).map_err(malformed)?;
    let templates = TemplateSet::named("single")?.templates().to_vec();
    let provenance = Provenance { classes: Vec::new(), templates, data: None, metrics: BTreeMap::new() };
    Artifact::new(adapter, method, backbone, provenance)
}

fn rank(config: &PeftConfig, kind: Kind) -> Result<usize> {
    if kind == Kind::Ia3 { Ok(0) } else { Ok(config.number("r", None)? as usize) }
}

fn alpha(config: &PeftConfig, kind: Kind) -> Result<f64> {
    match kind {
        Kind::Lora | Kind::Dora => config.number("lora_alpha", None),
        Kind::LoHa | Kind::LoKr => config.number("alpha", None),
        Kind::Vera | Kind::Ia3 => Ok(0.0),
    }
}

/// The settings of the method.
fn method(config: &PeftConfig, kind: Kind, layers: &[Layer]) -> Result<MethodConfig> {
    let name = |layer: &Layer| layer.site.to_string();
    let targets: Vec<String> = layers.iter().map(name).collect();
    let (rank, alpha) = (rank(config, kind)?, alpha(config, kind)?);
    Ok(match kind {
        Kind::Lora => {
            let ranks = layers.iter().filter(|layer| layer.rank != rank);
            let alphas = layers.iter().filter(|layer| layer.alpha != alpha);
            MethodConfig::Lora(LoraConfig {
                rank,
                alpha,
                rank_stabilised: config.flag("use_rslora")?,
                dropout: config.number("lora_dropout", Some(0.0))?,
                targets,
                init: LoraInit::Kaiming,
                b_rate: 1.0,
                rank_pattern: ranks.map(|layer| SitePattern { sites: name(layer), value: layer.rank }).collect(),
                alpha_pattern: alphas.map(|layer| SitePattern { sites: name(layer), value: layer.alpha }).collect(),
            })
        }
        Kind::Dora => MethodConfig::Dora(DoraConfig {
            rank,
            alpha,
            rank_stabilised: config.flag("use_rslora")?,
            dropout: config.number("lora_dropout", Some(0.0))?,
            targets,
        }),
        Kind::Vera => {
            let dropout = config.number("vera_dropout", Some(0.0))?;
            MethodConfig::Vera(VeraConfig { rank, dropout, targets, ..VeraConfig::default() })
        }
        Kind::Ia3 => {
            let inputs = layers.iter().filter(|layer| layer.input).map(name).collect();
            MethodConfig::Ia3(Ia3Config { targets, inputs })
        }
        Kind::LoHa => MethodConfig::LoHa(LoHaConfig { rank, alpha, targets }),
        Kind::LoKr => MethodConfig::LoKr(LoKrConfig { rank, alpha, factor: 0, targets }),
    })
}

/// Writes an adapter as a PEFT folder for `transformers.CLIPModel`; the configuration last, so that a folder with one is
/// complete.
///
/// # Errors
/// `Refused` for a method that PEFT has no such adapter for; an I/O error naming the file.
pub fn write_peft(artifact: &Artifact, backbone: &Backbone, folder: &Path) -> Result<()> {
    let (kind, mut config) = settings(&artifact.manifest.method)?;
    let mut parameters = artifact.adapter.parameters();
    let invalid = |reason: String| Error::invalid("adapter for PEFT", reason);
    let mut tensors = Parameters::new();
    if kind == Kind::Vera {
        for (theirs, ours) in SHARED {
            let tensor = parameters.remove(ours).ok_or_else(|| invalid(format!("`{ours}` is missing")))?;
            tensors.insert(theirs.into(), transposed(tensor).map_err(invalid)?);
        }
    }
    let (mut modules, mut at_input) = (Vec::new(), Vec::new());
    let (mut ranks, mut alphas) = (Map::new(), Map::new());
    for site in all_sites(backbone) {
        let module = module_of(site);
        let before = tensors.len();
        let input = match &artifact.manifest.method {
            MethodConfig::Ia3(config) => config.inputs.iter().any(|pattern| matches(pattern, &site.to_string())),
            _ => false,
        };
        for (theirs, ours, _) in parts(kind) {
            let Some(tensor) = parameters.remove(&format!("sites.{site}.{ours}")) else { continue };
            let tensor = match (is_vector(kind, ours), kind) {
                (true, Kind::Ia3) => {
                    let count = tensor.data.len();
                    HostTensor { shape: if input { vec![1, count] } else { vec![count, 1] }, ..tensor }
                }
                (true, _) => tensor,
                (false, _) => transposed(tensor).map_err(invalid)?,
            };
            tensors.insert(format!("{PREFIX}{module}.{theirs}"), tensor);
        }
        if tensors.len() == before {
            continue;
        }
        if let MethodConfig::Lora(config) = &artifact.manifest.method {
            let (rank, alpha) = (config.rank_at(site), config.alpha_at(site));
            if rank != config.rank {
                ranks.insert(module.clone(), json!(rank));
            }
            if alpha != config.alpha {
                alphas.insert(module.clone(), json!(alpha));
            }
        }
        if input {
            at_input.push(Value::String(module.clone()));
        }
        modules.push(Value::String(module));
    }
    for (key, value) in [
        ("task_type", Value::Null),
        ("base_model_name_or_path", Value::Null),
        ("inference_mode", Value::Bool(true)),
        ("modules_to_save", Value::Null),
        ("target_modules", Value::Array(modules)),
    ] {
        config.insert(key.into(), value);
    }
    match kind {
        Kind::Lora => {
            config.insert("rank_pattern".into(), ranks.into());
            config.insert("alpha_pattern".into(), alphas.into());
        }
        Kind::Ia3 => {
            config.insert("feedforward_modules".into(), at_input.into());
        }
        _ => {}
    }
    let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
    file::create_folder(folder)?;
    file::write(&folder.join(PEFT_TENSORS_FILE), &encode_safetensors(&tensors, metadata, Precision::F32)?)?;
    Ok(file::write_json(&folder.join(PEFT_CONFIG_FILE), &config)?)
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
        other => {
            return Err(Error::Refused {
                what: "method of an adapter for PEFT".into(),
                expected:
                    "lora (not from pissa or olora), dora, vera, ia3, loha or lokr; `inarch combine` turns other \
                           changes of weights into lora"
                        .into(),
                found: other.name().into(),
            }
            .into());
        }
    };
    Ok((kind, config.as_object().cloned().unwrap_or_default()))
}

/// `[d_output, d_input]` to `[d_input, d_output]` and back.
fn transposed(tensor: HostTensor) -> Result<HostTensor, String> {
    let [rows, columns] = tensor.shape[..] else {
        return Err(format!("`{}`: expected a matrix, found shape {:?}", tensor.origin, tensor.shape));
    };
    let places = (0..columns).flat_map(|column| (0..rows).map(move |row| (row, column)));
    let data = places.map(|(row, column)| tensor.data[row * columns + column]).collect();
    Ok(HostTensor { shape: vec![columns, rows], data, ..tensor })
}

/// A vector that may be stored as a row or column.
fn flat(tensor: HostTensor) -> HostTensor {
    HostTensor { shape: vec![tensor.data.len()], ..tensor }
}
