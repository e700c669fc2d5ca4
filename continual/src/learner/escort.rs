//! A strategy as the training loop meets it, and its state on disk.

use std::collections::BTreeMap;
use std::path::Path;

use inarch_core::checkpoint::{Precision, encode_safetensors, read_safetensors};
use inarch_core::{Seed, file};
use inarch_peft::{Loss, Parameters};
use inarch_recipes::{Change, Companion, Moment};

use crate::memory::Memory;
use crate::strategy::{Episode, Strategy};

/// What files of a strategy's state begin with.
pub(super) const STATE: &str = "strategy-";

/// A strategy beside a training.
pub(super) struct Escort<'a> {
    pub(super) strategy: &'a mut dyn Strategy,
    pub(super) episode: &'a Episode<'a>,
    pub(super) memory: Option<&'a Memory>,
    pub(super) draws: Seed,
}

impl Companion for Escort<'_> {
    fn rehearse(&self, step: usize) -> Vec<usize> {
        self.memory.map_or_else(Vec::new, |memory| self.strategy.rehearse(memory, self.draws.split(step)))
    }

    fn foresees(&self) -> bool {
        self.strategy.foresees()
    }

    fn rate(&self, parameter: &str) -> f64 {
        self.strategy.rate(&self.episode.recipe.method, parameter)
    }

    fn loss(&self, moment: &Moment<'_>) -> Loss {
        self.strategy.loss(moment, self.episode)
    }

    fn watches(&self) -> bool {
        self.strategy.watches()
    }

    fn stepped(&mut self, change: &Change<'_>) {
        self.strategy.stepped(change);
    }

    fn save(&self, folder: &Path) -> inarch_recipes::Result<()> {
        write_state(&*self.strategy, folder)
    }

    fn load(&mut self, folder: &Path) -> inarch_recipes::Result<()> {
        read_state(self.strategy, folder)
    }
}

pub(super) fn write_state(strategy: &dyn Strategy, folder: &Path) -> inarch_recipes::Result<()> {
    for (name, parameters) in strategy.state() {
        write_parameters(&folder.join(format!("{STATE}{name}.safetensors")), &parameters)?;
    }
    Ok(())
}

pub(super) fn read_state(strategy: &mut dyn Strategy, folder: &Path) -> inarch_recipes::Result<()> {
    let mut state = BTreeMap::new();
    for path in file::list(folder)? {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(name) = name.strip_prefix(STATE) {
            state.insert(name.to_string(), read_safetensors(&path)?.0);
        }
    }
    strategy.restore(state);
    Ok(())
}

pub(super) fn write_parameters(path: &Path, parameters: &Parameters) -> inarch_core::Result<()> {
    file::write(path, &encode_safetensors(parameters, BTreeMap::new(), Precision::F32)?)
}
