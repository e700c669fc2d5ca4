//! Two towers and a temperature, or one tower: the trainable form of a backbone.

use burn::module::{Module, Param};
use burn::nn::{LayerNorm, Linear};
use burn::tensor::{Device, Tensor};

use super::batch;
use super::block::Block;
use super::cross::{MatchHead, WordHead};
use super::image_tower::ImageTower;
use super::partial::Texts;
use super::pass::Pass;
use super::place::{BlockSite, Entry, NormSite, Tower};
use super::pool::Frames;
use super::site::Frozen;
use super::spec::{BackboneSpec, Meeting};
use super::text_tower::TextTower;

/// The weights of a model. [`Backbone`](super::Backbone) holds one, frozen; contrastive pre-training trains
/// one.
#[derive(Module, Debug)]
pub struct DualEncoder {
    /// Pixels to features.
    pub image: Option<ImageTower>,
    /// Words to features.
    pub text: Option<TextTower>,
    /// Natural logarithm of the logit scale, `[1]`; a single tower has none.
    pub logit_scale: Option<Param<Tensor<1>>>,
    /// Added to all scores, `[1]`.
    pub logit_bias: Option<Param<Tensor<1>>>,
    /// Scores pairs, where images and texts meet before.
    pub match_head: Option<MatchHead>,
    /// Tells words apart, where images and texts meet before.
    pub word_head: Option<WordHead>,
}

impl DualEncoder {
    /// A model of the given shape with all weights zero and all gains one.
    pub fn zeros(spec: &BackboneSpec, device: &Device) -> Self {
        let crossing = spec.crossing.as_ref();
        let scaled = spec.has(Tower::Image) && spec.has(Tower::Text) && crossing.is_none();
        let number = || Param::from_tensor(Tensor::zeros([1], device));
        let attends = crossing.is_some_and(|crossing| crossing.meeting == Meeting::Attention);
        let text = || match TextTower::zeros(&spec.text, spec.dim, device) {
            tower if attends => tower.attending(&spec.text, spec.image.transformer.width, device),
            tower => tower,
        };
        let transformer = &spec.text.transformer;
        Self {
            image: spec.has(Tower::Image).then(|| ImageTower::zeros(&spec.image, spec.dim, device)),
            text: spec.has(Tower::Text).then(text),
            logit_scale: scaled.then(number),
            logit_bias: spec.logit_bias.then(number),
            match_head: crossing
                .filter(|crossing| crossing.matches)
                .map(|_| MatchHead::zeros(transformer.width, device)),
            word_head: crossing
                .filter(|crossing| crossing.words)
                .map(|_| WordHead::zeros(transformer, spec.text.vocabulary, device)),
        }
    }

    /// The image tower.
    ///
    /// # Panics
    /// Without one.
    pub(super) fn image(&self) -> &ImageTower {
        self.image.as_ref().expect("an image tower")
    }

    /// The text tower.
    ///
    /// # Panics
    /// Without one.
    pub(super) fn text(&self) -> &TextTower {
        self.text.as_ref().expect("a text tower")
    }

    /// Features of pixels `[batch, 3, size, size]`, without any adapter: `[batch, dim]`, not normalised.
    ///
    /// # Panics
    /// Without an image tower.
    pub fn image_features(&self, spec: &BackboneSpec, pixels: Tensor<4>) -> Tensor<2> {
        let partial = self.image().start(&spec.image, pixels, Frames::STILL, Entry::Tokens);
        let partial = self.image().advance(&spec.image, partial, Entry::Feature, &Frozen, &Pass::evaluate());
        partial.into_feature().expect("the tower ran to its end")
    }

    /// Features of token rows, without any adapter: `[rows, dim]`, not normalised.
    ///
    /// # Panics
    /// Without a text tower.
    pub fn text_features(&self, spec: &BackboneSpec, rows: &[Vec<u32>], device: &Device) -> Tensor<2> {
        let run = |rows: &[&[u32]], longest: usize, texts: Texts| {
            self.text().start(&spec.text, rows, longest, texts, Entry::Feature, device)
        };
        // One graph, for training.
        let partial = batch::in_order(rows, spec.text.is_causal(), 1, run);
        partial.into_feature().expect("the tower ran to its end")
    }

    /// The blocks of a tower; none without it.
    pub(super) fn blocks(&self, tower: Tower) -> &[Block] {
        match tower {
            Tower::Image => self.image.as_ref().map_or(&[], |image| &image.blocks),
            Tower::Text => self.text.as_ref().map_or(&[], |text| &text.blocks),
        }
    }

    /// As [`blocks`](Self::blocks), to be replaced.
    pub(super) fn blocks_mut(&mut self, tower: Tower) -> &mut [Block] {
        match tower {
            Tower::Image => self.image.as_mut().map_or(&mut [], |image| &mut image.blocks),
            Tower::Text => self.text.as_mut().map_or(&mut [], |text| &mut text.blocks),
        }
    }

    /// A tower's projection into the shared space.
    pub(super) fn projection(&self, tower: Tower) -> Option<&Linear> {
        match tower {
            Tower::Image => self.image.as_ref()?.projection.as_ref(),
            Tower::Text => self.text.as_ref()?.projection.as_ref(),
        }
    }

    /// As [`projection`](Self::projection), to be replaced.
    pub(super) fn projection_mut(&mut self, tower: Tower) -> Option<&mut Linear> {
        match tower {
            Tower::Image => self.image.as_mut()?.projection.as_mut(),
            Tower::Text => self.text.as_mut()?.projection.as_mut(),
        }
    }

    /// Every normalisation with its site, image tower first.
    pub(super) fn norms(&self) -> Vec<(NormSite, &LayerNorm)> {
        let (image, text) = (self.image.as_ref(), self.text.as_ref());
        let mut norms = Vec::new();
        norms.extend(image.and_then(|image| Some((NormSite::Input(Tower::Image), image.pre_norm.as_ref()?))));
        norms.extend(text.and_then(|text| Some((NormSite::Input(Tower::Text), text.embedding_norm.as_ref()?))));
        for tower in [Tower::Image, Tower::Text] {
            for (block, weights) in self.blocks(tower).iter().enumerate() {
                let at = BlockSite { tower, block };
                norms.push((NormSite::Attention(at), &weights.norm1));
                norms.extend(weights.cross.iter().map(|cross| (NormSite::Cross(at), &cross.norm)));
                norms.push((NormSite::Mlp(at), &weights.norm2));
            }
        }
        norms.extend(image.and_then(|image| Some((NormSite::Output(Tower::Image), image.post_norm.as_ref()?))));
        norms.extend(text.and_then(|text| Some((NormSite::Output(Tower::Text), text.final_norm.as_ref()?))));
        norms
    }

    /// As [`norms`](Self::norms), to be replaced.
    pub(super) fn norms_mut(&mut self) -> Vec<(NormSite, &mut LayerNorm)> {
        let mut norms = Vec::new();
        if let Some(ImageTower { pre_norm, blocks, post_norm, .. }) = &mut self.image {
            norms.extend(pre_norm.as_mut().map(|norm| (NormSite::Input(Tower::Image), norm)));
            norms.extend(block_norms(Tower::Image, blocks));
            norms.extend(post_norm.as_mut().map(|norm| (NormSite::Output(Tower::Image), norm)));
        }
        if let Some(TextTower { embedding_norm, blocks, final_norm, .. }) = &mut self.text {
            norms.extend(embedding_norm.as_mut().map(|norm| (NormSite::Input(Tower::Text), norm)));
            norms.extend(block_norms(Tower::Text, blocks));
            norms.extend(final_norm.as_mut().map(|norm| (NormSite::Output(Tower::Text), norm)));
        }
        norms
    }
}

fn block_norms(tower: Tower, blocks: &mut [Block]) -> impl Iterator<Item = (NormSite, &mut LayerNorm)> {
    blocks.iter_mut().enumerate().flat_map(move |(block, weights)| {
        let at = BlockSite { tower, block };
        let Block { norm1, cross, norm2, .. } = weights;
        let cross = cross.as_mut().map(|cross| (NormSite::Cross(at), &mut cross.norm));
        [Some((NormSite::Attention(at), norm1)), cross, Some((NormSite::Mlp(at), norm2))].into_iter().flatten()
    })
}
