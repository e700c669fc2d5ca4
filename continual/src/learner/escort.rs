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
        let Some(memory) = self.memory else { return Vec::new() };
        let draws = self.draws.split(step);
        in_views(self.strategy.rehearse(memory, draws), self.episode.rehearsal.len(), memory.config().views, draws)
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

/// Positions among `samples` samples as positions among their views, which lie one view of all samples behind the other. The view
/// of each is drawn.
fn in_views(positions: Vec<usize>, samples: usize, views: usize, draws: Seed) -> Vec<usize> {
    if views < 2 {
        return positions;
    }
    let draws = draws.split("views");
    let view = |row: usize| (draws.hash(&row.to_string()) % views as u64) as usize;
    positions.into_iter().enumerate().map(|(row, position)| position + samples * view(row)).collect()
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

#[cfg(test)]
mod tests {
    use inarch_core::Seed;

    use super::in_views;

    #[test]
    fn each_row_has_a_view_of_its_sample_by_the_seed_alone() {
        const SAMPLES: usize = 10;
        let positions: Vec<usize> = (0..600).map(|row| row * 7 % SAMPLES).collect();
        let drawn = |views: usize, seed: u64| in_views(positions.clone(), SAMPLES, views, Seed::new(seed));
        assert_eq!(drawn(1, 3), positions, "one view is drawn as ever");
        let rows = drawn(3, 3);
        assert!(rows.iter().zip(&positions).all(|(row, position)| row % SAMPLES == *position && *row < 3 * SAMPLES));
        // 200 rows of each view are expected, with a deviation of 12.
        for view in 0..3 {
            let count = rows.iter().filter(|row| **row / SAMPLES == view).count();
            assert!((150..250).contains(&count), "view {view}: {count}");
        }
        assert_eq!(drawn(3, 3), rows);
        assert_ne!(drawn(3, 4), rows);
    }
}
