//! `adapter_config.json` of HF PEFT, read strictly: a setting that we do not know, or that changes what the tensors mean, is
//! refused and never passed over.

use std::path::{Path, PathBuf};

use inarch_core::{Error, file};
use serde_json::{Map, Value};

use super::parts::Kind;
use crate::error::Result;

/// Settings that say where an adapter comes from, how it started and how it was trained, and change nothing that it computes.
/// Which layers it has is told by its tensors.
const TOLD_OTHERWISE: [&str; 27] = [
    "task_type",
    "peft_type",
    "auto_mapping",
    "peft_version",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
    "target_modules",
    "exclude_modules",
    "feedforward_modules",
    "layers_to_transform",
    "layers_pattern",
    "megatron_core",
    "qalora_group_size",
    "init_weights",
    "init_ia3_weights",
    "projection_prng_key",
    "save_projection",
    "rank_dropout",
    "rank_dropout_scale",
    "module_dropout",
    "use_effective_conv2d",
    "d_initial",
    "decompose_factor",
    "oft_block_size",
    "modules_to_save",
    // PEFT fills it for a start by EVA, whose factors and ranks are in the folder.
    "eva_config",
];

/// Settings that must be absent, with what they would mean.
const REFUSED: [(&str, &str); 21] = [
    ("bias", "it trains offsets of the frozen layers beside the adapter"),
    ("coft", "its rotations are bounded anew in every pass"),
    ("block_share", "one rotation is shared by all blocks"),
    ("fan_in_fan_out", "its layers are stored the other way round"),
    ("lora_bias", "its factors have offsets"),
    ("decompose_both", "its smaller factor is a product too"),
    ("layer_replication", "it repeats layers of the backbone"),
    ("trainable_token_indices", "it changes the token table"),
    ("target_parameters", "it changes parameters that are no linear layers"),
    ("loftq_config", "it belongs to a quantised backbone"),
    ("corda_config", "it changed the frozen weights at its start"),
    ("lora_ga_config", "it changed the frozen weights at its start"),
    ("kasa_config", "it changed the frozen weights at its start"),
    ("megatron_config", "its layers are split over machines"),
    ("alora_invocation_tokens", "it acts from certain tokens on only"),
    ("use_qalora", "its factors act on pooled inputs"),
    ("use_bdlora", "its factors are block-diagonal"),
    ("arrow_config", "it routes between several adapters"),
    ("velora_config", "it compresses what it trains on"),
    ("monteclora_config", "its factors are random variables"),
    ("ensure_weight_tying", "it changes tied layers"),
];

/// Kinds that cannot be read, with the reason.
const OTHER_KINDS: [(&str, &str); 6] = [
    (
        "PROMPT_TUNING",
        "virtual tokens before the start token, which neither CLIP's towers nor PEFT on them take; see `coop`",
    ),
    (
        "P_TUNING",
        "virtual tokens before the start token, which neither CLIP's towers nor PEFT on them take; see `coop`",
    ),
    ("PREFIX_TUNING", "stored keys and values, which PEFT does not put into CLIP; see `prefix-tuning`"),
    ("FOURIERFT", "coefficients at places that PyTorch's generator draws and no file tells"),
    ("ADALORA", "ranks that are pruned in training; save it as plain LoRA"),
    ("XLORA", "a mixture of several adapters"),
];

/// Starts of LoRA's factors that leave the frozen weights as they are.
const HARMLESS_STARTS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// The settings of a PEFT adapter.
pub(super) struct PeftConfig {
    path: PathBuf,
    settings: Map<String, Value>,
}

impl PeftConfig {
    pub(super) fn read(path: &Path) -> Result<Self> {
        Ok(Self { path: path.into(), settings: file::read_json(path, "PEFT configuration")? })
    }

    /// Its kind, after every setting was found to be one that is read for it or changes nothing.
    pub(super) fn kind(&self) -> Result<Kind> {
        let name = self.settings.get("peft_type").and_then(Value::as_str).unwrap_or("nothing");
        let (kind, read): (Kind, &[&str]) = match name {
            "LORA" => {
                let kind = if self.flag("use_dora")? { Kind::Dora } else { Kind::Lora };
                let patterns = ["use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "init_lora_weights"];
                (kind, &[&["r", "lora_alpha", "lora_dropout"][..], &patterns].concat())
            }
            "VERA" => (Kind::Vera, &["r", "vera_dropout"]),
            "IA3" => (Kind::Ia3, &[]),
            "LOHA" => (Kind::LoHa, &["r", "alpha", "rank_pattern", "alpha_pattern"]),
            "LOKR" => (Kind::LoKr, &["r", "alpha", "rank_pattern", "alpha_pattern"]),
            // The width of a block is told by the tensors.
            "OFT" => (Kind::Oft, &["r", "eps", "use_cayley_neumann", "num_cayley_neumann_terms"]),
            "BOFT" => (Kind::Boft, &["boft_block_size", "boft_block_num", "boft_n_butterfly_factor", "boft_dropout"]),
            "LN_TUNING" => (Kind::LnTuning, &[]),
            _ => {
                let what = format!("kind of PEFT adapter `{}`", self.path.display());
                let expected = "LORA (also DoRA and rsLoRA), VERA, IA3, LOHA, LOKR, OFT, BOFT or LN_TUNING".into();
                let reason = OTHER_KINDS.iter().find(|(kind, _)| *kind == name);
                let found = reason.map_or_else(|| name.to_string(), |(kind, reason)| format!("{kind} ({reason})"));
                return Err(Error::Refused { what, expected, found }.into());
            }
        };
        for (key, value) in &self.settings {
            let inert = value.is_null()
                || *value == Value::Bool(false)
                || value.as_array().is_some_and(Vec::is_empty)
                || value.as_object().is_some_and(Map::is_empty)
                || (key == "bias" && value == "none");
            if TOLD_OTHERWISE.contains(&key.as_str()) || read.contains(&key.as_str()) {
                continue;
            }
            match REFUSED.iter().find(|(known, _)| known == key) {
                Some(_) if inert => {}
                Some((_, meaning)) => return Err(self.refused(&format!("`{key}` ({meaning})"), "none", value)),
                None => return Err(self.refused(&format!("setting `{key}`"), "a setting that is known here", value)),
            }
        }
        match self.settings.get("init_lora_weights") {
            None | Some(Value::Bool(_) | Value::Null) => {}
            Some(Value::String(start)) if HARMLESS_STARTS.contains(&start.as_str()) => {}
            Some(other) => {
                let expected = "a start that leaves the frozen weights as they are";
                return Err(self.refused("`init_lora_weights`", expected, other));
            }
        }
        if matches!(kind, Kind::LoHa | Kind::LoKr | Kind::Dora) {
            for key in ["rank_pattern", "alpha_pattern"] {
                if let Some(value) =
                    self.settings.get(key).filter(|value| value.as_object().is_some_and(|map| !map.is_empty()))
                {
                    return Err(self.refused(&format!("`{key}`"), "none for this kind, only for LoRA", value));
                }
            }
        }
        Ok(kind)
    }

    fn refused(&self, what: &str, expected: &str, found: &Value) -> crate::Error {
        let what = format!("{what} of PEFT adapter `{}`", self.path.display());
        Error::Refused { what, expected: expected.into(), found: found.to_string() }.into()
    }

    /// A part of the adapter that is not as it must be.
    pub(super) fn other(&self, what: &str, expected: &str, found: &str) -> crate::Error {
        let what = format!("{what} of PEFT adapter `{}`", self.path.display());
        Error::Refused { what, expected: expected.into(), found: found.into() }.into()
    }

    /// The modules that are stored as a whole.
    pub(super) fn modules_to_save(&self) -> Result<Vec<String>> {
        let fault = || self.malformed("`modules_to_save` must be a list of names".into());
        match self.settings.get("modules_to_save") {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(names)) => {
                names.iter().map(|name| name.as_str().map(String::from).ok_or_else(fault)).collect()
            }
            Some(_) => Err(fault()),
        }
    }

    fn malformed(&self, reason: String) -> crate::Error {
        Error::malformed("PEFT configuration", &self.path, reason).into()
    }

    /// A number; `default` where it is not there.
    pub(super) fn number(&self, key: &str, default: Option<f64>) -> Result<f64> {
        match self.settings.get(key) {
            None | Some(Value::Null) => default.ok_or_else(|| self.malformed(format!("`{key}` is missing"))),
            Some(value) => {
                value.as_f64().ok_or_else(|| self.malformed(format!("`{key}` must be a number, found {value}")))
            }
        }
    }

    pub(super) fn flag(&self, key: &str) -> Result<bool> {
        self.flag_or(key, false)
    }

    /// A truth value; `default` where it is not there.
    pub(super) fn flag_or(&self, key: &str, default: bool) -> Result<bool> {
        match self.settings.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => {
                value.as_bool().ok_or_else(|| self.malformed(format!("`{key}` must be true or false, found {value}")))
            }
        }
    }

    /// The value of a pattern at a module: the first entry whose name is the module's or the end of it; with `^` it must be
    /// all of it.
    pub(super) fn pattern(&self, key: &str, module: &str) -> Result<Option<f64>> {
        let entries = match self.settings.get(key) {
            None | Some(Value::Null) => return Ok(None),
            Some(value) => value.as_object().ok_or_else(|| self.malformed(format!("`{key}` must be an object")))?,
        };
        let mut found = None;
        for (name, value) in entries {
            let plain = name.trim_start_matches('^').chars().all(|c| c.is_ascii_alphanumeric() || "._".contains(c));
            let (true, Some(value)) = (plain, value.as_f64()) else {
                let reason = format!("`{key}` at `{name}`: a module's name and a number are read, no expressions");
                return Err(self.malformed(reason));
            };
            let fits = match name.strip_prefix('^') {
                Some(whole) => whole == module,
                None => {
                    module == name || module.strip_suffix(name.as_str()).is_some_and(|before| before.ends_with('.'))
                }
            };
            found = found.or(fits.then_some(value));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::{Kind, OTHER_KINDS, PeftConfig, REFUSED};

    /// What becomes of a configuration of `kind` with one more setting.
    fn read(kind: &str, key: &str, value: Value) -> Result<Kind, String> {
        let settings = Map::from_iter([("peft_type".to_string(), json!(kind)), (key.to_string(), value)]);
        let config = PeftConfig { path: "adapter_config.json".into(), settings };
        config.kind().map_err(|error| error.to_string())
    }

    #[test]
    fn every_setting_that_changes_the_meaning_is_refused_unless_it_is_absent() {
        for (key, meaning) in REFUSED {
            for value in [json!(true), json!("some"), json!(1), json!([1]), json!({ "some": 1 })] {
                let message = read("LORA", key, value.clone()).expect_err(key);
                for word in [key, meaning, "adapter_config.json", &value.to_string()] {
                    assert!(message.contains(word), "`{word}` is missing in: {message}");
                }
            }
            for value in [Value::Null, json!(false), json!([]), json!({})] {
                assert_eq!(read("LORA", key, value.clone()), Ok(Kind::Lora), "{key} = {value}");
            }
        }
        assert_eq!(read("LORA", "bias", json!("none")), Ok(Kind::Lora));
    }

    #[test]
    fn every_kind_that_is_not_read_is_refused_with_its_reason() {
        for (kind, reason) in OTHER_KINDS {
            let message = read(kind, "r", json!(2)).expect_err(kind);
            for word in [kind, reason, "BOFT or LN_TUNING"] {
                assert!(message.contains(word), "`{word}` is missing in: {message}");
            }
        }
    }
}
