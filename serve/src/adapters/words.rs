//! The words whose embeddings lie nearest to the learned context of a prompt (Zhou et al., 2022, arXiv 2109.01134, section
//! 4.3): a way to look at it, with the authors' warning that it seldom reads like language.

use inarch_core::backbone::{Backbone, Tower};
use inarch_peft::Parameters;
use serde::Serialize;
use utoipa::ToSchema;

/// The nearest words of one learned vector.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Words {
    /// The parameter and the vector's place in it, e.g. `context[3]`.
    pub(crate) vector: String,
    /// Words and their Euclidean distances, nearest first.
    pub(crate) nearest: Vec<(String, f32)>,
}

/// For each learned vector of the text tower's width, its `count` nearest words.
pub(crate) fn nearest_words(parameters: &Parameters, backbone: &Backbone, count: usize) -> Vec<Words> {
    let width = backbone.width(Tower::Text);
    let vocabulary = backbone.tokenizer().vocab_size();
    let contexts: Vec<_> =
        parameters.iter().filter(|(name, tensor)| is_prompt(name) && tensor.shape.last() == Some(&width)).collect();
    if contexts.is_empty() {
        return Vec::new();
    }
    let special = [backbone.tokenizer().bos(), backbone.tokenizer().eot()];
    let ids: Vec<u32> = (0..vocabulary as u32).filter(|id| !special.contains(id)).collect();
    let table = inarch_core::backbone::values(backbone.token_embeddings(&ids));
    let mut found = Vec::new();
    for (name, tensor) in contexts {
        for (at, vector) in tensor.data.chunks(width).enumerate() {
            let mut nearest: Vec<(u32, f32)> = ids
                .iter()
                .zip(table.chunks(width))
                .map(|(id, row)| (*id, row.iter().zip(vector).map(|(left, right)| (left - right).powi(2)).sum::<f32>()))
                .collect();
            nearest.sort_by(|left, right| left.1.total_cmp(&right.1).then(left.0.cmp(&right.0)));
            let word = |(id, squared): &(u32, f32)| {
                let word = backbone.tokenizer().symbol(*id).unwrap_or_default();
                (word.trim_end_matches("</w>").to_string(), squared.sqrt())
            };
            let nearest = nearest.iter().take(count).map(word).collect();
            found.push(Words { vector: format!("{name}[{at}]"), nearest });
        }
    }
    found
}

/// Whether a parameter of this name stands among the embedded words: deeper prompts have no words near them.
fn is_prompt(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    matches!(last, "context" | "contexts") || name.ends_with("text.blocks.0")
}
