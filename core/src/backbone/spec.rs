//! The shape of a dual encoder, read from and written to the Hugging Face `config.json`.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::file;

/// The MLP's non-linearity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x * sigmoid(1.702 x)`, OpenAI's CLIP.
    QuickGelu,
    /// The exact Gaussian error linear unit, most OpenCLIP models.
    Gelu,
}

/// The widths and depths that both towers share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransformerSpec {
    /// Token width.
    pub width: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads.
    pub heads: usize,
    /// Hidden width of the MLP.
    pub mlp: usize,
    /// The MLP's non-linearity.
    pub activation: Activation,
    /// Layer-norm epsilon, kept as text so that the specification hashes exactly.
    pub norm_epsilon: String,
}

impl TransformerSpec {
    /// The layer-norm epsilon as a number.
    pub fn epsilon(&self) -> f64 {
        self.norm_epsilon.parse().unwrap_or(1e-5)
    }

    fn check(&self, tower: &str) -> Result<()> {
        for (what, value, limit) in [
            ("hidden_size", self.width, 1 << 16),
            ("num_hidden_layers", self.depth, 1 << 10),
            ("num_attention_heads", self.heads, 1 << 10),
            ("intermediate_size", self.mlp, 1 << 20),
        ] {
            if value == 0 || value > limit {
                return Err(Error::mismatch(format!("{tower}.{what}"), format!("1 to {limit}"), value));
            }
        }
        if !self.width.is_multiple_of(self.heads) {
            return Err(Error::mismatch(
                format!("{tower}.hidden_size"),
                format!("a multiple of its {} heads", self.heads),
                self.width,
            ));
        }
        Ok(())
    }
}

/// The image tower.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageSpec {
    /// Side of the square input, in pixels.
    pub size: usize,
    /// Side of a square patch, in pixels.
    pub patch: usize,
    /// The transformer.
    pub transformer: TransformerSpec,
}

impl ImageSpec {
    /// Patches along one side; 0 without a tower.
    pub fn grid(&self) -> usize {
        self.size.checked_div(self.patch).unwrap_or(0)
    }

    /// Tokens of one image: the class token and the patches.
    pub fn tokens(&self) -> usize {
        self.grid() * self.grid() + 1
    }
}

/// The text tower.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextSpec {
    /// Longest text in tokens.
    pub context: usize,
    /// Rows of the token embedding.
    pub vocabulary: usize,
    /// The transformer.
    pub transformer: TransformerSpec,
}

/// A CLIP-like dual encoder with a vision transformer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackboneSpec {
    /// Width of the shared space.
    pub dim: usize,
    /// The image tower.
    pub image: ImageSpec,
    /// The text tower.
    pub text: TextSpec,
}

impl BackboneSpec {
    /// Reads a Hugging Face `config.json` of `model_type` `clip`. Missing keys take the defaults that `transformers`
    /// gives them.
    ///
    /// # Errors
    /// [`Error::Malformed`] or [`Error::Mismatch`] naming the key.
    pub fn from_hf(path: &Path) -> Result<Self> {
        let config: Value = file::read_json(path, "Hugging Face config")?;
        let family = config.get("model_type").and_then(Value::as_str).unwrap_or("clip");
        if family != "clip" {
            return Err(Error::malformed(
                "CLIP config",
                path,
                format!("model_type is `{family}`; this version adapts `clip` (vision transformer) backbones"),
            ));
        }
        let section = |name: &str| -> Value {
            let mut merged = config.get(format!("{name}_dict")).cloned().unwrap_or_else(|| json!({}));
            if let (Some(into), Some(from)) = (merged.as_object_mut(), config.get(name).and_then(Value::as_object)) {
                into.extend(from.clone());
            }
            merged
        };
        let (vision, text) = (section("vision_config"), section("text_config"));
        let number = |section: &Value, key: &str, default: usize| -> Result<usize> {
            match section.get(key) {
                None | Some(Value::Null) => Ok(default),
                Some(value) => value.as_u64().map(|value| value as usize).ok_or_else(|| {
                    Error::malformed("CLIP config", path, format!("`{key}` must be a whole number, found {value}"))
                }),
            }
        };
        let transformer = |section: &Value, width: usize, heads: usize, mlp: usize| -> Result<TransformerSpec> {
            let activation = match section.get("hidden_act").and_then(Value::as_str).unwrap_or("quick_gelu") {
                "quick_gelu" => Activation::QuickGelu,
                "gelu" => Activation::Gelu,
                other => {
                    return Err(Error::malformed(
                        "CLIP config",
                        path,
                        format!("hidden_act is `{other}`; known are `quick_gelu` and `gelu`"),
                    ));
                }
            };
            let epsilon = section.get("layer_norm_eps").and_then(Value::as_f64).unwrap_or(1e-5);
            Ok(TransformerSpec {
                width: number(section, "hidden_size", width)?,
                depth: number(section, "num_hidden_layers", 12)?,
                heads: number(section, "num_attention_heads", heads)?,
                mlp: number(section, "intermediate_size", mlp)?,
                activation,
                norm_epsilon: epsilon.to_string(),
            })
        };
        if number(&vision, "num_channels", 3)? != 3 {
            return Err(Error::malformed("CLIP config", path, "num_channels must be 3 (RGB)"));
        }
        let spec = Self {
            dim: number(&config, "projection_dim", 512)?,
            image: ImageSpec {
                size: number(&vision, "image_size", 224)?,
                patch: number(&vision, "patch_size", 32)?,
                transformer: transformer(&vision, 768, 12, 3072)?,
            },
            text: TextSpec {
                context: number(&text, "max_position_embeddings", 77)?,
                vocabulary: number(&text, "vocab_size", 49408)?,
                transformer: transformer(&text, 512, 8, 2048)?,
            },
        };
        spec.check()?;
        Ok(spec)
    }

    /// The shape of a backbone whose features come from elsewhere: a width, and towers without blocks.
    pub fn without_towers(dim: usize) -> Self {
        let transformer = TransformerSpec {
            width: 0,
            depth: 0,
            heads: 0,
            mlp: 0,
            activation: Activation::Gelu,
            norm_epsilon: 1e-5_f64.to_string(),
        };
        Self {
            dim,
            image: ImageSpec { size: 0, patch: 0, transformer: transformer.clone() },
            text: TextSpec { context: 0, vocabulary: 0, transformer },
        }
    }

    /// Checks that the sizes fit together.
    ///
    /// # Errors
    /// [`Error::Mismatch`] naming the size.
    pub fn check(&self) -> Result<()> {
        self.image.transformer.check("vision_config")?;
        self.text.transformer.check("text_config")?;
        let ImageSpec { size, patch, .. } = self.image;
        if patch == 0 || size > 1 << 14 || size < patch || !size.is_multiple_of(patch) {
            return Err(Error::mismatch("vision_config.image_size", format!("a multiple of patch_size {patch}"), size));
        }
        if self.text.context < 2 || self.text.context > 1 << 16 {
            return Err(Error::mismatch("text_config.max_position_embeddings", "2 to 65536", self.text.context));
        }
        if self.text.vocabulary < 3 || self.text.vocabulary > 1 << 24 {
            return Err(Error::mismatch("text_config.vocab_size", "3 to 16777216", self.text.vocabulary));
        }
        if self.dim == 0 || self.dim > 1 << 16 {
            return Err(Error::mismatch("projection_dim", "1 to 65536", self.dim));
        }
        Ok(())
    }

    /// The Hugging Face `config.json` of this backbone, loadable by `transformers.CLIPModel`.
    ///
    /// `bos` and `eot` are the token ids at the ends of a text.
    pub fn to_hf(&self, bos: u32, eot: u32) -> Value {
        let transformer = |spec: &TransformerSpec| {
            json!({
                "hidden_size": spec.width,
                "num_hidden_layers": spec.depth,
                "num_attention_heads": spec.heads,
                "intermediate_size": spec.mlp,
                "hidden_act": match spec.activation {
                    Activation::QuickGelu => "quick_gelu",
                    Activation::Gelu => "gelu",
                },
                "layer_norm_eps": spec.epsilon(),
                "attention_dropout": 0.0,
                "projection_dim": self.dim,
            })
        };
        let with = |mut value: Value, extra: Value| {
            if let (Some(into), Value::Object(from)) = (value.as_object_mut(), extra) {
                into.extend(from);
            }
            value
        };
        json!({
            "architectures": ["CLIPModel"],
            "model_type": "clip",
            "projection_dim": self.dim,
            "logit_scale_init_value": 2.6592,
            "vision_config": with(transformer(&self.image.transformer), json!({
                "model_type": "clip_vision_model",
                "image_size": self.image.size,
                "patch_size": self.image.patch,
                "num_channels": 3,
            })),
            "text_config": with(transformer(&self.text.transformer), json!({
                "model_type": "clip_text_model",
                "max_position_embeddings": self.text.context,
                "vocab_size": self.text.vocabulary,
                "bos_token_id": bos,
                "eos_token_id": eot,
                "pad_token_id": eot,
            })),
        })
    }
}
