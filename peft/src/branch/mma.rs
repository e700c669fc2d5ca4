//! MMA: bottlenecks beside the MLPs of the last blocks, with a middle layer that both towers share (Yang et al., CVPR
//! 2024, "MMA: Multi-Modal Adapter for Vision-Language Models").
//!
//! `y + scale relu(relu(x D_t) M_i) U_t` of the residual stream `x` `[batch, tokens, width]` that the MLP of block `i` read,
//! with `D_t` `[width_t, hidden]` and `U_t` `[hidden, width_t]` for each tower `t` and block, and `M_i` `[hidden, hidden]` for
//! each block, shared by the towers. All are drawn (Kaiming, fan out), so a fresh adapter is near zero-shot by its scale of
//! 0.001. Count: for each block of a tower `2 * width * hidden`, for each shared layer `hidden^2`. Site: branch.

use burn::module::{Module, Param};
use burn::tensor::activation::relu;
use burn::tensor::{Tensor, TensorData};
use inarch_core::backbone::{Backbone, BlockSite, BranchSite, Entry, Mode, Pass, Sites, Touched, Tower};
use serde::{Deserialize, Serialize};

use super::sites::{BranchSites, BranchTargets};
use crate::error::{Error, Result};
use crate::learner::Learner;
use crate::linear::check_finite;
use crate::method::{Method, Start};

/// Settings of MMA; the defaults are its authors', who leave the first four of twelve blocks alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MmaConfig {
    /// Width of the bottleneck.
    pub hidden: usize,
    /// Factor of the adapter's output.
    pub scale: f64,
    /// Share of the blocks of each tower that stay frozen, from the bottom; rounded down.
    pub frozen_share: f64,
}

impl Default for MmaConfig {
    fn default() -> Self {
        Self { hidden: 32, scale: 0.001, frozen_share: 1.0 / 3.0 }
    }
}

impl MmaConfig {
    fn targets(&self, backbone: &Backbone, tower: Tower) -> BranchTargets {
        let first_block = (self.frozen_share * backbone.depth(tower) as f64 + 1e-9) as usize;
        BranchTargets { image: tower == Tower::Image, text: tower == Tower::Text, first_block }
    }

    /// Adapted blocks of a tower.
    fn adapted(&self, backbone: &Backbone, tower: Tower) -> usize {
        self.targets(backbone, tower).blocks(backbone, tower).len()
    }
}

#[derive(Module, Debug)]
struct Ends {
    down: Param<Tensor<2>>,
    up: Param<Tensor<2>>,
}

/// Bottlenecks that couple the towers.
#[derive(Module, Debug)]
pub struct Mma {
    image: BranchSites<Ends>,
    text: BranchSites<Ends>,
    /// Counted from the last block, so that the towers meet at their ends.
    shared: Vec<Param<Tensor<2>>>,
    image_depth: usize,
    text_depth: usize,
    scale: f64,
}

impl Method for MmaConfig {
    type Adapter = Mma;

    /// [`Error::Setting`] for a width of 0, a scale that is no number, or a share that leaves no block.
    fn init(&self, start: &Start<'_>) -> Result<Mma> {
        let Start { backbone, device, seed, .. } = *start;
        check_finite("scale", self.scale)?;
        if !(0.0..1.0).contains(&self.frozen_share) {
            let reason = format!("must be in [0, 1), found {}", self.frozen_share);
            return Err(Error::Setting { setting: "frozen_share", reason });
        }
        let widest = backbone.width(Tower::Image).max(backbone.width(Tower::Text));
        if self.hidden == 0 || self.hidden > widest {
            let reason = format!("must be 1 to {widest}, found {}", self.hidden);
            return Err(Error::Setting { setting: "hidden", reason });
        }
        let hidden = self.hidden;
        let draw = |name: String, shape: [usize; 2]| {
            let values = seed.split(name).normals(shape[0] * shape[1], (2.0 / shape[1] as f32).sqrt());
            Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), device))
        };
        let tower = |tower: Tower| {
            BranchSites::select(backbone, &self.targets(backbone, tower), false, |site| {
                let width = backbone.width(tower);
                Ends {
                    down: draw(format!("{site:?} down"), [width, hidden]),
                    up: draw(format!("{site:?} up"), [hidden, width]),
                }
            })
        };
        let blocks = [Tower::Image, Tower::Text].map(|tower| self.adapted(backbone, tower));
        let shared = (0..blocks[0].max(blocks[1])).map(|at| draw(format!("shared {at}"), [hidden, hidden])).collect();
        Ok(Mma {
            image: tower(Tower::Image)?,
            text: tower(Tower::Text)?,
            shared,
            image_depth: backbone.depth(Tower::Image),
            text_depth: backbone.depth(Tower::Text),
            scale: self.scale,
        })
    }

    fn image_blocks(&self) -> bool {
        true
    }

    fn trainable(&self, backbone: &Backbone, _classes: usize, _images: usize) -> usize {
        let towers = [Tower::Image, Tower::Text];
        let blocks = towers.map(|tower| self.adapted(backbone, tower));
        let ends: usize = towers.iter().zip(blocks).map(|(tower, blocks)| blocks * 2 * backbone.width(*tower)).sum();
        ends * self.hidden + blocks[0].max(blocks[1]) * self.hidden * self.hidden
    }

    fn starts_as_zero_shot(&self) -> bool {
        false
    }
}

impl Mma {
    fn tower(&self, tower: Tower) -> (&BranchSites<Ends>, usize) {
        match tower {
            Tower::Image => (&self.image, self.image_depth),
            Tower::Text => (&self.text, self.text_depth),
        }
    }
}

impl Learner for Mma {}

impl Sites for Mma {
    fn entry(&self, tower: Tower) -> Entry {
        self.tower(tower).0.entry(tower)
    }

    fn shares_beginnings(&self, _mode: Mode) -> bool {
        true
    }

    fn touched(&self) -> Touched {
        Touched::BRANCH
    }

    fn branch(&self, at: BranchSite, input: &Tensor<3>, output: Tensor<3>, _pass: &Pass<'_>) -> Tensor<3> {
        let BlockSite { tower, block } = at.block();
        let (sites, depth) = self.tower(tower);
        let shared = self.shared.get(depth - 1 - block);
        let (Some(Ends { down, up }), Some(shared)) = (sites.get(at), shared) else { return output };
        let [batch, tokens, width] = input.dims();
        let hidden = relu(input.clone().reshape([batch * tokens, width]).matmul(down.val()));
        let hidden = relu(hidden.matmul(shared.val()));
        output + hidden.matmul(up.val()).reshape([batch, tokens, width]) * self.scale
    }
}
