//! O-LoRA: an update of low rank for each experience, held apart from the subspaces of those before (Wang et al., 2023,
//! arXiv 2310.14152).
//!
//! In experience `t` the frozen weight is `W + s sum_{i<t} A_i B_i` and only `A_t`, `B_t` move, under `L + weight
//! sum_{i<t} |A_i^T A_t|^2`, summed over sites, with `A` `[d_input, rank]`. What it trains and what answers:
//! `branches`.

use std::collections::BTreeMap;

use burn::module::{ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData};
use inarch_peft::{Adapter, Loss, MethodConfig, Parameters};
use inarch_recipes::Moment;

use super::branches::{Branches, Owner, Part};
use super::needs::O_LORA;
use super::{Beginning, Episode, Outcome, Strategy};
use crate::error::Result;

/// Orthogonal updates of low rank.
pub(super) struct OLora {
    weight: f64,
    branches: Branches,
}

/// `sum |A_i^T A_t|^2` of the factors in training, `[1]`.
fn overlap(branches: &Branches, method: &MethodConfig, adapter: &Adapter) -> Option<Tensor<1>> {
    let mut sum = Overlap { path: Vec::new(), branches, method, total: None };
    adapter.visit_parameters(&mut sum);
    sum.total
}

struct Overlap<'a> {
    path: Vec<String>,
    branches: &'a Branches,
    method: &'a MethodConfig,
    total: Option<Tensor<1>>,
}

impl ModuleVisitor for Overlap<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        let Owner::Branch(own) = self.branches.owner(self.method, &path) else { return };
        let Some(past) = self.branches.past().get(own).filter(|_| own.ends_with(".a")) else { return };
        let value = param.val();
        let device = value.device().without_autodiff();
        let before = Tensor::<2>::from_data(TensorData::new(past.data.clone(), past.shape.clone()), &device);
        let rank = value.dims().iter().product::<usize>() / past.shape[0].max(1);
        let product = before.transpose().matmul(value.reshape([past.shape[0], rank]));
        let term = (product.clone() * product).sum();
        self.total = Some(match self.total.take() {
            Some(total) => total + term,
            None => term,
        });
    }
}

impl OLora {
    pub(super) fn new(weight: f64) -> Self {
        Self { weight, branches: Branches::new(O_LORA) }
    }
}

impl Strategy for OLora {
    fn start(&self, beginning: &Beginning<'_>) -> Result<Option<Part>> {
        self.branches.start(beginning).map(Some)
    }

    fn rate(&self, method: &MethodConfig, parameter: &str) -> f64 {
        if self.branches.owner(method, parameter) == Owner::Past { 0.0 } else { 1.0 }
    }

    fn loss(&self, moment: &Moment<'_>, episode: &Episode<'_>) -> Loss {
        let mut loss = moment.adapter.learner().loss(moment.step);
        if let Some(overlap) = overlap(&self.branches, &episode.recipe.method, moment.adapter) {
            loss.task = loss.task + overlap * self.weight;
        }
        loss
    }

    fn end(&mut self, episode: &Episode<'_>, adapter: Adapter) -> Result<Outcome> {
        self.branches.close(episode, adapter)
    }

    fn state(&self) -> BTreeMap<String, Parameters> {
        self.branches.state()
    }

    fn restore(&mut self, mut state: BTreeMap<String, Parameters>) {
        self.branches.restore(&mut state);
    }
}
