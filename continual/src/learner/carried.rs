//! What a learner by steps hands from one version of an adapter to the next, beside the adapter and the memory: nothing, where the
//! adapter that answers is all there is to go on from.
//!
//! `learner.json` (strategy, method that is trained, number of experiences), `trained.safetensors` (the adapter that training goes
//! on from) and the strategy's state. All lie flat in the version's folder, encrypted or not: they hold no sample.

use std::path::{Path, PathBuf};

use inarch_core::checkpoint::read_safetensors;
use inarch_core::file;
use inarch_peft::MethodConfig;
use inarch_recipes::Recipe;
use serde::{Deserialize, Serialize};

use super::escort::{STATE, read_state, write_parameters, write_state};
use super::{GradientLearner, Setting};
use crate::error::Result;
use crate::strategy::{GradientConfig, Outcome};

const CARRIED: &str = "learner.json";
const TRAINED: &str = "trained.safetensors";

/// What is said about a learner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Carried {
    /// The strategy with its settings.
    pub(crate) strategy: GradientConfig,
    /// The method that is trained, which may be a part of the one that answers.
    pub(crate) method: MethodConfig,
    /// How many experiences it has learned.
    pub(crate) experiences: usize,
}

impl Carried {
    /// Of a version's folder; `None` where the adapter is all there is.
    pub(crate) fn of(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(CARRIED);
        Ok(if path.is_file() { Some(file::read_json(&path, "learner state")?) } else { None })
    }

    /// The files of a version's folder that belong to it.
    pub(crate) fn files(folder: &Path) -> Result<Vec<PathBuf>> {
        let own = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name == CARRIED || name == TRAINED || name.starts_with(STATE)
        };
        Ok(file::list(folder)?.into_iter().filter(own).collect())
    }
}

impl GradientLearner {
    /// Writes what the next version must go on from, if the adapter and the memory are not all of it.
    pub(crate) fn hand_on(&self, folder: &Path, experiences: usize) -> Result<()> {
        let Some(Outcome { trained, answer, method }) = &self.trained else { return Ok(()) };
        let (trained, state) = (trained.parameters(), self.strategy.state());
        if method.is_none() && state.is_empty() && trained == answer.parameters() {
            return Ok(());
        }
        write_parameters(&folder.join(TRAINED), &trained)?;
        write_state(&*self.strategy, folder)?;
        let carried =
            Carried { strategy: self.config.clone(), method: self.recipe.method.clone(), experiences: experiences + 1 };
        Ok(file::write_json(&folder.join(CARRIED), &carried)?)
    }

    /// Goes on from what a version handed on: from its state where that is of the same strategy, else from the adapter in training alone.
    ///
    /// # Errors
    /// A strategy that would lose what was learned by that, and files that are damaged.
    pub(crate) fn take_up(&mut self, carried: &Carried, folder: &Path, setting: &Setting<'_>) -> Result<()> {
        let takes_state = self.config.takes_up_state_of(&carried.strategy)?;
        let path = folder.join(TRAINED);
        let (parameters, _) = read_safetensors(&path)?;
        let recipe = Recipe { seed: setting.seed, ..self.recipe.clone() };
        let fresh = setting.session.fresh_adapter(&recipe, &self.classes)?.without_autodiff();
        let trained = fresh.with_parameters(parameters, setting.session.backbone().device());
        let trained = trained.map_err(|reason| inarch_core::Error::malformed("saved adapter", &path, reason))?;
        self.trained = Some(Outcome::of(trained));
        if takes_state {
            read_state(&mut *self.strategy, folder)?;
        } else {
            let (own, before) = (self.config.name(), carried.strategy.name());
            let line = format!("`{own}` goes on from the adapter; what `{before}` kept beside it is left behind");
            setting.session.control().progress.say(&line);
        }
        Ok(())
    }
}
