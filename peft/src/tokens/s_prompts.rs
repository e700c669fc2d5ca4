//! S-Prompts, image side: prompts of each experience by themselves, of which an image takes those of the experience
//! whose images it is nearest to (S-iPrompts: Wang et al., NeurIPS 2022, arXiv 2207.12819).
//!
//! With the normalised frozen feature `q` `[dim]`, centroids `m` `[experiences, centroids, dim]` and prompts `p`
//! `[experiences, tokens, width]`, the prompts of the experience with the least `min_k |q - m_ek|` stand behind the
//! patches of that image. What an image takes depends on no other image of its batch. Centroids are stored, not
//! trained: the strategy `s-prompts` of `inarch stream` sets them to those of K-means over the experience's images, and
//! trains the prompts one experience at a time.
//!
//! Departures: distances are Euclidean, as in K-means; the authors' code compares by the sum of magnitudes. The class
//! token is pooled. Prompts are drawn from N(0, 0.02) and centroids from N(0, 1 / dim), so a fresh adapter is not
//! zero-shot. Count: `experiences * tokens * width`. Site: input tokens of the image tower.

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor, TensorData};
use inarch_core::backbone::{Backbone, BlockSite, Entry, Pass, Sites, Tower};
use serde::{Deserialize, Serialize};

use super::deep::{DEVIATION, MOST_TOKENS};
use super::place::each_behind_patches;
use crate::error::{Error, Result};
use crate::fixed::Fixed;
use crate::learner::Learner;
use crate::method::{Method, Stacking, Start, Words};

/// Settings of S-Prompts; the defaults are the paper's, for one experience.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SPromptsConfig {
    /// Experiences with prompts of their own.
    pub experiences: usize,
    /// Prompts of an experience.
    pub tokens: usize,
    /// Centroids of an experience.
    pub centroids: usize,
}

impl Default for SPromptsConfig {
    fn default() -> Self {
        Self { experiences: 1, tokens: 10, centroids: 5 }
    }
}

/// Prompts and centroids of several experiences.
#[derive(Module, Debug)]
pub struct SPrompts {
    /// `[experiences, tokens, width]`.
    prompts: Param<Tensor<3>>,
    /// `[experiences, centroids, dim]`.
    centroids: Fixed<3>,
}

impl Method for SPromptsConfig {
    type Adapter = SPrompts;

    /// [`Error::Setting`] for no or too many experiences, prompts or centroids.
    fn init(&self, start: &Start<'_>) -> Result<SPrompts> {
        let Self { experiences, tokens, centroids } = *self;
        for (setting, value) in [("experiences", experiences), ("tokens", tokens), ("centroids", centroids)] {
            if value == 0 || value > MOST_TOKENS {
                return Err(Error::Setting { setting, reason: format!("must be 1 to {MOST_TOKENS}, found {value}") });
            }
        }
        let (dim, width) = (start.backbone.spec().dim, start.backbone.width(Tower::Image));
        let prompts = start.seed.split("prompts").normals(experiences * tokens * width, DEVIATION);
        let deviation = 1.0 / (dim as f32).sqrt();
        let means = start.seed.split("centroids").normals(experiences * centroids * dim, deviation);
        let plain = start.device.clone().without_autodiff();
        let means = TensorData::new(means, [experiences, centroids, dim]);
        Ok(SPrompts {
            prompts: Param::from_tensor(Tensor::from_data(
                TensorData::new(prompts, [experiences, tokens, width]),
                start.device,
            )),
            centroids: Fixed::new(Tensor::from_data(means, &plain)),
        })
    }

    fn words(&self) -> Words {
        Words::Unneeded
    }

    fn image_blocks(&self) -> bool {
        true
    }

    fn trainable(&self, backbone: &Backbone, _classes: usize, _images: usize) -> usize {
        self.experiences * self.tokens * backbone.width(Tower::Image)
    }

    fn starts_as_zero_shot(&self) -> bool {
        false
    }

    fn stacking(&self) -> Stacking {
        Stacking::AddsImageTokens
    }
}

impl SPrompts {
    /// The experience of each image, `[images]`, for queries `[images, dim]`.
    fn chosen(&self, query: &Tensor<2>) -> Tensor<1, Int> {
        let centroids = self.centroids.val();
        let [experiences, each, dim] = centroids.dims();
        let [images, _] = query.dims();
        let centroids = centroids.reshape([experiences * each, dim]);
        let half = centroids.clone().powf_scalar(2.0).sum_dim(1).transpose() * 0.5;
        // Less is nearer: half of the squared distance, without what is the same for all.
        let distances = half - query.clone().without_autodiff().matmul(centroids.transpose());
        let nearest = distances.reshape([images, experiences, each]).min_dim(2).reshape([images, experiences]);
        nearest.argmin(1).reshape([images])
    }
}

impl Learner for SPrompts {}

impl Sites for SPrompts {
    fn entry(&self, tower: Tower) -> Entry {
        match tower {
            Tower::Image => Entry::Tokens,
            Tower::Text => Entry::Never,
        }
    }

    fn queries_image(&self) -> bool {
        true
    }

    fn tokens(&self, at: BlockSite, tokens: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        let (Some(query), Tower::Image, 0) = (pass.query, at.tower, at.block) else { return tokens };
        each_behind_patches(at.block, tokens, self.prompts.val().select(0, self.chosen(query)))
    }
}
