//! Bottleneck adapters: a small MLP behind or beside the branches of a block.
//!
//! `adapt(z) = act(z D + d) U + u` with `D` `[width, hidden]`, `U` `[hidden, width]`, offsets `d`, `u`, and
//! `hidden = width / reduction`. `D` starts uniform within `1 / sqrt(width)`, everything else at zero, so that the start is
//! the identity. Count: `2 * width * hidden + hidden + width` for each place. Site: branch, in both towers.
//!
//! - `houlsby`: behind attention and MLP, `y + adapt(y)` of the branch's output `y` `[batch, tokens, width]`, GELU
//!   (Houlsby et al., 2019, arXiv 1902.00751).
//! - `pfeiffer`: the same behind the MLP only, ReLU (Pfeiffer et al., 2020, arXiv 2005.00247).
//! - `adaptformer`: beside the MLP, `y + scale adapt(x)` of the residual stream `x` that the branch read, ReLU, scale 0.1
//!   (Chen et al., 2022, arXiv 2205.13535). With a scale of 4 it is the parallel adapter of He et al. (2021, arXiv
//!   2110.04366).

use burn::module::{Module, Param};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor, TensorData};
use inarch_core::backbone::{Backbone, BranchSite, Entry, Mode, Pass, Sites, Touched, Tower};
use inarch_core::{Seed, gelu};
use serde::{Deserialize, Serialize};

use super::sites::{BranchSites, BranchTargets};
use crate::error::{Error, Result};
use crate::learner::Learner;
use crate::linear::check_finite;
use crate::method::{Method, Start, Words};

/// `act(z D + d) U + u`, of which all but `D` starts at zero.
#[derive(Module, Debug)]
pub(crate) struct Bottleneck {
    down: Param<Tensor<2>>,
    down_offset: Param<Tensor<1>>,
    up: Param<Tensor<2>>,
    up_offset: Param<Tensor<1>>,
}

impl Bottleneck {
    fn new(width: usize, hidden: usize, seed: Seed, device: &Device) -> Self {
        Self::given(seed.uniforms(width * hidden, 1.0 / (width as f32).sqrt()), width, device)
    }

    /// With these values of `D`, `[width, hidden]`.
    pub(crate) fn given(down: Vec<f32>, width: usize, device: &Device) -> Self {
        let hidden = down.len() / width;
        Self {
            down: Param::from_tensor(Tensor::from_data(TensorData::new(down, [width, hidden]), device)),
            down_offset: Param::from_tensor(Tensor::zeros([hidden], device)),
            up: Param::from_tensor(Tensor::zeros([hidden, width], device)),
            up_offset: Param::from_tensor(Tensor::zeros([width], device)),
        }
    }

    /// Number of values.
    pub(crate) fn count(width: usize, hidden: usize) -> usize {
        2 * width * hidden + hidden + width
    }

    /// `[batch, tokens, width]` to the same, with a GELU where it is `smooth`, else a ReLU.
    pub(crate) fn forward(&self, input: Tensor<3>, smooth: bool) -> Tensor<3> {
        let [batch, tokens, width] = input.dims();
        let hidden =
            input.reshape([batch * tokens, width]).matmul(self.down.val()) + self.down_offset.val().unsqueeze::<2>();
        let hidden = if smooth { gelu(hidden) } else { relu(hidden) };
        let output = hidden.matmul(self.up.val()) + self.up_offset.val().unsqueeze::<2>();
        output.reshape([batch, tokens, width])
    }
}

fn hidden(width: usize, reduction: usize) -> usize {
    (width / reduction.max(1)).max(1)
}

fn check_reduction(reduction: usize) -> Result<()> {
    if reduction == 0 {
        return Err(Error::Setting { setting: "reduction", reason: "must be at least 1".into() });
    }
    Ok(())
}

fn count(backbone: &Backbone, targets: &BranchTargets, reduction: usize, attention: bool) -> usize {
    let one = |tower| {
        let width = backbone.width(tower);
        targets.branches(backbone, tower, attention) * Bottleneck::count(width, hidden(width, reduction))
    };
    [Tower::Image, Tower::Text].map(one).iter().sum()
}

/// Bottlenecks behind branches.
#[derive(Module, Debug)]
pub struct Behind {
    sites: BranchSites<Bottleneck>,
    smooth: bool,
}

/// Bottlenecks beside MLPs.
#[derive(Module, Debug)]
pub struct Beside {
    sites: BranchSites<Bottleneck>,
    scale: f64,
}

fn sites(start: &Start<'_>, targets: &BranchTargets, reduction: usize, both: bool) -> Result<BranchSites<Bottleneck>> {
    check_reduction(reduction)?;
    BranchSites::select(start.backbone, targets, both, |site| {
        let width = start.backbone.width(site.block().tower);
        let seed = start.seed.split(format!("{site:?}"));
        Bottleneck::new(width, hidden(width, reduction), seed, start.device)
    })
}

/// Settings of Houlsby adapters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HoulsbyConfig {
    /// Width of the tower over the width of the bottleneck.
    pub reduction: usize,
    /// Which blocks.
    pub blocks: BranchTargets,
}

/// Settings of Pfeiffer adapters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PfeifferConfig {
    /// Width of the tower over the width of the bottleneck.
    pub reduction: usize,
    /// Which blocks.
    pub blocks: BranchTargets,
}

/// Settings of AdaptFormer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdaptFormerConfig {
    /// Width of the tower over the width of the bottleneck.
    pub reduction: usize,
    /// Factor of the adapter's output.
    pub scale: f64,
    /// Which blocks.
    pub blocks: BranchTargets,
}

impl Default for HoulsbyConfig {
    fn default() -> Self {
        Self { reduction: 16, blocks: BranchTargets::default() }
    }
}

impl Default for PfeifferConfig {
    fn default() -> Self {
        Self { reduction: 16, blocks: BranchTargets::default() }
    }
}

impl Default for AdaptFormerConfig {
    /// 64 hidden units at a width of 768.
    fn default() -> Self {
        Self { reduction: 12, scale: 0.1, blocks: BranchTargets::default() }
    }
}

impl Method for HoulsbyConfig {
    type Adapter = Behind;

    /// [`Error::Setting`] for a reduction of 0 or no block.
    fn init(&self, start: &Start<'_>) -> Result<Behind> {
        Ok(Behind { sites: sites(start, &self.blocks, self.reduction, true)?, smooth: true })
    }

    fn words(&self) -> Words {
        Words::Unneeded
    }

    fn crosses(&self) -> bool {
        true
    }

    fn trainable(&self, backbone: &Backbone, _classes: usize, _images: usize) -> usize {
        count(backbone, &self.blocks, self.reduction, true)
    }
}

impl Method for PfeifferConfig {
    type Adapter = Behind;

    /// [`Error::Setting`] for a reduction of 0 or no block.
    fn init(&self, start: &Start<'_>) -> Result<Behind> {
        Ok(Behind { sites: sites(start, &self.blocks, self.reduction, false)?, smooth: false })
    }

    fn words(&self) -> Words {
        Words::Unneeded
    }

    fn crosses(&self) -> bool {
        true
    }

    fn trainable(&self, backbone: &Backbone, _classes: usize, _images: usize) -> usize {
        count(backbone, &self.blocks, self.reduction, false)
    }
}

impl Method for AdaptFormerConfig {
    type Adapter = Beside;

    /// [`Error::Setting`] for a reduction of 0, a scale that is no number, or no block.
    fn init(&self, start: &Start<'_>) -> Result<Beside> {
        check_finite("scale", self.scale)?;
        Ok(Beside { sites: sites(start, &self.blocks, self.reduction, false)?, scale: self.scale })
    }

    fn words(&self) -> Words {
        Words::Unneeded
    }

    fn crosses(&self) -> bool {
        true
    }

    fn trainable(&self, backbone: &Backbone, _classes: usize, _images: usize) -> usize {
        count(backbone, &self.blocks, self.reduction, false)
    }
}

impl Learner for Behind {}

impl Sites for Behind {
    fn entry(&self, tower: Tower) -> Entry {
        self.sites.entry(tower)
    }

    fn shares_beginnings(&self, _mode: Mode) -> bool {
        true
    }

    fn touched(&self) -> Touched {
        Touched::BRANCH
    }

    fn branch(&self, at: BranchSite, _input: &Tensor<3>, output: Tensor<3>, _pass: &Pass<'_>) -> Tensor<3> {
        match self.sites.get(at) {
            Some(bottleneck) => output.clone() + bottleneck.forward(output, self.smooth),
            None => output,
        }
    }
}

impl Learner for Beside {}

impl Sites for Beside {
    fn entry(&self, tower: Tower) -> Entry {
        self.sites.entry(tower)
    }

    fn shares_beginnings(&self, _mode: Mode) -> bool {
        true
    }

    fn touched(&self) -> Touched {
        Touched::BRANCH
    }

    fn branch(&self, at: BranchSite, input: &Tensor<3>, output: Tensor<3>, _pass: &Pass<'_>) -> Tensor<3> {
        match self.sites.get(at) {
            Some(bottleneck) => output + bottleneck.forward(input.clone(), false) * self.scale,
            None => output,
        }
    }
}
