//! Contrastive pre-training as data.

use std::collections::BTreeMap;

use inarch_core::backbone::{Activation, BackboneSpec, ImageSpec, TextSpec, TransformerSpec};
use inarch_core::image::{Augment, Preprocess};
use inarch_core::text::Template;
use serde::{Deserialize, Serialize};

use crate::contrastive::PairLoss;
use crate::error::Result;
use crate::settings::{parse, read_table, set};

/// Everything that decides the weights of a backbone trained from scratch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainRecipe {
    /// Name of the backbone.
    pub name: String,
    /// Seed of all draws.
    #[serde(default)]
    pub seed: u64,
    /// How many merges of the given tokenizer to keep; 0 keeps all.
    #[serde(default)]
    pub merges: usize,
    /// The architecture.
    pub model: ModelConfig,
    /// The texts.
    #[serde(default)]
    pub captions: CaptionConfig,
    /// The optimisation.
    pub train: PretrainConfig,
    /// How images are varied.
    pub augment: Augment,
    /// How images are prepared, here and ever after.
    pub preprocess: Preprocess,
}

/// The shape of a transformer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TowerConfig {
    /// Token width.
    pub width: usize,
    /// Blocks.
    pub depth: usize,
    /// Attention heads.
    pub heads: usize,
    /// Hidden width of the MLP.
    pub mlp: usize,
}

/// The shape of a dual encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Width of the shared space.
    pub dim: usize,
    /// Side of a patch; the input size is that of the preprocessing.
    pub patch: usize,
    /// Longest text in tokens.
    pub context: usize,
    /// The image tower.
    pub image: TowerConfig,
    /// The text tower.
    pub text: TowerConfig,
}

/// How labelled images get their texts. Data sets with captions of their own ignore this.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptionConfig {
    /// One of these is drawn for each image and step.
    #[serde(default)]
    pub templates: Vec<Template>,
    /// Other names of a class; one is drawn for each image and step. A class not listed goes by its own name.
    #[serde(default)]
    pub names: BTreeMap<String, Vec<String>>,
}

/// The optimisation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainConfig {
    /// Passes over the data.
    pub epochs: usize,
    /// Pairs in a step.
    pub batch: usize,
    /// Learning rate of AdamW: embeddings, gains, biases, projections.
    pub lr: f64,
    /// Learning rate of Muon: the matrices inside the blocks.
    pub matrix_lr: f64,
    /// Decoupled weight decay of all matrices.
    pub weight_decay: f32,
    /// Share of the steps over which the rates rise from zero; after it they fall linearly to zero.
    pub warmup: f64,
    /// Label smoothing.
    pub smoothing: f32,
    /// The share of the last steps in which images are shown plain.
    pub plain_share: f64,
    /// How pairs are judged; with `sigmoid` the backbone's scores get an offset, which is trained with it.
    #[serde(default, skip_serializing_if = "PairLoss::is_softmax")]
    pub pair_loss: PairLoss,
}

impl PretrainRecipe {
    /// Reads a recipe strictly, with `key=value` overrides.
    ///
    /// # Errors
    /// An unknown or missing key, or a value of the wrong type, with its place.
    pub fn parse(text: &str, origin: &str, overrides: &[String]) -> Result<Self> {
        let mut table = parse(text, origin)?;
        for assignment in overrides {
            set(&mut table, assignment)?;
        }
        read_table(&table, origin)
    }

    /// The shape of the backbone for a vocabulary of this size.
    pub fn spec(&self, vocabulary: usize) -> BackboneSpec {
        let transformer = |tower: &TowerConfig| {
            let TowerConfig { width, depth, heads, mlp } = *tower;
            TransformerSpec::new(width, depth, heads, mlp, Activation::QuickGelu, 1e-5)
        };
        let size = self.preprocess.crop.width as usize;
        let spec = BackboneSpec::new(
            self.model.dim,
            ImageSpec::new(size, self.model.patch, transformer(&self.model.image)),
            TextSpec::new(self.model.context, vocabulary, transformer(&self.model.text)),
        );
        BackboneSpec { logit_bias: self.train.pair_loss == PairLoss::Sigmoid, ..spec }
    }
}
