//! Reading values of a `config.json`, with errors that name the key.

use std::path::Path;

use serde_json::{Map, Value};

use crate::backbone::{Activation, TransformerSpec};
use crate::error::{Error, Result};
use crate::file;

/// What error messages call the file.
pub(super) const FORMAT: &str = "Hugging Face config";

/// A table of a `config.json`.
pub(super) struct Section<'a> {
    path: &'a Path,
    values: Map<String, Value>,
}

/// What a family's transformer has where its config is silent, and how it calls things.
pub(super) struct Defaults {
    pub(super) width: usize,
    pub(super) depth: usize,
    pub(super) heads: usize,
    pub(super) mlp: usize,
    pub(super) activation: &'static str,
    pub(super) epsilon: f64,
}

impl<'a> Section<'a> {
    pub(super) fn read(path: &'a Path) -> Result<Self> {
        Ok(Self { path, values: file::read_json(path, FORMAT)? })
    }

    /// The folder that the file is in.
    pub(super) fn folder(&self) -> &'a Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    /// The file itself.
    pub(super) fn path(&self) -> &'a Path {
        self.path
    }

    /// The table under a name, over one of the name's older form.
    pub(super) fn inner(&self, name: &str) -> Self {
        let table = |name: &str| self.values.get(name).and_then(Value::as_object).cloned().unwrap_or_default();
        let mut values = table(&format!("{name}_dict"));
        values.extend(table(name));
        Self { path: self.path, values }
    }

    /// A value that is there and not null.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn number(&self, key: &str, default: usize) -> Result<usize> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let number = value.as_u64().map(|value| value as usize);
        number.ok_or_else(|| self.wrong(format!("`{key}` must be a whole number, found {value}")))
    }

    pub(super) fn decimal(&self, key: &str, default: f64) -> Result<f64> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let number = value.as_f64().filter(|value| *value >= 0.0);
        number.ok_or_else(|| self.wrong(format!("`{key}` must be a number of at least 0, found {value}")))
    }

    pub(super) fn numbers(&self, key: &str, default: &[usize]) -> Result<Vec<usize>> {
        let Some(value) = self.get(key) else { return Ok(default.to_vec()) };
        let number = |value: &Value| value.as_u64().map(|value| value as usize);
        let list: Option<Vec<usize>> = value.as_array().and_then(|list| list.iter().map(number).collect());
        list.ok_or_else(|| self.wrong(format!("`{key}` must be a list of whole numbers, found {value}")))
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.wrong(format!("`{key}` must be true or false, found {value}")))
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }

    fn activation(&self, default: &str) -> Result<Activation> {
        let name = match self.get("hidden_act") {
            None => default,
            Some(value) => {
                value.as_str().ok_or_else(|| self.wrong(format!("`hidden_act` must be a text, found {value}")))?
            }
        };
        Ok(match name {
            "quick_gelu" => Activation::QuickGelu,
            "gelu" => Activation::Gelu,
            "gelu_pytorch_tanh" | "gelu_new" => Activation::GeluTanh,
            "relu" => Activation::Relu,
            other => {
                let known = "`quick_gelu`, `gelu`, `gelu_pytorch_tanh` and `relu`";
                return Err(self.wrong(format!("hidden_act is `{other}`; known are {known}")));
            }
        })
    }

    /// The transformer that this section describes.
    pub(super) fn transformer(&self, defaults: &Defaults) -> Result<TransformerSpec> {
        Ok(TransformerSpec::new(
            self.number("hidden_size", defaults.width)?,
            self.number("num_hidden_layers", defaults.depth)?,
            self.number("num_attention_heads", defaults.heads)?,
            self.number("intermediate_size", defaults.mlp)?,
            self.activation(defaults.activation)?,
            self.decimal("layer_norm_eps", defaults.epsilon)?,
        ))
    }

    pub(super) fn wrong(&self, reason: impl Into<String>) -> Error {
        Error::malformed(FORMAT, self.path, reason.into())
    }
}
