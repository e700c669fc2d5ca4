//! The objectives of images and texts that meet before there is a score: matching, and telling words.
//!
//! - Matching: every image of a batch meets every text of it, and each chooses its own among the others (in-batch negatives; the
//!   softmax over candidates with which ViLT is tuned for retrieval: Kim et al., 2021, arXiv 2102.03334).
//! - Masked words: 15 of 100 words of an image's own text are told from the others and the image; of these 80 of 100 are hidden, 10
//!   are another word, 10 stay (Devlin et al., 2019, arXiv 1810.04805).
//! - Captions: each word of an image's own text is told from those before it and the image (BLIP: Li et al., 2022, arXiv
//!   2201.12086).
//!
//! A checkpoint decides by its heads; one that has both kinds is trained on the sum.

use std::ops::Range;

use burn::tensor::{Tensor, TensorData};
use inarch_core::Seed;
use inarch_core::backbone::{Backbone, Cross, Pairing, Pass, Sites};
use rand::RngExt as _;

use crate::contrastive::Pairs;

/// Share of words that are told.
const TOLD: f64 = 0.15;
/// Of these the share that is hidden, and the share that is another word.
const HIDDEN: f64 = 0.8;
const OTHER: f64 = 0.1;

/// What the images of a shard give beside the texts of their step, a row for each: with a matching head its scores for all texts;
/// with one that tells words the summed log-probability of those asked for, and their number.
pub(crate) fn columns(
    backbone: &Backbone,
    image: &Tensor<2>,
    (pairs, rows): (&Pairs, &[Vec<u32>]),
    (shard, draw): (Range<usize>, Seed),
    sites: &dyn Sites,
    pass: &Pass<'_>,
) -> Tensor<2> {
    let (matches, words) = heads(backbone);
    let mut columns = Vec::new();
    if matches {
        columns.push(backbone.cross(image, rows, sites, pass));
    }
    if words {
        let own: Vec<Vec<u32>> = pairs.own[shard.clone()].iter().map(|text| rows[*text].clone()).collect();
        let asked = match backbone.spec().text.is_causal() {
            true => Cross::captions(backbone, &own),
            false => masked(backbone, own, shard, draw),
        };
        let counts: Vec<f32> = asked.words().into_iter().map(|words| words as f32).collect();
        let counts = TensorData::new(counts.clone(), [counts.len(), 1]);
        columns.push(backbone.likelihood(image, &asked, Pairing::Own, sites, pass));
        columns.push(Tensor::from_data(counts, &image.device().without_autodiff()));
    }
    Tensor::cat(columns, 1)
}

/// The loss of a step, `[1]`, from the columns of all its images.
pub(crate) fn loss(backbone: &Backbone, columns: Tensor<2>, pairs: &Pairs) -> Tensor<1> {
    let ((matches, words), [images, all]) = (heads(backbone), columns.dims());
    let matching = matches.then(|| pairs.loss_of(columns.clone().narrow(1, 0, pairs.texts.len()), 0.0));
    let telling = words.then(|| {
        let [told, count] =
            [2, 1].map(|behind| columns.clone().slice([0..images, all - behind..all - behind + 1]).sum());
        told.neg() / count
    });
    match (matching, telling) {
        (Some(matching), Some(telling)) => matching + telling,
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => columns.sum(),
    }
}

/// Whether a head scores pairs, and whether one tells words.
fn heads(backbone: &Backbone) -> (bool, bool) {
    backbone.spec().crossing.as_ref().map_or((false, false), |crossing| (crossing.matches, crossing.words))
}

/// Texts with some words hidden, at least one of each; the draw of a text depends on its place in the step alone.
fn masked(backbone: &Backbone, texts: Vec<Vec<u32>>, shard: Range<usize>, draw: Seed) -> Cross {
    let spec = backbone.spec();
    let mask = spec.crossing.as_ref().and_then(|crossing| crossing.mask).unwrap_or_default();
    let vocabulary = spec.text.vocabulary as u32;
    let (mut rows, mut asked) = (Vec::new(), Vec::new());
    for (place, mut row) in shard.zip(texts) {
        let mut random = draw.split(place).rng();
        let words = Cross::places(backbone, &row);
        let mut told: Vec<usize> = words.clone().filter(|_| random.random_bool(TOLD)).collect();
        if told.is_empty() && !words.is_empty() {
            told.push(random.random_range(words));
        }
        asked.push(told.iter().map(|place| (*place, row[*place])).collect());
        for place in told {
            let kind: f64 = random.random();
            if kind < HIDDEN {
                row[place] = mask;
            } else if kind < HIDDEN + OTHER {
                row[place] = random.random_range(0..vocabulary);
            }
        }
        rows.push(row);
    }
    Cross::new(rows, asked)
}
