//! Two towers and a temperature: the trainable form of a backbone.

use burn::module::{Module, Param};
use burn::nn::LayerNorm;
use burn::tensor::{Device, Tensor};

use super::batch;
use super::image_tower::ImageTower;
use super::partial::Texts;
use super::site::{BlockSite, Entry, Frozen, NormSite, Pass, Tower};
use super::spec::BackboneSpec;
use super::text_tower::TextTower;

/// The weights of a CLIP-like model. [`Backbone`](super::Backbone) holds one, frozen; contrastive pre-training trains
/// one.
#[derive(Module, Debug)]
pub struct DualEncoder {
    /// Pixels to features.
    pub image: ImageTower,
    /// Words to features.
    pub text: TextTower,
    /// Natural logarithm of the logit scale, `[1]`.
    pub logit_scale: Param<Tensor<1>>,
}

impl DualEncoder {
    /// A model of the given shape with all weights zero and all gains one.
    pub fn zeros(spec: &BackboneSpec, device: &Device) -> Self {
        Self {
            image: ImageTower::zeros(&spec.image, spec.dim, device),
            text: TextTower::zeros(&spec.text, spec.dim, device),
            logit_scale: Param::from_tensor(Tensor::zeros([1], device)),
        }
    }

    /// Features of pixels `[batch, 3, size, size]`, without any adapter: `[batch, dim]`, not normalised.
    pub fn image_features(&self, spec: &BackboneSpec, pixels: Tensor<4>) -> Tensor<2> {
        let partial = self.image.start(&spec.image, pixels, Entry::Tokens);
        let partial = self.image.advance(&spec.image, partial, Entry::Feature, &Frozen, &Pass::evaluate());
        partial.into_feature().expect("the tower ran to its end")
    }

    /// Features of token rows, without any adapter: `[rows, dim]`, not normalised.
    pub fn text_features(&self, spec: &BackboneSpec, rows: &[Vec<u32>], device: &Device) -> Tensor<2> {
        let run = |rows: &[&[u32]], longest: usize, texts: Texts| {
            self.text.start(&spec.text, rows, longest, texts, Entry::Feature, device)
        };
        // One graph, for training.
        let partial = batch::in_order(rows, 1, run);
        partial.into_feature().expect("the tower ran to its end")
    }

    /// Every normalisation with its site, image tower first.
    pub(super) fn norms(&self) -> Vec<(NormSite, &LayerNorm)> {
        let mut norms = vec![(NormSite::Input(Tower::Image), &self.image.pre_norm)];
        for (tower, blocks) in [(Tower::Image, &self.image.blocks), (Tower::Text, &self.text.blocks)] {
            for (block, weights) in blocks.iter().enumerate() {
                let at = BlockSite { tower, block };
                norms.extend([(NormSite::Attention(at), &weights.norm1), (NormSite::Mlp(at), &weights.norm2)]);
            }
        }
        norms.push((NormSite::Output(Tower::Image), &self.image.post_norm));
        norms.push((NormSite::Output(Tower::Text), &self.text.final_norm));
        norms
    }

    /// As [`norms`](Self::norms), to be replaced.
    pub(super) fn norms_mut(&mut self) -> Vec<(NormSite, &mut LayerNorm)> {
        let mut norms = vec![(NormSite::Input(Tower::Image), &mut self.image.pre_norm)];
        for (tower, blocks) in [(Tower::Image, &mut self.image.blocks), (Tower::Text, &mut self.text.blocks)] {
            for (block, weights) in blocks.iter_mut().enumerate() {
                let at = BlockSite { tower, block };
                norms.extend([(NormSite::Attention(at), &mut weights.norm1), (NormSite::Mlp(at), &mut weights.norm2)]);
            }
        }
        norms.push((NormSite::Output(Tower::Image), &mut self.image.post_norm));
        norms.push((NormSite::Output(Tower::Text), &mut self.text.final_norm));
        norms
    }
}
