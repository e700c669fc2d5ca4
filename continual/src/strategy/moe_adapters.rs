//! MoE-Adapters: experts in the image tower that a router of each experience chooses from, and a look at the frozen feature
//! that tells which router, or that the image belongs to no experience (Yu et al., CVPR 2024, arXiv 2403.11549).
//!
//! An experience trains the open experts and a router of its own. When it is over, the `top` open experts of each block that
//! its images take most are frozen, fresh ones take their place, and its router stands still; an image that it is asked for
//! later finds the experts that it knew (`experts`). So that many open experts are always there, and nothing has to know
//! how many experiences there will be. The loss is the cross entropy of what arrives among its own classes.
//!
//! What answers is the method `moe-adapters` of all experiences. The mean and the `code` greatest directions of the
//! experience's normalised frozen features tell its images (`reconstruction`): an image takes the router of the experience
//! that leaves the least of its feature unexplained, in units of what 95 % of that experience's own images stay below
//! (`outside`). Where that is more than 1 for all, it takes none and the tower answers as the frozen one. No sample is
//! kept, and an answer depends on no other image of a batch.
//!
//! The recipe's method is `moe-adapters`, or a stack with one in it, whose other members, such as class rows, are trained on
//! from experience to experience.
//!
//! Departures: as in the method, and uses are counted in one look at the images when the experience is over, without
//! noise, where the authors count through all steps; a limit in units of own images takes the place of one fixed number.

use std::collections::BTreeMap;

use inarch_core::backbone::HostTensor;
use inarch_peft::{Adapter, ExpertUse, Loss, MethodConfig, MoeAdaptersConfig, Parameters};
use inarch_recipes::{Moment, Recipe};

use super::among::{classes_of, own_loss};
use super::branches::{Part, joined, parts};
use super::experts::{SELECTOR, carried};
use super::features::unit_features;
use super::needs::MOE_ADAPTERS;
use super::reconstruction::Reconstruction;
use super::weights::replaced;
use super::{Beginning, Episode, Outcome, Strategy};
use crate::error::Result;

/// The states: the tensors of the method, and how often each open expert was used.
const PAST: &str = "past";
const USES: &str = "uses";

/// Experts, routers and what tells experiences apart.
pub(super) struct MoeAdapters {
    outside: f64,
    past: Parameters,
    /// Counts `[experts]` by the path of the block.
    uses: Parameters,
    /// Whether a class is among those that arrive.
    current: Vec<bool>,
}

impl MoeAdapters {
    pub(super) fn new(outside: f64) -> Self {
        let [past, uses] = [(); 2].map(|()| Parameters::new());
        Self { outside, past, uses, current: Vec::new() }
    }

    fn experiences(&self) -> usize {
        self.past.get(SELECTOR[2]).map_or(0, |slopes| slopes.data.len())
    }
}

impl Strategy for MoeAdapters {
    fn start(&self, beginning: &Beginning<'_>) -> Result<Option<Part>> {
        let Beginning { session, recipe, classes, grown, .. } = *beginning;
        let mut own = parts(&recipe.method, grown);
        let (at, config) = MOE_ADAPTERS.part::<MoeAdaptersConfig>(&own)?;
        if !(0.0..1.0).contains(&self.outside) {
            return Err(MOE_ADAPTERS.fault(format!("`outside` must be in [0, 1), found {}", self.outside)));
        }
        MOE_ADAPTERS.counts(config.experiences)?;
        if self.experiences() == 0 {
            return Ok(None);
        }
        let top = config.top;
        let method = MethodConfig::MoeAdapters(MoeAdaptersConfig { experiences: self.experiences() + 1, ..config });
        let fresh = session.fresh_adapter(&Recipe { method: method.clone(), ..recipe.clone() }, classes)?;
        let mut values = fresh.parameters();
        let uses = self.uses.iter().map(|(path, counts)| (path.clone(), counts.data.clone())).collect();
        if carried(&self.past, &uses, &mut values, top).is_none() {
            return Err(MOE_ADAPTERS.fault("the experts before are of other settings than `fit.method`"));
        }
        own[at] = (method, replaced(fresh, values)?);
        joined(own).map(Some)
    }

    fn begin(&mut self, episode: &Episode<'_>) -> Result<()> {
        self.current = classes_of(episode);
        Ok(())
    }

    fn loss(&self, moment: &Moment<'_>, _episode: &Episode<'_>) -> Loss {
        own_loss(moment.adapter, moment.step, &self.current)
    }

    fn end(&mut self, episode: &Episode<'_>, adapter: Adapter) -> Result<Outcome> {
        let Episode { session, recipe, classes, train, .. } = *episode;
        let adapter = adapter.without_autodiff();
        let mut own = parts(&recipe.method, &adapter);
        let (at, config) = MOE_ADAPTERS.part::<MoeAdaptersConfig>(&own)?;
        let Adapter::MoeAdapters(experts) = &own[at].1 else { return Err(MOE_ADAPTERS.missing()) };
        let watcher = ExpertUse::new(experts);
        session.watch((recipe, classes, &adapter), (train, &[]), &watcher)?;
        let open = |(block, counts): (usize, Vec<u64>)| {
            let counts: Vec<f32> =
                counts[counts.len().saturating_sub(config.experts)..].iter().map(|count| *count as f32).collect();
            let path = format!("sites.image.blocks.{block}.mlp");
            (path.clone(), HostTensor { shape: vec![counts.len()], data: counts, origin: path })
        };
        self.uses = watcher.counts().into_iter().map(open).collect();

        let Reconstruction { mean, directions, slope } =
            Reconstruction::of(&unit_features(session, train)?, config.code, self.outside);
        let mut values = own[at].1.parameters();
        for (name, last) in SELECTOR.into_iter().zip([mean, directions, vec![slope]]) {
            let Some(tensor) = values.get_mut(name) else { continue };
            let from = tensor.data.len() - last.len();
            tensor.data[from..].copy_from_slice(&last);
        }
        self.past = values.clone();
        own[at].1 = replaced(own[at].1.clone(), values)?;
        // What is trained next starts from the state; the recipe's own adapter only holds its place.
        let place = MethodConfig::MoeAdapters(MoeAdaptersConfig { experiences: 1, ..config });
        let fresh = session.fresh_adapter(&Recipe { method: place.clone(), ..recipe.clone() }, classes)?;
        let mut trained = own.clone();
        trained[at] = (place, fresh.without_autodiff());
        let ((_, trained), (method, answer)) = (joined(trained)?, joined(own)?);
        Ok(Outcome { trained, answer, method: Some(method) })
    }

    fn state(&self) -> BTreeMap<String, Parameters> {
        let parts = [(PAST, &self.past), (USES, &self.uses)].into_iter();
        parts.filter(|(_, part)| !part.is_empty()).map(|(name, part)| (name.to_string(), part.clone())).collect()
    }

    fn restore(&mut self, mut state: BTreeMap<String, Parameters>) {
        let mut take = |name: &str| state.remove(name).unwrap_or_default();
        (self.past, self.uses) = (take(PAST), take(USES));
    }
}
