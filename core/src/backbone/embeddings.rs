//! Text features from elsewhere, as the text side of a backbone without towers.
//!
//! A closed model behind an API gives features and no weights. Methods that enter at pooled features or scores need no
//! more: image features come from a data set, text features from a table of texts. A row of "tokens" is then one number,
//! the text's place in the table.

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::partial::Partial;
use super::state_dict::values;
use crate::digest::{Digest, DigestBuilder};
use crate::error::{Error, Result};
use crate::text::{Template, Tokenizer, clean_class_name};

/// What a backbone without towers is made of.
#[derive(Debug, Clone)]
pub struct TextFeatures {
    /// The texts: prompts, or class names.
    pub texts: Vec<String>,
    /// Row-major features of the texts, `[texts, dim]`.
    pub values: Vec<f32>,
    /// Width of a feature.
    pub dim: usize,
    /// Who made them: image features must have the same maker.
    pub maker: String,
    /// The factor between cosine similarity and logit.
    pub logit_scale: f32,
}

/// The text features of a backbone on its device.
#[derive(Debug)]
pub(super) struct Embeddings {
    table: Tensor<2>,
    pub(super) maker: String,
}

impl Embeddings {
    pub(super) fn new(features: &TextFeatures, device: &Device) -> Self {
        let shape = [features.texts.len(), features.dim];
        let table = Tensor::from_data(TensorData::new(features.values.clone(), shape), device);
        Self { table, maker: features.maker.clone() }
    }

    /// The features of some rows of one number each.
    pub(super) fn start(&self, rows: &[Vec<u32>]) -> Partial {
        let places: Vec<i32> = rows.iter().map(|row| row.first().copied().unwrap_or(0) as i32).collect();
        let places = TensorData::new(places, [rows.len()]);
        Partial::feature(self.table.clone().select(0, Tensor::<1, Int>::from_data(places, &self.table.device())))
    }

    /// The identity: who made the features, and what they are.
    pub(super) fn digest(&self, tokenizer: &Tokenizer, logit_scale: f32) -> Digest {
        let mut builder = DigestBuilder::default();
        builder.piece(b"embeddings");
        builder.piece(self.maker.as_bytes());
        builder.piece(&logit_scale.to_le_bytes());
        builder.piece(tokenizer.digest().to_string().as_bytes());
        builder.values(&values(self.table.clone()));
        builder.finish()
    }
}

/// The rows of some prompts: each as a whole where the table has it, or else, for all templates of a class, the class by
/// its name.
pub(super) fn prompts(tokenizer: &Tokenizer, classes: &[String], templates: &[Template]) -> Result<Vec<Vec<u32>>> {
    let mut rows = Vec::with_capacity(classes.len() * templates.len());
    for class in classes {
        let texts: Vec<String> = templates.iter().map(|template| template.fill(class)).collect();
        let whole: Option<Vec<u32>> = texts.iter().map(|text| tokenizer.place_of(text)).collect();
        let named = || tokenizer.place_of(class).or_else(|| tokenizer.place_of(&clean_class_name(class)));
        match whole.or_else(|| Some(vec![named()?; texts.len()])) {
            Some(places) => rows.extend(places.into_iter().map(|place| vec![place])),
            None => {
                let reason = format!(
                    "neither the class nor the prompt `{}` is among the {} texts of the embeddings; encode one of them",
                    texts[0],
                    tokenizer.vocab_size()
                );
                return Err(Error::invalid(format!("class `{class}`"), reason));
            }
        }
    }
    Ok(rows)
}
