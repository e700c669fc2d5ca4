//! What linear layers are given: a look at a pass through the towers that changes nothing in it.

use std::collections::BTreeMap;
use std::sync::Mutex;

use burn::tensor::Tensor;
use inarch_core::backbone::{Entry, LinearBase, Mode, Pass, Sites, Touched, Tower};
use nalgebra::DMatrix;

use super::sites::matches;
use crate::matrix::to_host;

/// Watches the inputs `x` `[tokens, d_input]` of some linear layers and sums `x^T x` `[d_input, d_input]` over all
/// passes: its directions and their energies are those of the inputs.
///
/// At the end of a stack of adapters it sees what the layers are given through all of them. Sums are over batches as
/// they come, in the order in which they come.
#[derive(Debug, Default)]
pub struct InputMoments {
    targets: Vec<String>,
    sums: Mutex<BTreeMap<String, DMatrix<f64>>>,
}

impl InputMoments {
    /// Of the sites that one of `targets` selects, by name; `*` stands for anything.
    pub fn new(targets: &[String]) -> Self {
        Self { targets: targets.to_vec(), sums: Mutex::default() }
    }

    /// The sums, by the name of the site, as symmetric matrices of `d_input^2` values. Sites that no pass met are not
    /// there.
    pub fn values(self) -> BTreeMap<String, Vec<f64>> {
        let values = |(site, sum): (String, DMatrix<f64>)| (site, sum.data.into());
        self.sums().into_iter().map(values).collect()
    }

    pub(crate) fn sums(self) -> BTreeMap<String, DMatrix<f64>> {
        self.sums.into_inner().unwrap_or_default()
    }
}

impl Sites for InputMoments {
    fn entry(&self, tower: Tower) -> Entry {
        match tower {
            Tower::Image => Entry::Trunk(0),
            Tower::Text => Entry::Block(0),
        }
    }

    fn shares_beginnings(&self, _mode: Mode) -> bool {
        true
    }

    fn touched(&self) -> Touched {
        Touched::LINEAR
    }

    fn linear(&self, base: LinearBase<'_>, input: Tensor<3>, _pass: &Pass<'_>) -> Tensor<3> {
        let name = base.at.to_string();
        if self.targets.iter().any(|target| matches(target, &name)) {
            let [batch, tokens, width] = input.dims();
            let rows = input.clone().reshape([batch * tokens, width]);
            let sum = to_host(rows.clone().transpose().matmul(rows));
            if let Ok(mut sums) = self.sums.lock() {
                sums.entry(name).and_modify(|all| *all += &sum).or_insert(sum);
            }
        }
        base.forward(input)
    }
}
