//! Images and texts that meet before there is a score: the stream of their pairs, and what is read of it.

use std::ops::Range;

use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor, TensorData};

use super::block::{BlockContext, Seen, norm};
use super::frozen::Backbone;
use super::pass::{Mode, Pass};
use super::place::{BlockSite, NormSite, Tower};
use super::site::Sites;
use super::spec::{Crossing, Meeting};
use super::state_dict::indices;
use super::text_tower::mask_padding;

/// Values of the widest tensor of pairs that run together.
const TILE_VALUES: usize = 1 << 25;

/// Which texts meet which images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairing {
    /// Every text every image.
    All,
    /// Text `i` image `i`.
    Own,
}

/// Texts as a model reads them, and the words that it is asked for.
///
/// A text that is asked for word by word stands for itself (a causal tower), or once for each of its words, which is hidden there.
#[derive(Debug, Clone)]
pub struct Cross {
    rows: Vec<Vec<u32>>,
    /// For each row the places whose hidden states tell a word, and the word.
    asked: Vec<Vec<(usize, u32)>>,
}

impl Cross {
    /// Rows in which a place's hidden state tells a word: `(place, word)`.
    pub fn new(rows: Vec<Vec<u32>>, asked: Vec<Vec<(usize, u32)>>) -> Self {
        Self { rows, asked }
    }

    /// Captions, of which each word is told by those before it.
    pub fn captions(backbone: &Backbone, rows: &[Vec<u32>]) -> Self {
        let rows: Vec<Vec<u32>> = rows.iter().map(|row| backbone.begun(row)).collect();
        let next = |row: &Vec<u32>| row.windows(2).enumerate().map(|(place, pair)| (place, pair[1])).collect();
        let asked = rows.iter().map(next).collect();
        Self { rows, asked }
    }

    /// The places of a text's own words in its row; a text without words is asked for its end.
    pub fn places(backbone: &Backbone, row: &[u32]) -> Range<usize> {
        let (first, end) = (usize::from(backbone.spec().text.style.begins), row.len().max(1) - 1);
        if end > first { first..end } else { end..row.len() }
    }

    /// How many words each row is asked for.
    pub fn words(&self) -> Vec<usize> {
        self.asked.iter().map(Vec::len).collect()
    }
}

impl Backbone {
    /// How images and texts meet.
    ///
    /// # Panics
    /// Where they do not; see [`crosses`](Self::crosses).
    fn crossing(&self) -> &Crossing {
        self.spec().crossing.as_ref().expect("a backbone in which images and texts meet")
    }

    /// A row that begins as this backbone's texts do.
    fn begun(&self, row: &[u32]) -> Vec<u32> {
        let mut row = row.to_vec();
        if let (Some(start), Some(first)) = (self.crossing().start, row.first_mut()) {
            *first = start;
        }
        row
    }

    /// Scores of texts for images, `[images, rows]`, from what the image tower gave, `[images, values]`, and token rows: of a pair
    /// that of the matching head, else the mean log-likelihood of the text's words. A word is told by those before it, or by all
    /// others where it is hidden itself (Salazar et al., 2020, arXiv 1910.14659).
    ///
    /// # Panics
    /// Where images and texts do not meet before the score; see [`crosses`](Self::crosses).
    pub fn cross(&self, image: &Tensor<2>, rows: &[Vec<u32>], sites: &dyn Sites, pass: &Pass<'_>) -> Tensor<2> {
        if self.crossing().matches {
            let rows: Vec<Vec<u32>> = rows.iter().map(|row| self.begun(row)).collect();
            return self.matches(image, &rows, sites, pass);
        }
        let device = image.device().without_autodiff();
        if self.spec().text.is_causal() {
            let texts = Cross::captions(self, rows);
            let counts: Vec<f32> = texts.words().into_iter().map(|words| words.max(1) as f32).collect();
            let counts = Tensor::<2>::from_data(TensorData::new(counts, [1, rows.len()]), &device);
            return self.likelihood(image, &texts, Pairing::All, sites, pass) / counts;
        }
        // Each text stands once for each of its words; their mean is a product with a matrix of shares.
        let (mut hidden, mut owners) = (Cross::new(Vec::new(), Vec::new()), Vec::new());
        for (text, row) in rows.iter().enumerate() {
            let row = self.begun(row);
            let words = Cross::places(self, &row);
            for place in words.clone() {
                let mut masked = row.clone();
                masked[place] = self.crossing().mask.unwrap_or_default();
                hidden.rows.push(masked);
                hidden.asked.push(vec![(place, row[place])]);
                owners.push((text, 1.0 / words.len() as f32));
            }
        }
        let mut shares = vec![0.0; owners.len() * rows.len()];
        for (at, (text, share)) in owners.iter().enumerate() {
            shares[at * rows.len() + text] = *share;
        }
        let shares = Tensor::<2>::from_data(TensorData::new(shares, [owners.len(), rows.len()]), &device);
        self.likelihood(image, &hidden, Pairing::All, sites, pass).matmul(shares)
    }

    /// The matching head's scores, `[images, rows]`.
    fn matches(&self, image: &Tensor<2>, rows: &[Vec<u32>], sites: &dyn Sites, pass: &Pass<'_>) -> Tensor<2> {
        let Some(head) = self.towers().and_then(|model| model.match_head.as_ref()) else {
            unreachable!("a crossing that matches has a head for it")
        };
        self.tiled(image, rows, Pairing::All, self.spec().text.transformer.mlp, pass, |image, tile, pass| {
            let ([images, _, _], tile) = (image.dims(), &rows[tile]);
            let first = self.meet(image, tile, Pairing::All, true, sites, pass).narrow(1, 0, 1).squeeze_dim::<2>(1);
            head.forward(first).reshape([images, tile.len()])
        })
    }

    /// The summed log-probability of the words that are asked for: `[images, rows]`, or `[images, 1]` where each text has its own
    /// image.
    ///
    /// # Panics
    /// Without a head that tells words apart.
    pub fn likelihood(
        &self,
        image: &Tensor<2>,
        texts: &Cross,
        pairing: Pairing,
        sites: &dyn Sites,
        pass: &Pass<'_>,
    ) -> Tensor<2> {
        self.tiled(image, &texts.rows, pairing, self.spec().text.vocabulary, pass, |image, tile, pass| {
            let ([images, _, _], device) = (image.dims(), image.device().without_autodiff());
            let (asked, tile) = (&texts.asked[tile.clone()], &texts.rows[tile]);
            let hidden = self.meet(image, tile, pairing, false, sites, pass);
            let [pairs, tokens, width] = hidden.dims();
            let most = asked.iter().map(Vec::len).max().unwrap_or(0).max(1);
            let (mut places, mut words, mut told) = (Vec::new(), Vec::new(), Vec::new());
            for pair in 0..pairs {
                let own = &asked[pair % tile.len()];
                for at in 0..most {
                    let (place, word) = own.get(at).copied().unwrap_or((0, 0));
                    places.push(pair * tokens + place);
                    words.push(word as i32);
                    told.push(if at < own.len() { 1.0f32 } else { 0.0 });
                }
            }
            let hidden = hidden.reshape([pairs * tokens, width]).select(0, indices(places, &device));
            let words = Tensor::<2, Int>::from_data(TensorData::new(words, [pairs * most, 1]), &device);
            let told = Tensor::<2>::from_data(TensorData::new(told, [pairs, most]), &device);
            let found = log_softmax(self.word_scores(hidden), 1).gather(1, words).reshape([pairs, most]);
            (found * told).sum_dim(1).reshape([images, pairs / images])
        })
    }

    /// Scores of the word that follows each row, `[rows, vocabulary]`; row `i` tells of image `i`. Rows begin as this backbone's
    /// texts do and have no end.
    ///
    /// # Panics
    /// As [`likelihood`](Self::likelihood).
    pub fn next_words(&self, image: &Tensor<2>, rows: &[Vec<u32>], sites: &dyn Sites, pass: &Pass<'_>) -> Tensor<2> {
        self.tiled(image, rows, Pairing::Own, self.spec().text.vocabulary, pass, |image, tile, pass| {
            let tile = &rows[tile];
            let hidden = self.meet(image, tile, Pairing::Own, false, sites, pass);
            let [_, tokens, width] = hidden.dims();
            let places = tile.iter().enumerate().map(|(at, row)| at * tokens + row.len() - 1);
            let places = indices(places, &hidden.device());
            self.word_scores(hidden.reshape([tile.len() * tokens, width]).select(0, places))
        })
    }

    /// Hidden states `[tokens, width]` to scores of words `[tokens, vocabulary]`.
    fn word_scores(&self, hidden: Tensor<2>) -> Tensor<2> {
        let Some(head) = self.towers().and_then(|model| model.word_head.as_ref()) else {
            unreachable!("a crossing without a matching head tells words apart")
        };
        let transformer = &self.spec().text.transformer;
        head.forward(transformer.activation, transformer.epsilon(), hidden)
    }

    /// Runs pairs in tiles, no larger than memory allows: of each, images `[images, tokens, width]` and a range of rows to one row for
    /// each image.
    /// `widest` is the width of the widest tensor of a token.
    fn tiled(
        &self,
        image: &Tensor<2>,
        rows: &[Vec<u32>],
        pairing: Pairing,
        widest: usize,
        pass: &Pass<'_>,
        run: impl Fn(Tensor<3>, Range<usize>, &Pass<'_>) -> Tensor<2>,
    ) -> Tensor<2> {
        let ([images, values], dim) = (image.dims(), self.spec().dim);
        let image = image.clone().reshape([images, values / dim, dim]);
        let beside = match self.crossing().meeting {
            Meeting::Attention => 0,
            Meeting::Stream => values / dim,
        };
        let longest = rows.iter().map(Vec::len).max().unwrap_or(1) + beside;
        let fit = (TILE_VALUES / (longest * widest).max(1)).max(1);
        let (most_images, most_rows) = match pairing {
            Pairing::All => ((fit / rows.len().max(1)).max(1), fit.min(rows.len()).max(1)),
            Pairing::Own => (fit, fit),
        };
        let mut count = 0;
        let mut of = |images: Range<usize>, own: Range<usize>| {
            count += 1;
            // Masks of dropout must not repeat from tile to tile.
            let mode = match pass.mode {
                Mode::Train(seed) if count > 1 => Mode::Train(seed.split(count)),
                mode => mode,
            };
            run(image.clone().narrow(0, images.start, images.len()), own, &Pass { mode, ..*pass })
        };
        let ranges = |all: usize, most: usize| (0..all).step_by(most).map(move |from| from..(from + most).min(all));
        let bands = ranges(images, most_images).map(|images| match pairing {
            Pairing::Own => of(images.clone(), images),
            Pairing::All => {
                let tiles = ranges(rows.len(), most_rows).map(|rows| of(images.clone(), rows));
                joined(tiles.collect(), 1)
            }
        });
        joined(bands.collect(), 0)
    }

    /// Pairs through the text tower: images `[images, tokens, width]` and rows to hidden states of the texts' tokens,
    /// `[pairs, tokens, width]`, image-major; with `first_only` at least of the first.
    fn meet(
        &self,
        images: Tensor<3>,
        rows: &[Vec<u32>],
        pairing: Pairing,
        first_only: bool,
        sites: &dyn Sites,
        pass: &Pass<'_>,
    ) -> Tensor<3> {
        let (spec, tower) = (&self.spec().text, Tower::Text);
        let Some(text) = self.towers().and_then(|model| model.text.as_ref()) else {
            unreachable!("a crossing has a text tower")
        };
        let ends: Vec<usize> = rows.iter().map(|row| row.len().max(1) - 1).collect();
        let pass = &Pass { ends: Some(&ends), first: usize::from(spec.style.begins), ..*pass };
        let short: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
        let longest = ends.iter().max().map_or(1, |end| end + 1);
        let stream = text.place(spec, text.embed(&short, longest, 0, self.device()), sites, pass);
        let ([count, beside, _], [_, tokens, width]) = (images.dims(), stream.dims());
        let mut stream = match pairing {
            Pairing::Own => stream,
            Pairing::All => stream.unsqueeze::<4>().expand([count, rows.len(), tokens, width]).reshape([
                count * rows.len(),
                tokens,
                width,
            ]),
        };
        let stream_meeting = self.crossing().meeting == Meeting::Stream;
        if stream_meeting {
            let [pairs, _, _] = stream.dims();
            let each = pairs / count;
            let own = images.clone().unsqueeze_dim::<4>(1).expand([count, each, beside, width]);
            stream = Tensor::cat(vec![stream, own.reshape([pairs, beside, width])], 1);
        }
        let [_, whole, _] = stream.dims();
        let marks = if spec.is_causal() { None } else { mask_padding(&ends, tokens, whole - tokens, self.device()) };
        let seen = match &marks {
            _ if spec.is_causal() => Seen::Before,
            Some(marks) => Seen::Marked(marks),
            None => Seen::All,
        };
        let images = (!stream_meeting).then_some(&images);
        for (block, weights) in text.blocks.iter().enumerate() {
            let at = BlockSite { tower, block };
            if block > 0 && sites.touched().tokens {
                stream = sites.tokens(at, stream, pass);
            }
            let last = block + 1 == text.blocks.len();
            let context = BlockContext { at, spec: &spec.transformer, seen, images, sites, pass };
            let first_only = first_only && last && !spec.is_causal() && !sites.needs_all_tokens(tower);
            stream = weights.forward(stream, first_only, context);
        }
        let stream = if first_only { stream.narrow(1, 0, 1) } else { stream.narrow(1, 0, tokens) };
        match &text.final_norm {
            Some(layer) => norm(layer, NormSite::Output(tower), &spec.transformer, stream, sites, pass),
            None => stream,
        }
    }
}

fn joined(mut parts: Vec<Tensor<2>>, axis: usize) -> Tensor<2> {
    if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, axis) }
}
