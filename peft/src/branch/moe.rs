//! MoE-Adapters: bottlenecks beside the MLPs of the image tower as experts, of which a router takes a few for each image;
//! every experience has its router, and an image of none has no experts (Yu et al., CVPR 2024, arXiv 2403.11549).
//!
//! `y + scale sum_e g_e(x) adapt_e(x)` of the branch's output `y` and the residual stream `x` `[tokens, width]` that it
//! read, with `adapt_e(x) = drop(relu(x D_e + d_e)) U_e + u_e`. Gates are the softmax of the `top` greatest of `x_0 R_i`
//! `[experts]`, with the first token `x_0` and the router `R_i` `[width, experts]` of experience `i`; in training there is
//! noise on them, `softplus(x_0 N) + 0.01` times a normal draw (Shazeer et al., 2017, arXiv 1701.06538).
//!
//! Which experience an image belongs to is told by its normalised frozen feature `q` `[dim]`: of each experience a mean
//! `m_i`, `code` orthonormal directions `P_i` and a slope are stored, and the least `s_i (|q - m_i|^2 - |P_i (q - m_i)|^2)`
//! counts. Where it is above 1 the image belongs to none and the tower answers as the frozen one. Nothing depends on the
//! other images of a batch. In training all images belong to the last experience.
//!
//! - Trained: the `experts` open experts, the last router and its noise. Experts before are stored, `top` of each
//!   experience before. Count: `experts (2 width hidden + hidden + width) + 2 width (experts + top (experiences - 1))` for
//!   each block. Site: branch, in the image tower.
//! - The start is the identity: `U`, `u` are zero. A fresh slope is 0: every image belongs to the last experience.
//!
//! The strategy `moe-adapters` of `inarch stream` freezes experts, keeps routers and sets what tells experiences apart.
//!
//! Departures: the text tower is left alone (its first token is the same in every text, so that the authors' router there
//! takes the same experts for all). Reconstruction by directions is the best that a linear autoencoder can do (Baldi and
//! Hornik, 1989); the authors train autoencoders of AlexNet's features, which would need a second backbone. The number of
//! experts grows, where the authors' is fixed for a known number of experiences.

use std::collections::BTreeMap;
use std::sync::Mutex;

use burn::module::{Module, Param};
use burn::tensor::activation::{relu, softmax, softplus};
use burn::tensor::{Device, Int, Tensor, TensorData};
use inarch_core::Seed;
use inarch_core::backbone::{Backbone, BlockSite, BranchSite, Entry, Mode, Pass, Sites, Touched, Tower, values};
use serde::{Deserialize, Serialize};

use super::sites::{BranchSites, BranchTargets};
use crate::error::{Error, Result};
use crate::fixed::Fixed;
use crate::learner::Learner;
use crate::linear::{check_dropout, check_finite, dropped};
use crate::method::{Method, Start, Words};

/// More of anything than there ever is; a manifest must not ask for all memory.
const MOST: usize = 1024;
/// Least deviation of the noise on gates.
const LEAST_NOISE: f64 = 1e-2;
/// Below this, what is left of a feature of length 1 is rounding.
const ROUNDING: f64 = 1e-6;

/// Settings of MoE-Adapters; the defaults are the authors', but for the number of experts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MoeAdaptersConfig {
    /// Experiences with a router of their own; the last is the one in training.
    pub experiences: usize,
    /// Experts of a block that are open to training; the authors have 22 for eleven experiences, of which each takes two.
    pub experts: usize,
    /// Experts of a block that an image takes, and that an experience leaves frozen.
    pub top: usize,
    /// Width of a bottleneck.
    pub hidden: usize,
    /// Factor of what experts give.
    pub scale: f64,
    /// Probability with which a hidden value is dropped in training.
    pub dropout: f64,
    /// Directions by which the images of an experience are told.
    pub code: usize,
    /// The first block with experts, counted from 0.
    pub first_block: usize,
}

impl Default for MoeAdaptersConfig {
    fn default() -> Self {
        Self { experiences: 1, experts: 4, top: 2, hidden: 64, scale: 0.1, dropout: 0.1, code: 16, first_block: 0 }
    }
}

impl MoeAdaptersConfig {
    fn targets(&self) -> BranchTargets {
        BranchTargets { image: true, text: false, first_block: self.first_block }
    }

    /// Frozen experts of a block.
    fn frozen(&self) -> usize {
        self.top * (self.experiences - 1)
    }
}

/// Experts in training, the first axis through all of them.
#[derive(Module, Debug)]
struct Experts {
    down: Param<Tensor<3>>,
    down_offset: Param<Tensor<2>>,
    up: Param<Tensor<3>>,
    up_offset: Param<Tensor<2>>,
}

/// What stands still in a block: experts, and the routers of the experiences before.
#[derive(Module, Debug)]
struct Past {
    down: Fixed<3>,
    down_offset: Fixed<2>,
    up: Fixed<3>,
    up_offset: Fixed<2>,
    /// `[experiences - 1, width, experts]`.
    routers: Fixed<3>,
    /// `[experiences - 1, experts]`: 0, or what takes an expert out that came later.
    reach: Fixed<2>,
}

/// The experts of a block, the frozen ones first, and its routers.
#[derive(Module, Debug)]
struct Mixture {
    open: Experts,
    past: Option<Past>,
    /// `[width, experts]`.
    router: Param<Tensor<2>>,
    /// `[width, experts]`.
    noise: Param<Tensor<2>>,
}

impl Mixture {
    fn new(config: &MoeAdaptersConfig, width: usize, seed: Seed, device: &Device) -> Self {
        let &MoeAdaptersConfig { experiences, experts, hidden, .. } = config;
        let plain = device.clone().without_autodiff();
        let frozen = config.frozen();
        let down = |name: &str, count: usize, device: &Device| {
            let values = seed.split(name).uniforms(count * width * hidden, 1.0 / (width as f32).sqrt());
            Tensor::from_data(TensorData::new(values, [count, width, hidden]), device)
        };
        let open = Experts {
            down: Param::from_tensor(down("open", experts, device)),
            down_offset: Param::from_tensor(Tensor::zeros([experts, hidden], device)),
            up: Param::from_tensor(Tensor::zeros([experts, hidden, width], device)),
            up_offset: Param::from_tensor(Tensor::zeros([experts, width], device)),
        };
        let past = (frozen > 0).then(|| Past {
            down: Fixed::new(down("frozen", frozen, &plain)),
            down_offset: Fixed::new(Tensor::zeros([frozen, hidden], &plain)),
            up: Fixed::new(Tensor::zeros([frozen, hidden, width], &plain)),
            up_offset: Fixed::new(Tensor::zeros([frozen, width], &plain)),
            routers: Fixed::new(Tensor::zeros([experiences - 1, width, frozen + experts], &plain)),
            reach: Fixed::new(Tensor::zeros([experiences - 1, frozen + experts], &plain)),
        });
        let column = || Param::from_tensor(Tensor::zeros([width, frozen + experts], device));
        Self { open, past, router: column(), noise: column() }
    }

    /// Of the last router, for first tokens `[images, width]`: `[images, experts]`.
    fn last_scores(&self, first: &Tensor<2>) -> Tensor<2> {
        first.clone().matmul(self.router.val())
    }

    /// Of the routers of experiences `[images]`.
    fn scores(&self, first: &Tensor<2>, experiences: &Tensor<1, Int>) -> Tensor<2> {
        let Some(past) = &self.past else { return self.last_scores(first) };
        let [width, experts] = self.router.val().dims();
        let images = first.dims()[0];
        let routers = Tensor::cat(vec![past.routers.val(), self.router.val().reshape([1, width, experts])], 0);
        let none = Tensor::zeros([1, experts], &past.reach.val().device());
        let reach = Tensor::cat(vec![past.reach.val(), none], 0).select(0, experiences.clone());
        let own = routers.select(0, experiences.clone());
        first.clone().reshape([images, 1, width]).matmul(own).reshape([images, experts]) + reach
    }

    /// The scores with noise.
    fn noisy(&self, first: &Tensor<2>, scores: Tensor<2>, seed: Seed) -> Tensor<2> {
        let dims = scores.dims();
        let draws = seed.split("gates").normals(dims.iter().product(), 1.0);
        let draws = Tensor::from_data(TensorData::new(draws, dims), &first.device().without_autodiff());
        let deviation = softplus(first.clone().matmul(self.noise.val()), 1.0) + LEAST_NOISE;
        scores + deviation * draws
    }

    /// What one expert of each image gives, `[images, tokens, width]`.
    fn expert(&self, input: &Tensor<3>, expert: &Tensor<1, Int>, drop: &dyn Fn(Tensor<3>) -> Tensor<3>) -> Tensor<3> {
        let rows = |open: Tensor<2>, frozen: Option<Tensor<2>>| {
            let all = frozen.map_or(open.clone(), |frozen| Tensor::cat(vec![frozen, open], 0));
            all.select(0, expert.clone()).unsqueeze_dim::<3>(1)
        };
        let matrices = |open: Tensor<3>, frozen: Option<Tensor<3>>| {
            let all = frozen.map_or(open.clone(), |frozen| Tensor::cat(vec![frozen, open], 0));
            all.select(0, expert.clone())
        };
        let past = self.past.as_ref();
        let down = matrices(self.open.down.val(), past.map(|past| past.down.val()));
        let down_offset = rows(self.open.down_offset.val(), past.map(|past| past.down_offset.val()));
        let up = matrices(self.open.up.val(), past.map(|past| past.up.val()));
        let up_offset = rows(self.open.up_offset.val(), past.map(|past| past.up_offset.val()));
        drop(relu(input.clone().matmul(down) + down_offset)).matmul(up) + up_offset
    }
}

/// The greatest of scores `[images, experts]`: which, greatest first, and their softmax, both `[images, top]`.
fn gates(scores: Tensor<2>, top: usize) -> (Tensor<2, Int>, Tensor<2>) {
    let chosen = scores.clone().without_autodiff().argsort_descending(1).narrow(1, 0, top);
    (chosen.clone(), softmax(scores.gather(1, chosen), 1))
}

/// The first token of each row of a stream `[images, tokens, width]`.
fn first_of(stream: &Tensor<3>) -> Tensor<2> {
    let [images, _, width] = stream.dims();
    stream.clone().narrow(1, 0, 1).reshape([images, width])
}

/// Experts, routers, and what tells experiences apart.
#[derive(Module, Debug)]
pub struct MoeAdapters {
    sites: BranchSites<Mixture>,
    /// `[experiences, dim]`.
    means: Fixed<2>,
    /// `[experiences, code, dim]`.
    directions: Fixed<3>,
    /// `[experiences]`.
    slopes: Fixed<1>,
    top: usize,
    scale: f64,
    dropout: f64,
}

impl Method for MoeAdaptersConfig {
    type Adapter = MoeAdapters;

    /// [`Error::Setting`] for a number outside of what can be, or no block.
    fn init(&self, start: &Start<'_>) -> Result<MoeAdapters> {
        let &Self { experiences, experts, top, hidden, scale, dropout, code, .. } = self;
        let dim = start.backbone.spec().dim;
        check_dropout(dropout)?;
        check_finite("scale", scale)?;
        let limits = [
            ("experiences", experiences, MOST),
            ("experts", experts, MOST),
            ("top", top, experts),
            ("hidden", hidden, MOST),
            ("code", code, dim),
        ];
        for (setting, value, most) in limits {
            if value == 0 || value > most {
                return Err(Error::Setting { setting, reason: format!("must be 1 to {most}, found {value}") });
            }
        }
        if self.frozen() > MOST {
            let reason = format!("with `top` experts of each there are more than {MOST}, found {experiences}");
            return Err(Error::Setting { setting: "experiences", reason });
        }
        let sites = BranchSites::select(start.backbone, &self.targets(), false, |site| {
            let BlockSite { tower, block } = site.block();
            Mixture::new(self, start.backbone.width(tower), start.seed.split(block), start.device)
        })?;
        let plain = start.device.clone().without_autodiff();
        Ok(MoeAdapters {
            sites,
            means: Fixed::new(Tensor::zeros([experiences, dim], &plain)),
            directions: Fixed::new(Tensor::zeros([experiences, code, dim], &plain)),
            slopes: Fixed::new(Tensor::zeros([experiences], &plain)),
            top,
            scale,
            dropout,
        })
    }

    fn words(&self) -> Words {
        Words::Unneeded
    }

    fn image_blocks(&self) -> bool {
        true
    }

    fn trainable(&self, backbone: &Backbone, _classes: usize, _images: usize) -> usize {
        let width = backbone.width(Tower::Image);
        let expert = 2 * width * self.hidden + self.hidden + width;
        let routers = 2 * width * (self.experts + self.frozen());
        self.targets().blocks(backbone, Tower::Image).len() * (self.experts * expert + routers)
    }
}

impl MoeAdapters {
    /// Added to the score of an expert that a router has never seen: takes it out of the choice.
    pub const OUT: f32 = -1e4;

    /// The experience of each image of queries `[images, dim]`, and 1 where it belongs to it, 0 where to none:
    /// `[images]` each.
    fn belongs(&self, query: &Tensor<2>) -> (Tensor<1, Int>, Tensor<1>) {
        let query = query.clone().without_autodiff();
        let ([images, dim], [experiences, code, _]) = (query.dims(), self.directions.val().dims());
        let apart = query.reshape([images, 1, dim]) - self.means.val().reshape([1, experiences, dim]);
        // By experience, so that each meets its own directions.
        let by_experience = apart.swap_dims(0, 1);
        let within = by_experience.clone().matmul(self.directions.val().swap_dims(1, 2));
        let square = |parts: Tensor<3>, width: usize| {
            parts.powf_scalar(2.0).reshape([experiences, images, width]).sum_dim(2).reshape([experiences, images])
        };
        let left = (square(by_experience, dim) - square(within, code)).clamp_min(ROUNDING);
        let scores = (left * self.slopes.val().reshape([experiences, 1])).transpose();
        let nearest = scores.clone().argmin(1).reshape([images]);
        let own = scores.min_dim(1).reshape([images]).lower_equal_elem(1.0).float();
        (nearest, own)
    }

    /// The scores of a block's experts for first tokens `[images, width]`, and 1 or 0 for each image.
    fn routed(&self, mixture: &Mixture, first: &Tensor<2>, pass: &Pass<'_>) -> (Tensor<2>, Option<Tensor<1>>) {
        match (pass.mode, pass.query) {
            (Mode::Evaluate, Some(query)) => {
                let (experiences, own) = self.belongs(query);
                (mixture.scores(first, &experiences), Some(own))
            }
            _ => (mixture.last_scores(first), None),
        }
    }
}

impl Learner for MoeAdapters {}

impl Sites for MoeAdapters {
    fn entry(&self, tower: Tower) -> Entry {
        self.sites.entry(tower)
    }

    fn queries_image(&self) -> bool {
        true
    }

    fn touched(&self) -> Touched {
        Touched::BRANCH
    }

    fn branch(&self, at: BranchSite, input: &Tensor<3>, output: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        let Some(mixture) = self.sites.get(at) else { return output };
        let (first, images) = (first_of(input), input.dims()[0]);
        let (scores, own) = self.routed(mixture, &first, pass);
        let place = format!("moe.{}", at.block().block);
        let scores = match pass.mode {
            Mode::Train(seed) => mixture.noisy(&first, scores, seed.split(&place)),
            Mode::Evaluate => scores,
        };
        let (chosen, mut weights) = gates(scores, self.top);
        if let Some(own) = own {
            weights = weights * own.reshape([images, 1]);
        }
        (0..self.top).fold(output, |output, at| {
            let expert = chosen.clone().narrow(1, at, 1).reshape([images]);
            let drop = |hidden| dropped(format!("{place}.{at}"), hidden, self.dropout, pass);
            let given = mixture.expert(input, &expert, &drop);
            output + given * weights.clone().narrow(1, at, 1).reshape([images, 1, 1]) * self.scale
        })
    }
}

/// Watches which experts the last router of an adapter takes for images, without noise.
pub struct ExpertUse<'a> {
    adapter: &'a MoeAdapters,
    counts: Mutex<BTreeMap<usize, Vec<u64>>>,
}

impl<'a> ExpertUse<'a> {
    /// Of this adapter, which must stand before it in a stack.
    pub fn new(adapter: &'a MoeAdapters) -> Self {
        Self { adapter, counts: Mutex::default() }
    }

    /// How many images took each expert, by block: the frozen ones first.
    pub fn counts(self) -> BTreeMap<usize, Vec<u64>> {
        self.counts.into_inner().unwrap_or_default()
    }
}

impl Sites for ExpertUse<'_> {
    fn entry(&self, tower: Tower) -> Entry {
        self.adapter.entry(tower)
    }

    fn touched(&self) -> Touched {
        Touched::BRANCH
    }

    fn branch(&self, at: BranchSite, input: &Tensor<3>, output: Tensor<3>, _pass: &Pass<'_>) -> Tensor<3> {
        let Some(mixture) = self.adapter.sites.get(at) else { return output };
        let scores = mixture.last_scores(&first_of(input));
        let experts = scores.dims()[1];
        let (chosen, _) = gates(scores, self.adapter.top);
        let chosen = values(chosen.float());
        if let Ok(mut counts) = self.counts.lock() {
            let counts = counts.entry(at.block().block).or_insert_with(|| vec![0; experts]);
            chosen.iter().for_each(|expert| counts[*expert as usize] += 1);
        }
        output
    }
}
