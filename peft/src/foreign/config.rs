//! `adapter_config.json` of a LoRA, read strictly: a setting that we do not know, or that changes what the tensors mean, is
//! refused and never passed over.

use std::path::Path;

use inarch_core::{Error, file};
use serde_json::{Map, Value};

use crate::error::Result;

/// Settings that say where an adapter comes from or how it was trained, and change nothing that it computes. Which layers it
/// has is told by its tensors.
const TOLD_OTHERWISE: [&str; 13] = [
    "task_type",
    "peft_type",
    "auto_mapping",
    "peft_version",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "megatron_core",
    "qalora_group_size",
];

/// Settings that are read.
const READ: [&str; 8] =
    ["r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "init_lora_weights"];

/// Settings that must be absent, with what they would mean.
const REFUSED: [(&str, &str); 21] = [
    ("bias", "it trains offsets of the frozen layers beside the factors"),
    ("modules_to_save", "it holds whole layers of the backbone"),
    ("fan_in_fan_out", "its layers are stored the other way round"),
    ("lora_bias", "its factors have offsets"),
    ("layer_replication", "it repeats layers of the backbone"),
    ("trainable_token_indices", "it changes the token table"),
    ("target_parameters", "it changes parameters that are no linear layers"),
    ("loftq_config", "it belongs to a quantised backbone"),
    ("eva_config", "only its start is by EVA, but the settings are not known here"),
    ("corda_config", "it changed the frozen weights at its start"),
    ("lora_ga_config", "it changed the frozen weights at its start"),
    ("megatron_config", "its layers are split over machines"),
    ("alora_invocation_tokens", "it acts from certain tokens on only"),
    ("use_qalora", "its factors act on pooled inputs"),
    ("use_bdlora", "its factors are block-diagonal"),
    ("arrow_config", "it routes between several adapters"),
    ("velora_config", "it compresses what it trains on"),
    ("monteclora_config", "its factors are random variables"),
    ("kasa_config", "it changed the frozen weights at its start"),
    ("ensure_weight_tying", "it changes tied layers"),
    ("use_mixed_precision", "it is not known here"),
];

/// Starts of the factors that leave the frozen weights as they are.
const HARMLESS_STARTS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// What counts of the settings.
pub(super) struct PeftLora {
    pub(super) rank: usize,
    pub(super) alpha: f64,
    pub(super) dropout: f64,
    pub(super) rank_stabilised: bool,
    pub(super) dora: bool,
    rank_pattern: Vec<(String, f64)>,
    alpha_pattern: Vec<(String, f64)>,
}

impl PeftLora {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let config: Map<String, Value> = file::read_json(path, "PEFT configuration")?;
        let malformed = |reason: String| crate::Error::from(Error::malformed("PEFT configuration", path, reason));
        let refused = |what: String, expected: &str, found: &Value| {
            crate::Error::from(Error::Refused { what, expected: expected.into(), found: found.to_string() })
        };
        let kind = config.get("peft_type").and_then(Value::as_str).unwrap_or("nothing");
        if kind != "LORA" {
            let what = format!("kind of PEFT adapter `{}`", path.display());
            return Err(
                Error::Refused { what, expected: "LORA (also DoRA and rsLoRA)".into(), found: kind.into() }.into()
            );
        }
        for (key, value) in &config {
            let inert = value.is_null()
                || *value == Value::Bool(false)
                || value.as_array().is_some_and(Vec::is_empty)
                || value.as_object().is_some_and(Map::is_empty)
                || (key == "bias" && value == "none");
            if TOLD_OTHERWISE.contains(&key.as_str()) || READ.contains(&key.as_str()) {
                continue;
            }
            match REFUSED.iter().find(|(known, _)| known == key) {
                Some(_) if inert => {}
                Some((_, meaning)) => {
                    let what = format!("`{key}` of PEFT adapter `{}` ({meaning})", path.display());
                    return Err(refused(what, "none", value));
                }
                None => {
                    let what = format!("setting `{key}` of PEFT adapter `{}`", path.display());
                    return Err(refused(what, "a setting that is known here", value));
                }
            }
        }
        match config.get("init_lora_weights") {
            None | Some(Value::Bool(_) | Value::Null) => {}
            Some(Value::String(start)) if HARMLESS_STARTS.contains(&start.as_str()) => {}
            Some(other) => {
                let what = format!("`init_lora_weights` of PEFT adapter `{}`", path.display());
                return Err(refused(what, "a start that leaves the frozen weights as they are", other));
            }
        }
        let number = |key: &str, default: Option<f64>| match config.get(key) {
            None | Some(Value::Null) => default.ok_or_else(|| malformed(format!("`{key}` is missing"))),
            Some(value) => value.as_f64().ok_or_else(|| malformed(format!("`{key}` must be a number, found {value}"))),
        };
        let flag = |key: &str| match config.get(key) {
            None | Some(Value::Null) => Ok(false),
            Some(value) => {
                value.as_bool().ok_or_else(|| malformed(format!("`{key}` must be true or false, found {value}")))
            }
        };
        let pattern = |key: &str| -> Result<Vec<(String, f64)>> {
            let entries = match config.get(key) {
                None | Some(Value::Null) => return Ok(Vec::new()),
                Some(value) => value.as_object().ok_or_else(|| malformed(format!("`{key}` must be an object")))?,
            };
            let entry = |(module, value): (&String, &Value)| {
                let plain =
                    module.trim_start_matches('^').chars().all(|c| c.is_ascii_alphanumeric() || "._".contains(c));
                match value.as_f64() {
                    Some(value) if plain => Ok((module.clone(), value)),
                    _ => Err(malformed(format!(
                        "`{key}` at `{module}`: a module's name and a number are read, no expressions"
                    ))),
                }
            };
            entries.iter().map(entry).collect()
        };
        Ok(Self {
            rank: number("r", None)? as usize,
            alpha: number("lora_alpha", None)?,
            dropout: number("lora_dropout", Some(0.0))?,
            rank_stabilised: flag("use_rslora")?,
            dora: flag("use_dora")?,
            rank_pattern: pattern("rank_pattern")?,
            alpha_pattern: pattern("alpha_pattern")?,
        })
    }

    pub(super) fn rank_at(&self, module: &str) -> usize {
        of(&self.rank_pattern, module).map_or(self.rank, |rank| rank as usize)
    }

    pub(super) fn alpha_at(&self, module: &str) -> f64 {
        of(&self.alpha_pattern, module).unwrap_or(self.alpha)
    }
}

/// The first entry whose name is the module's or the end of it; with `^` it must be all of it.
fn of(pattern: &[(String, f64)], module: &str) -> Option<f64> {
    let fits = |name: &str| match name.strip_prefix('^') {
        Some(whole) => whole == module,
        None => module == name || module.strip_suffix(name).is_some_and(|before| before.ends_with('.')),
    };
    pattern.iter().find(|(name, _)| fits(name)).map(|(_, value)| *value)
}
