//! Compacter: bottlenecks of Kronecker products whose small factors all places share (Karimi Mahabadi et al., 2021, arXiv
//! 2106.04647).
//!
//! `y + gelu(y D + d) U + u` behind attention and MLP, where each matrix is `sum_i S_i (x) (l_i r_i)`, `i = 1..n`: `S`
//! `[n, n, n]` shared by all places (one for `D`, one for `U`), and at each place `l` `[n, inputs / n, 1]`, `r`
//! `[n, 1, outputs / n]`. `S` is drawn with deviation `1 / n`, `l` and the `r` of `D` uniform so that their product has the
//! size of a fresh linear layer; the `r` of `U` is zero, so that the start is the identity. Count: `2 n^3`, and for each
//! place `2 (width + hidden) + hidden + width`. Site: branch, in both towers.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use inarch_core::backbone::{Backbone, BranchSite, Entry, Mode, Pass, Sites, Touched, Tower};
use inarch_core::{Seed, gelu};
use serde::{Deserialize, Serialize};

use super::sites::{BranchSites, BranchTargets};
use crate::error::{Error, Result};
use crate::learner::Learner;
use crate::method::{Method, Start, Words};

/// Settings of Compacter; the defaults are the paper's for the number of products.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CompacterConfig {
    /// Number of Kronecker products `n`; must divide the widths and bottlenecks.
    pub products: usize,
    /// Width of the tower over the width of the bottleneck.
    pub reduction: usize,
    /// Which blocks.
    pub blocks: BranchTargets,
}

impl Default for CompacterConfig {
    fn default() -> Self {
        Self { products: 4, reduction: 16, blocks: BranchTargets::default() }
    }
}

impl CompacterConfig {
    /// Hidden units of a tower: a multiple of the number of products.
    fn hidden(&self, width: usize) -> usize {
        let products = self.products.max(1);
        (width / self.reduction.max(1) / products).max(1) * products
    }
}

#[derive(Module, Debug)]
struct Product {
    /// `[n, inputs / n, 1]`.
    left: Param<Tensor<3>>,
    /// `[n, 1, outputs / n]`.
    right: Param<Tensor<3>>,
    offset: Param<Tensor<1>>,
}

impl Product {
    fn new(n: usize, [inputs, outputs]: [usize; 2], zero: bool, seed: Seed, device: &Device) -> Self {
        let draw = |name: &str, shape: [usize; 3], bound: f32| {
            let values = seed.split(name).uniforms(shape.iter().product(), bound);
            Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), device))
        };
        Self {
            left: draw("left", [n, inputs / n, 1], 1.0 / (inputs as f32).sqrt()),
            right: if zero {
                Param::from_tensor(Tensor::zeros([n, 1, outputs / n], device))
            } else {
                draw("right", [n, 1, outputs / n], 1.0)
            },
            offset: Param::from_tensor(Tensor::zeros([outputs], device)),
        }
    }

    /// `input W + offset` with `W = sum_i S_i (x) (l_i r_i)` and `S` `[n, n, n]`.
    fn forward(&self, input: Tensor<2>, shared: Tensor<3>) -> Tensor<2> {
        let small = self.left.val().matmul(self.right.val());
        let [n, inputs, outputs] = small.dims();
        // sum_i S_i[p, q] B_i[r, s] at row (p, r) and column (q, s).
        let shared = shared.reshape([n, n * n]).transpose();
        let weight = shared.matmul(small.reshape([n, inputs * outputs])).reshape([n, n, inputs, outputs]);
        let weight = weight.swap_dims(1, 2).reshape([n * inputs, n * outputs]);
        input.matmul(weight) + self.offset.val().unsqueeze::<2>()
    }
}

#[derive(Module, Debug)]
struct Bottleneck {
    down: Product,
    up: Product,
}

/// Bottlenecks of Kronecker products.
#[derive(Module, Debug)]
pub struct Compacter {
    shared_down: Param<Tensor<3>>,
    shared_up: Param<Tensor<3>>,
    sites: BranchSites<Bottleneck>,
}

impl Method for CompacterConfig {
    type Adapter = Compacter;

    /// [`Error::Setting`] for a number of products that does not divide a width, a reduction of 0, or no block.
    fn init(&self, start: &Start<'_>) -> Result<Compacter> {
        let Start { backbone, device, seed, .. } = *start;
        let n = self.products;
        for tower in [Tower::Image, Tower::Text] {
            let width = backbone.width(tower);
            if n == 0 || !width.is_multiple_of(n) {
                let reason = format!("must divide the width {width} of the {tower} tower, found {n}");
                return Err(Error::Setting { setting: "products", reason });
            }
        }
        if self.reduction == 0 {
            return Err(Error::Setting { setting: "reduction", reason: "must be at least 1".into() });
        }
        let shared = |name: &str| {
            let values = seed.split(name).normals(n * n * n, 1.0 / n as f32);
            Param::from_tensor(Tensor::from_data(TensorData::new(values, [n, n, n]), device))
        };
        let sites = BranchSites::select(backbone, &self.blocks, true, |site| {
            let width = backbone.width(site.block().tower);
            let hidden = self.hidden(width);
            let seed = seed.split(format!("{site:?}"));
            Bottleneck {
                down: Product::new(n, [width, hidden], false, seed.split("down"), device),
                up: Product::new(n, [hidden, width], true, seed.split("up"), device),
            }
        })?;
        Ok(Compacter { shared_down: shared("down"), shared_up: shared("up"), sites })
    }

    fn words(&self) -> Words {
        Words::Unneeded
    }

    fn crosses(&self) -> bool {
        true
    }

    fn trainable(&self, backbone: &Backbone, _classes: usize, _images: usize) -> usize {
        let one = |tower| {
            let width = backbone.width(tower);
            let hidden = self.hidden(width);
            self.blocks.branches(backbone, tower, true) * (2 * (width + hidden) + hidden + width)
        };
        2 * self.products.pow(3) + [Tower::Image, Tower::Text].map(one).iter().sum::<usize>()
    }
}

impl Learner for Compacter {}

impl Sites for Compacter {
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
        let Some(Bottleneck { down, up }) = self.sites.get(at) else { return output };
        let [batch, tokens, width] = output.dims();
        let hidden = gelu(down.forward(output.clone().reshape([batch * tokens, width]), self.shared_down.val()));
        output + up.forward(hidden, self.shared_up.val()).reshape([batch, tokens, width])
    }
}
