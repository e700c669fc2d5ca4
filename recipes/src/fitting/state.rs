//! The state of a run on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use inarch_core::checkpoint::{Precision, encode_safetensors, read_safetensors};
use inarch_core::file;
use serde::{Deserialize, Serialize};

use super::Fitting;
use crate::error::Result;
use crate::saved_run::{SavedRun, load_optimizer, save_optimizer};

/// Files of a saved state.
const ADAPTER: &str = "adapter.safetensors";
const AVERAGE: &str = "average.safetensors";
const OPTIMIZER: &str = "optimizer.bin";
const LOSSES: &str = "losses.json";
const PAST: &str = "past.json";

/// What a report tells of the steps before.
#[derive(Serialize, Deserialize)]
struct Past {
    seconds: f64,
    skipped: Vec<String>,
    unread: BTreeSet<usize>,
}

impl Fitting<'_> {
    /// Saves the state of the current step.
    pub(crate) fn keep(&self, run: &SavedRun) -> Result<()> {
        run.save(self.step, |into| self.save(into))
    }

    fn save(&self, into: &Path) -> Result<()> {
        for (name, parameters) in [(ADAPTER, &self.adapter.parameters()), (AVERAGE, &self.average)] {
            let bytes = encode_safetensors(parameters, BTreeMap::new(), Precision::F32)?;
            file::write(&into.join(name), &bytes)?;
        }
        save_optimizer(&self.optimizer, &into.join(OPTIMIZER))?;
        if let Some(companion) = &self.companion {
            companion.save(into)?;
        }
        let past = Past {
            seconds: self.before + self.began.elapsed().as_secs_f64() - self.encode,
            skipped: self.skipped.clone(),
            unread: self.unread.clone(),
        };
        file::write_json(&into.join(PAST), &past)?;
        Ok(file::write_json(&into.join(LOSSES), &self.losses)?)
    }

    pub(crate) fn load(&mut self, step: usize, from: &Path) -> Result<()> {
        let (tensors, _) = read_safetensors(&from.join(ADAPTER))?;
        let device = self.session.backbone.device().clone().autodiff();
        self.adapter = self
            .adapter
            .clone()
            .with_parameters(tensors, &device)
            .map_err(|reason| inarch_core::Error::malformed("saved adapter", from, reason))?;
        (self.average, _) = read_safetensors(&from.join(AVERAGE))?;
        self.optimizer = load_optimizer(self.optimizer.clone(), &from.join(OPTIMIZER))?;
        self.losses = file::read_json(&from.join(LOSSES), "loss history")?;
        if from.join(PAST).is_file() {
            // An earlier version kept none.
            let Past { seconds, skipped, unread } = file::read_json(&from.join(PAST), "past of a run")?;
            (self.before, self.skipped, self.unread) = (seconds, skipped, unread);
        }
        if let Some(companion) = &mut self.companion {
            companion.load(from)?;
        }
        self.step = step;
        self.enter_stages(0);
        Ok(())
    }
}
