//! Words for an image, by a backbone that tells each word of a text from those before it.

use burn::tensor::Tensor;
use burn::tensor::activation::log_softmax;
use inarch_core::backbone::{Backbone, Pass, Sites, values};

use crate::error::Result;

/// A text and how probable it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Caption {
    /// The text.
    pub text: String,
    /// The mean log-likelihood of its words and its end.
    pub log_likelihood: f32,
}

/// How captions are searched for.
#[derive(Debug, Clone, Copy)]
pub struct CaptionSearch {
    /// Beginnings that are kept from word to word; 1 takes the most probable word each time.
    pub beams: usize,
    /// Words at most.
    pub words: usize,
}

/// A text on its way.
struct Beam {
    row: Vec<u32>,
    /// The log-likelihood of its words.
    told: f32,
    ended: bool,
}

impl Beam {
    /// The mean log-likelihood of a word, so that long texts are not passed over for being long.
    fn mean(&self) -> f32 {
        self.told / (self.row.len() - 1).max(1) as f32
    }
}

impl CaptionSearch {
    /// The best text found for one image, of which `image` `[1, values]` is what its tower gave.
    ///
    /// # Errors
    /// [`Refused`](inarch_core::Error::Refused) by a backbone that writes no captions.
    pub fn caption(&self, backbone: &Backbone, image: &Tensor<2>, sites: &dyn Sites) -> Result<Caption> {
        let start = writes(backbone)?;
        let spec = &backbone.spec().text;
        let end = backbone.tokenizer().eot();
        let mut beams = vec![Beam { row: vec![start], told: 0.0, ended: false }];
        for _ in 0..self.words.min(spec.context.saturating_sub(1)) {
            let rows: Vec<Vec<u32>> = beams.iter().filter(|beam| !beam.ended).map(|beam| beam.row.clone()).collect();
            if rows.is_empty() {
                break;
            }
            let images = image.clone().repeat_dim(0, rows.len());
            let scores = log_softmax(backbone.next_words(&images, &rows, sites, &Pass::evaluate()), 1);
            let scores = values(scores);
            let mut open = scores.chunks(spec.vocabulary);
            let mut next = Vec::new();
            for beam in beams {
                if beam.ended {
                    next.push(beam);
                    continue;
                }
                for (word, score) in best(open.next().unwrap_or_default(), self.beams) {
                    let row = [&beam.row[..], &[word]].concat();
                    next.push(Beam { row, told: beam.told + score, ended: word == end });
                }
            }
            // In order of discovery where two are equally probable, so that a search can be repeated.
            next.sort_by(|left, right| right.mean().total_cmp(&left.mean()));
            next.truncate(self.beams.max(1));
            beams = next;
        }
        let best = beams
            .first()
            .map(|beam| Caption { text: backbone.tokenizer().decode(&beam.row[1..]), log_likelihood: beam.mean() });
        Ok(best.unwrap_or(Caption { text: String::new(), log_likelihood: 0.0 }))
    }
}

/// The token that captions begin with.
fn writes(backbone: &Backbone) -> Result<u32> {
    let spec = backbone.spec();
    match &spec.crossing {
        Some(crossing) if crossing.words && spec.text.is_causal() => {
            Ok(crossing.start.unwrap_or(backbone.tokenizer().bos()))
        }
        _ => Err(inarch_core::Error::Refused {
            what: "a caption".into(),
            expected: "a backbone that writes them, such as BLIP".into(),
            found: format!("`{}`, which tells no word from those before it", backbone.name()),
        }
        .into()),
    }
}

/// Whether this backbone writes captions.
pub fn writes_captions(backbone: &Backbone) -> bool {
    writes(backbone).is_ok()
}

/// The most probable words, best first.
fn best(scores: &[f32], count: usize) -> Vec<(u32, f32)> {
    let mut words: Vec<(u32, f32)> = scores.iter().enumerate().map(|(word, score)| (word as u32, *score)).collect();
    words.sort_by(|left, right| right.1.total_cmp(&left.1));
    words.truncate(count.max(1));
    words
}
