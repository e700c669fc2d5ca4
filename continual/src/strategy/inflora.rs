//! InfLoRA: an update of low rank for each experience, in directions that the inputs of the layer need now and did not
//! need before (Liang and Li, CVPR 2024, arXiv 2404.00228).
//!
//! In experience `t` the frozen weight is `W + s sum_{i<t} A_i B_i`, and of the new update `s A_t B_t` only `B_t`
//! moves. For the inputs `X` `[tokens, d_input]` of a layer, which arrive through all updates before, and an
//! orthonormal basis `M` of the inputs of all experiences before, `A_t` `[d_input, rank]` has the greatest directions
//! of `X (I - M M^T)`, each of length `1 / sqrt(3)`. So `x A_t = 0` for an `x` in the span of `M`: what was learned for
//! it stands. After a training `M` takes up the greatest directions of the inputs now, until their energy in its span
//! is the share `threshold` of all (`subspace`: DualGPM). The loss is the cross entropy of what arrives among its own
//! classes. What it trains and what answers: `branches`.
//!
//! Departures: every site of the `lora` is treated so, that is in the text tower too, whose inputs are the texts of the
//! classes that arrive; the authors train keys and values of an image tower. Their threshold grows with the share of
//! experiences that are over. Nobody knows that share here, so in experience `t` it is `1 - (1 - threshold) / (t + 1)`.
//! Energies are those of the inputs, as in the paper; the authors' code takes the squares of these.

use std::collections::BTreeMap;

use inarch_peft::{Adapter, InputMoments, Loss, MethodConfig, Parameters};
use inarch_recipes::{Moment, Recipe};
use nalgebra::DMatrix;

use super::among::{arriving, classes_of, own_loss};
use super::branches::{Branches, Owner, Part, joined, parts};
use super::needs::INFLORA;
use super::subspace::{Subspace, leading};
use super::weights::replaced;
use super::{Beginning, Episode, Outcome, Strategy};
use crate::error::Result;

/// The name of the state beside that of the updates.
const SUBSPACES: &str = "subspaces";

/// Interference-free updates of low rank.
pub(super) struct Inflora {
    threshold: f64,
    branches: Branches,
    /// What the inputs of each site needed in the experiences before.
    subspaces: BTreeMap<String, Subspace>,
    /// Whether a class is among those that arrive.
    current: Vec<bool>,
}

impl Inflora {
    pub(super) fn new(threshold: f64) -> Self {
        Self { threshold, branches: Branches::new(INFLORA), subspaces: BTreeMap::new(), current: Vec::new() }
    }

    /// For each site of the `lora` in training the second moment of its inputs, `[d_input, d_input]`.
    fn inputs(&self, beginning: &Beginning<'_>, (method, adapter): &Part) -> Result<BTreeMap<String, DMatrix<f64>>> {
        let Beginning { session, recipe, classes, train, .. } = *beginning;
        let (_, config) = self.branches.branch(method)?;
        let recipe = Recipe { method: method.clone(), ..recipe.clone() };
        let arrives = arriving(classes, train);
        let texts: Vec<String> =
            classes.iter().zip(arrives).filter(|(_, arrives)| *arrives).map(|(class, _)| class.clone()).collect();
        let inputs = InputMoments::new(&config.targets);
        session.watch((&recipe, classes, adapter), (train, &texts), &inputs)?;
        let matrix = |(site, values): (String, Vec<f64>)| {
            let width = values.len().isqrt();
            (site, DMatrix::from_vec(width, width, values))
        };
        Ok(inputs.values().into_iter().map(matrix).collect())
    }
}

impl Strategy for Inflora {
    fn start(&self, beginning: &Beginning<'_>) -> Result<Option<Part>> {
        let start = self.branches.start(beginning)?;
        let (at, config) = self.branches.branch(&start.0)?;
        let mut own = parts(&start.0, &start.1);
        let mut factors = own[at].1.parameters();
        for (site, moment) in self.inputs(beginning, &start)? {
            let Some(down) = factors.get_mut(&format!("sites.{site}.a")) else { continue };
            let needed = self.subspaces.get(&site).map_or_else(|| moment.clone(), |before| before.outside(&moment));
            let directions = leading(&needed, moment.trace(), down.shape[1]) / 3f64.sqrt();
            down.data = directions.transpose().iter().map(|value| *value as f32).collect();
        }
        own[at] = (MethodConfig::Lora(config), replaced(own[at].1.clone(), factors)?);
        joined(own).map(Some)
    }

    fn begin(&mut self, episode: &Episode<'_>) -> Result<()> {
        self.current = classes_of(episode);
        Ok(())
    }

    fn rate(&self, method: &MethodConfig, parameter: &str) -> f64 {
        match self.branches.owner(method, parameter) {
            Owner::Past => 0.0,
            Owner::Branch(own) if own.ends_with(".a") => 0.0,
            Owner::Branch(_) | Owner::Other => 1.0,
        }
    }

    fn loss(&self, moment: &Moment<'_>, _episode: &Episode<'_>) -> Loss {
        own_loss(moment.adapter, moment.step, &self.current)
    }

    fn end(&mut self, episode: &Episode<'_>, adapter: Adapter) -> Result<Outcome> {
        let Episode { session, recipe, classes, train, .. } = *episode;
        let beginning = Beginning { session, recipe, classes, grown: &adapter, train };
        let threshold = 1.0 - (1.0 - self.threshold) / (self.branches.experiences() + 1) as f64;
        for (site, moment) in self.inputs(&beginning, &(recipe.method.clone(), adapter.clone()))? {
            let before = self.subspaces.remove(&site).unwrap_or_else(|| Subspace::none(moment.nrows()));
            self.subspaces.insert(site, before.extended(&moment, threshold));
        }
        self.branches.close(episode, adapter)
    }

    fn state(&self) -> BTreeMap<String, Parameters> {
        let mut state = self.branches.state();
        if !self.subspaces.is_empty() {
            let subspaces = self.subspaces.iter().map(|(site, subspace)| subspace.saved(site));
            state.insert(SUBSPACES.into(), subspaces.collect());
        }
        state
    }

    fn restore(&mut self, mut state: BTreeMap<String, Parameters>) {
        self.branches.restore(&mut state);
        let saved = state.remove(SUBSPACES).unwrap_or_default();
        self.subspaces = saved.iter().filter_map(|(name, tensor)| Subspace::read(name, tensor)).collect();
    }
}
