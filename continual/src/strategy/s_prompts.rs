//! S-Prompts: prompts of each experience by themselves, and K-means centroids by which an image finds its
//! own (Wang et al., NeurIPS 2022, arXiv 2207.12819).
//!
//! In every experience fresh prompts of `vpt-shallow` are trained, so those before never move; the loss is the cross
//! entropy of what arrives among its own classes. Then the normalised frozen features of the experience's images give
//! `centroids` of K-means. What answers has the method `s-prompts` in place of `vpt-shallow`: the prompts of all
//! experiences, of which an image takes those of the nearest centroid, by its own frozen feature. No sample is kept,
//! and nothing has to know how many experiences there will be.
//!
//! The recipe's method is `vpt-shallow`, or a stack with one in it, whose other members, such as class rows, are
//! trained on from experience to experience; rows of classes that do not arrive get no gradient.
//!
//! Departures: all classes seen so far compete in every answer, where the authors let those of the chosen experience
//! compete alone, as experiences may share classes. Without `text` the text side keeps the recipe's templates (S-iPrompts);
//! with it the recipe's stack has a `coop` too, which is trained afresh in every experience (S-liPrompts), and a context
//! goes with the classes that came with it (`contexts`), where the authors' goes with the image: a pass through the text
//! tower for each class, not for each image and class.

use std::collections::BTreeMap;

use inarch_core::Seed;
use inarch_core::backbone::HostTensor;
use inarch_core::data::Example;
use inarch_peft::{Adapter, Loss, MethodConfig, Parameters, SPromptsConfig, VptShallowConfig};
use inarch_recipes::{Moment, Recipe, Session};

use super::among::{arriving, classes_of, own_loss};
use super::branches::{Part, joined, parts};
use super::contexts::{Contexts, stands_still};
use super::features::unit_features;
use super::k_means::centroids;
use super::needs::S_PROMPTS;
use super::weights::append;
use super::{Beginning, Episode, Outcome, Strategy};
use crate::error::{Error, Result};

/// The tensors of the method `s-prompts`.
const PROMPTS: &str = "prompts";
const CENTROIDS: &str = "centroids.fixed";

/// Prompts of each experience.
pub(super) struct SPrompts {
    centroids: usize,
    /// Those of all experiences before, under the names of the method: `prompts` `[experiences, tokens, width]` and
    /// centroids `[experiences, centroids, dim]`.
    past: Parameters,
    /// Those of the text side, if it has any.
    contexts: Option<Contexts>,
    /// Whether a class is among those that arrive.
    current: Vec<bool>,
}

impl SPrompts {
    pub(super) fn new(centroids: usize, text: bool) -> Self {
        let contexts = text.then(Contexts::default);
        Self { centroids, past: Parameters::new(), contexts, current: Vec::new() }
    }

    fn experiences(&self) -> usize {
        self.past.get(PROMPTS).map_or(0, |prompts| prompts.shape[0])
    }

    /// Centroids `[centroids, dim]` of the normalised frozen features of some images, row-major.
    fn centroids(&self, session: &Session<'_>, train: &[Example], seed: Seed) -> Result<Vec<f32>> {
        let points = unit_features(session, train)?;
        Ok(centroids(&points, self.centroids, seed).into_iter().flatten().map(|value| value as f32).collect())
    }

    /// The prompts of all experiences as one adapter.
    fn all(&self, session: &Session<'_>, recipe: &Recipe, classes: &[String], tokens: usize) -> Result<Part> {
        let config = SPromptsConfig { experiences: self.experiences(), tokens, centroids: self.centroids };
        let method = MethodConfig::SPrompts(config);
        let recipe = Recipe { method: method.clone(), ..recipe.clone() };
        let adapter = session.fresh_adapter(&recipe, classes)?;
        let adapter = adapter.with_parameters(self.past.clone(), session.backbone().device());
        Ok((method, adapter.map_err(|reason| Error::setting("prompts before", reason))?))
    }
}

impl Strategy for SPrompts {
    fn start(&self, beginning: &Beginning<'_>) -> Result<Option<Part>> {
        let Beginning { session, recipe, classes, grown, train } = *beginning;
        let mut own = parts(&recipe.method, grown);
        let (at, _) = S_PROMPTS.part::<VptShallowConfig>(&own)?;
        if self.centroids == 0 {
            return Err(Error::setting("strategy s-prompts", "`centroids` must be at least 1"));
        }
        if self.experiences() == 0 && self.contexts.is_none() {
            return Ok(None);
        }
        let fresh = session.fresh_adapter(recipe, classes)?;
        own[at] = parts(&recipe.method, &fresh).remove(at);
        if let Some(contexts) = &self.contexts {
            contexts.start((session, recipe), (classes, &arriving(classes, train)), &mut own)?;
        }
        joined(own).map(Some)
    }

    fn begin(&mut self, episode: &Episode<'_>) -> Result<()> {
        self.current = classes_of(episode);
        Ok(())
    }

    fn rate(&self, method: &MethodConfig, parameter: &str) -> f64 {
        if self.contexts.is_some() && stands_still(method, parameter) { 0.0 } else { 1.0 }
    }

    fn loss(&self, moment: &Moment<'_>, _episode: &Episode<'_>) -> Loss {
        own_loss(moment.adapter, moment.step, &self.current)
    }

    fn end(&mut self, episode: &Episode<'_>, adapter: Adapter) -> Result<Outcome> {
        let Episode { session, recipe, classes, train, .. } = *episode;
        let mut own = parts(&recipe.method, &adapter.clone().without_autodiff());
        let (at, config) = S_PROMPTS.part::<VptShallowConfig>(&own)?;
        let dim = session.backbone().spec().dim;
        let found = self.centroids(session, train, Seed::new(recipe.seed).split("centroids"))?;
        // One more of the first axis.
        let row = |name: &str, shape: &[usize], data| {
            (name.to_string(), HostTensor { shape: [&[1], shape].concat(), data, origin: name.into() })
        };
        let prompts = own[at].1.parameters().into_values().map(|one| row(PROMPTS, &one.shape, one.data));
        let came: Parameters = prompts.chain([row(CENTROIDS, &[self.centroids, dim], found)]).collect();
        append(&mut self.past, &came, |_| true);
        own[at] = self.all(session, recipe, classes, config.tokens)?;
        let mut trained = adapter;
        if let Some(contexts) = &mut self.contexts {
            let (place, shared) = contexts.end((session, recipe), (classes, &self.current), &mut own)?;
            let mut all = parts(&recipe.method, &trained.without_autodiff());
            all[place] = shared;
            trained = joined(all)?.1;
        }
        let (method, answer) = joined(own)?;
        Ok(Outcome { trained, answer, method: Some(method) })
    }

    fn state(&self) -> BTreeMap<String, Parameters> {
        let contexts = self.contexts.as_ref().map(Contexts::state).unwrap_or_default();
        let parts = [("past", self.past.clone()), ("contexts", contexts)];
        parts.into_iter().filter(|(_, part)| !part.is_empty()).map(|(name, part)| (name.into(), part)).collect()
    }

    fn restore(&mut self, mut state: BTreeMap<String, Parameters>) {
        self.past = state.remove("past").unwrap_or_default();
        if let Some(contexts) = &mut self.contexts {
            contexts.restore(state.remove("contexts").unwrap_or_default());
        }
    }
}
