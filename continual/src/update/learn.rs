//! What an update learns: a head in closed form from its sums, anything else by steps under a strategy.
//!
//! Both take what the version before hands on ([`Estate`]), add the fresh samples to its memory and its ledger, and
//! return the adapter for all classes known now. Nothing is judged or published here.

use inarch_core::backbone::{Backbone, Entry, Sites as _, Tower};
use inarch_core::data::{ClipConfig, Dataset, Example};
use inarch_peft::{Artifact, Rows};
use inarch_recipes::{Recipe, Session, Templates};
use toml::{Table, Value};

use super::run::{Estate, UpdateRequest, session_note};
use super::version::Version;
use super::work::Work;
use crate::bench::fit_recipe;
use crate::error::{Error, Result};
use crate::learner::{Arrival, Carried, GradientLearner, Learner as _, LearnerConfig, Setting, solve_head};
use crate::memory::{Content, Sample};
use crate::strategy::Scope;

/// A head in closed form: what is fresh is added to the sums, and the head is solved again.
///
/// # Errors
/// A version without statistics, and samples that do not fit to them.
pub(super) fn learn_analytic(
    backbone: &Backbone,
    carried: &mut Estate,
    old: Option<&Artifact>,
    fresh: Vec<Sample>,
    (fit, clips): (&Table, Option<&ClipConfig>),
) -> Result<Artifact> {
    if carried.memory.config().views > 1 {
        let reason =
            format!("`{}` is solved from centre views and rehearses none; leave it out", carried.method.name());
        return Err(Error::setting("memory.views", reason));
    }
    let (ids, classes): (Vec<String>, Vec<String>) =
        fresh.iter().map(|sample| (sample.id.clone(), sample.class.clone())).unzip();
    let features: Vec<f32> = fresh.iter().flat_map(|sample| sample.latent.iter().copied()).collect();
    let templates = fit_of(carried, old, fit)?.templates.resolve()?;
    let Some(statistics) = &mut carried.statistics else {
        return Err(Error::setting("statistics", "the version has none"));
    };
    statistics.add(&Rows { ids: &ids, classes: &classes, features: &features })?;
    fresh.iter().for_each(|sample| carried.ledger.enter(sample));
    carried.memory.offer(fresh)?;
    // A file of features does not say how the clips were read that they were made of.
    let clips = clips.or_else(|| old?.manifest.clips.as_ref());
    solve_head(backbone, &carried.method, statistics, &carried.classes, (&templates, clips))
}

/// The settings of the training. A name keeps its templates: what a version learns by is what it will answer by.
fn fit_of(carried: &Estate, old: Option<&Artifact>, given: &Table) -> Result<Recipe> {
    let mut fit = given.clone();
    let method = Value::try_from(&carried.method).map_err(|error| Error::setting("method", error.to_string()))?;
    fit.insert("method".into(), method);
    let mut fit = fit_recipe(&fit)?;
    if let Some(old) = old {
        let kept = old.templates()?;
        if given.contains_key("templates") && fit.templates.resolve()? != kept {
            let reason = "the version before has other ones, and an update keeps them; leave them out, or begin anew with `--init`";
            return Err(Error::setting("fit.templates", reason));
        }
        fit.templates = Templates::List(kept);
    }
    Ok(fit)
}

/// Refuses a single class where the memory has no sample of another: steps on it would teach to answer nothing else.
fn need_another_class(carried: &Estate, dataset: &Dataset) -> Result<()> {
    let [class] = &dataset.classes[..] else { return Ok(()) };
    if carried.memory.samples().any(|sample| sample.class != *class) {
        return Ok(());
    }
    let reason = format!(
        "it has one class, `{class}`, and the version before remembers no sample of another to tell it from; add images of \
         other classes"
    );
    Err(Error::setting(format!("data set `{}`", dataset.name), reason))
}

/// Steps on the adapter of the version before, or on a fresh one, under the strategy of the recipe; returns the
/// strategy's name as well. `train` and `fresh` are the same samples, as examples and as they are remembered. A
/// training that was stopped goes on from what `work` holds.
///
/// # Errors
/// A class that stands alone; a strategy that trains nothing by steps, that needs all data, or that cannot go on from what the
/// version before handed on; images that cannot be read, a training that diverges or is stopped.
pub(super) fn learn_by_steps(
    session: &Session<'_>,
    carried: &mut Estate,
    (parent, old): (Option<&Version>, Option<&Artifact>),
    (train, fresh): (&[Example], &[Sample]),
    request: &UpdateRequest<'_>,
    work: &Work,
) -> Result<(Artifact, String)> {
    need_another_class(carried, request.dataset)?;
    let recipe = request.recipe;
    let strategy = match LearnerConfig::read(&recipe.strategy)? {
        LearnerConfig::Gradient(strategy) => strategy,
        other => {
            let reason = format!("`{}` does not train `{}`; use e.g. `er`", other.name(), carried.method.name());
            return Err(Error::setting("strategy", reason));
        }
    };
    if strategy.scope() == Scope::Everything && old.is_some() {
        let reason = format!(
            "`{}` trains on all data that there ever was, and an update has nothing but what is new and what is remembered; \
             use e.g. `er`, or begin anew on all of it with `--init`",
            strategy.name()
        );
        return Err(Error::setting("strategy", reason));
    }
    let fit = fit_of(carried, old, &recipe.fit)?;
    let templates = fit.templates.resolve()?;
    if session.dataset().clips.is_some()
        && session.fresh_adapter(&fit, &carried.classes)?.entry(Tower::Image) < Entry::Feature
    {
        let reason = "it changes the image tower or looks at single frames, and what is remembered of a clip is its feature; \
                      update a method at features or scores (`rail`, `linear-probe`, ..), or fit anew";
        return Err(Error::setting(format!("method `{}` on clips", carried.method.name()), reason));
    }
    let strategy = match recipe.strategy.contains_key("replay") {
        true => strategy,
        // Large batches of what arrives would drown a few old samples.
        false => strategy.rehearsing(fit.train.batch.min(train.len())),
    };
    let label = |class: &String| carried.classes.iter().position(|known| known == class).unwrap_or_default();
    let train: Vec<Example> = train
        .iter()
        .zip(fresh)
        .map(|(example, sample)| Example { id: sample.id.clone(), label: label(&sample.class), ..example.clone() })
        .collect();
    let mut learner = GradientLearner::new(strategy.clone(), fit, *carried.memory.config());
    if let Some(old) = old {
        let memory = (!carried.memory.is_empty()).then(|| carried.memory.clone());
        learner = learner.going_on(old.adapter.clone(), old.manifest.classes.clone(), memory);
    }
    let setting = Setting { session, templates: &templates, seed: recipe.seed };
    let handed_on = parent.map(|parent| Carried::of(&parent.folder)).transpose()?.flatten();
    if let (Some(handed_on), Some(parent)) = (&handed_on, parent) {
        learner.take_up(handed_on, &parent.folder, &setting)?;
    }
    let trains_on_memory = strategy.scope() == Scope::Memory;
    if carried.memory.config().views > 1 && !learner.rehearses() && !(trains_on_memory && learner.memory().is_some()) {
        let reason = format!("`{}` rehearses no views; use e.g. `er`, or leave it out", strategy.name());
        return Err(Error::setting("memory.views", reason));
    }
    let index = handed_on.map_or(usize::from(old.is_some()), |handed_on| handed_on.experiences);
    let arrival = Arrival {
        index,
        classes: &carried.classes,
        train: &train,
        earlier: &[],
        source: &request.dataset.name,
        time: request.time,
        chunk: None,
    };
    learner.learn(&arrival, &setting, &work.training()).map_err(|error| work.stopped(error))?;
    let artifact = learner.artifact(&setting)?;
    learner.hand_on(work.own(), index)?;
    let whole = artifact.adapter.entry(Tower::Image) < Entry::Feature;
    if whole && carried.memory.config().content == Content::Latents {
        session_note(session, "the method changes the image tower, so its memory keeps whole images");
    }
    match learner.memory().filter(|_| learner.rehearses() || trains_on_memory) {
        Some(memory) => carried.memory = memory.clone(),
        // What this strategy does not rehearse, that of a later update may.
        None => {
            if whole {
                carried.memory = carried.memory.clone().keeping_images(0);
            }
            let examples: Vec<&Example> = train.iter().collect();
            let images = carried.memory.config().content.images(&examples)?;
            let remembered = fresh.iter().zip(images).map(|(sample, image)| Sample { image, ..sample.clone() });
            carried.memory.offer(remembered)?;
        }
    }
    fresh.iter().for_each(|sample| carried.ledger.enter(sample));
    Ok((artifact, strategy.name().into()))
}
