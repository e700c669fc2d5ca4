//! LoKr: the update of a weight is the Kronecker product of a small matrix and a low-rank one (Edalati et al., 2022, arXiv
//! 2212.10650; LyCORIS: Yeh et al., 2023, arXiv 2309.14859).
//!
//! `W' = W + (alpha / rank) (C (x) D)` with `C` `[m_in, m_out]` and `D = A B`, `A` `[n_in, rank]`, `B` `[rank, n_out]`, where
//! `d_input = m_in n_in` and `d_output = m_out n_out`. Each width is cut at its divisor nearest below its root, or at
//! `factor` where that divides it. Where `rank` is not below half of `D`'s greater side, `D` is whole. `C` starts at zero, so
//! that the start is the identity. Count: `m_in m_out + rank (n_in + n_out)`, or `m_in m_out + n_in n_out`, for each target.
//! Sites: linear, in both towers. Folds.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{Tensor, TensorData};
use inarch_core::backbone::{Backbone, Entry, LinearBase, LinearSite, Mode, Pass, Sites, Touched, Tower};
use serde::{Deserialize, Serialize};

use super::factors::{check_finite, check_rank, check_targets};
use super::sites::{LinearSites, selected_sites};
use crate::error::Result;
use crate::learner::Learner;
use crate::method::{Method, Start, Words};

/// Settings of LoKr; the defaults are those of HF PEFT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoKrConfig {
    /// Rank of the greater factor.
    pub rank: usize,
    /// Numerator of the scale.
    pub alpha: f64,
    /// Where to cut the widths; 0 for the divisor nearest to their root.
    pub factor: usize,
    /// Which linear sites, by name; `*` stands for anything.
    pub targets: Vec<String>,
}

impl Default for LoKrConfig {
    fn default() -> Self {
        let targets = ["*.q_proj", "*.k_proj", "*.v_proj"].map(String::from).to_vec();
        Self { rank: 8, alpha: 8.0, factor: 0, targets }
    }
}

impl LoKrConfig {
    /// `(m, n)` with `m n = width` and `m <= n`.
    fn cut(&self, width: usize) -> (usize, usize) {
        if self.factor > 0 && width.is_multiple_of(self.factor) {
            let other = width / self.factor;
            return (self.factor.min(other), self.factor.max(other));
        }
        let limit = if self.factor > 0 { self.factor } else { width };
        let fits = |m: &usize| width.is_multiple_of(*m) && *m <= limit && m * m <= width;
        let m = (1..=width).take_while(|m| m * m <= width).filter(fits).last().unwrap_or(1);
        (m, width / m)
    }

    fn low_rank(&self, n_in: usize, n_out: usize) -> bool {
        2 * self.rank < n_in.max(n_out)
    }
}

#[derive(Module, Debug)]
struct Kronecker {
    c: Param<Tensor<2>>,
    a: Option<Param<Tensor<2>>>,
    b: Option<Param<Tensor<2>>>,
    d: Option<Param<Tensor<2>>>,
}

impl Kronecker {
    fn greater(&self) -> Tensor<2> {
        match (&self.a, &self.b, &self.d) {
            (Some(a), Some(b), _) => a.val().matmul(b.val()),
            (_, _, Some(d)) => d.val(),
            _ => unreachable!("the greater factor is whole or a product"),
        }
    }

    /// `x (C (x) D)` without the product itself: `[rows, m_in n_in]` to `[rows, m_out n_out]`.
    fn apply(&self, input: Tensor<3>, scale: f64) -> Tensor<3> {
        let [batch, tokens, _] = input.dims();
        let rows = batch * tokens;
        let (c, d) = (self.c.val(), self.greater());
        let ([m_in, m_out], [n_in, n_out]) = (c.dims(), d.dims());
        let mixed = input.reshape([rows * m_in, n_in]).matmul(d * scale);
        let mixed = mixed.reshape([rows, m_in, n_out]).swap_dims(1, 2).reshape([rows * n_out, m_in]).matmul(c);
        mixed.reshape([rows, n_out, m_out]).swap_dims(1, 2).reshape([batch, tokens, m_out * n_out])
    }

    /// `[d_input, d_output]`.
    fn change(&self, scale: f64) -> Tensor<2> {
        let (c, d) = (self.c.val().without_autodiff(), self.greater().without_autodiff());
        let ([m_in, m_out], [n_in, n_out]) = (c.dims(), d.dims());
        let product = c.reshape([m_in, 1, m_out, 1]) * d.reshape([1, n_in, 1, n_out]);
        product.reshape([m_in * n_in, m_out * n_out]) * scale
    }
}

/// Kronecker products beside frozen weights.
#[derive(Module, Debug)]
pub struct LoKr {
    sites: LinearSites<Kronecker>,
    scale: f64,
}

impl Method for LoKrConfig {
    type Adapter = LoKr;

    /// [`Error::Setting`](crate::Error::Setting) or [`Error::NoTarget`](crate::Error::NoTarget).
    fn init(&self, start: &Start<'_>) -> Result<LoKr> {
        check_targets(&self.targets)?;
        check_finite("alpha", self.alpha)?;
        let rank = self.rank;
        let sites = LinearSites::select(start.backbone, &self.targets, |site, dims| {
            check_rank(rank, site, dims)?;
            let ((m_in, n_in), (m_out, n_out)) = (self.cut(dims[0]), self.cut(dims[1]));
            let draw = |name: &str, shape: [usize; 2]| {
                let bound = 1.0 / (shape[0] as f32).sqrt();
                let values = start.seed.split(site).split(name).uniforms(shape[0] * shape[1], bound);
                Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), start.device))
            };
            let low = self.low_rank(n_in, n_out);
            Ok(Kronecker {
                c: Param::from_tensor(Tensor::zeros([m_in, m_out], start.device)),
                a: low.then(|| draw("a", [n_in, rank])),
                b: low.then(|| draw("b", [rank, n_out])),
                d: (!low).then(|| draw("d", [n_in, n_out])),
            })
        })?;
        Ok(LoKr { sites, scale: self.alpha / rank as f64 })
    }

    fn words(&self) -> Words {
        Words::Unneeded
    }

    fn crosses(&self) -> bool {
        true
    }

    fn either_tower(&self) -> bool {
        true
    }

    fn trainable(&self, backbone: &Backbone, _classes: usize, _images: usize) -> usize {
        let count = |(_, dims): (LinearSite, [usize; 2])| {
            let ((m_in, n_in), (m_out, n_out)) = (self.cut(dims[0]), self.cut(dims[1]));
            let low = self.low_rank(n_in, n_out);
            m_in * m_out + if low { self.rank * (n_in + n_out) } else { n_in * n_out }
        };
        selected_sites(backbone, &self.targets).map(count).sum()
    }
}

impl Learner for LoKr {}

impl Sites for LoKr {
    fn entry(&self, tower: Tower) -> Entry {
        self.sites.entry(tower)
    }

    fn shares_beginnings(&self, _mode: Mode) -> bool {
        true
    }

    fn touched(&self) -> Touched {
        Touched::LINEAR
    }

    fn linear(&self, base: LinearBase<'_>, input: Tensor<3>, _pass: &Pass<'_>) -> Tensor<3> {
        let Some(product) = self.sites.get(base.at) else { return base.forward(input) };
        base.forward(input.clone()) + product.apply(input, self.scale)
    }

    fn folds(&self) -> bool {
        true
    }

    fn fold(&self, at: LinearSite, layer: &Linear) -> Option<Linear> {
        let change = self.sites.get(at)?.change(self.scale);
        Some(Linear { weight: Param::from_tensor(layer.weight.val() + change), bias: layer.bias.clone() })
    }
}
