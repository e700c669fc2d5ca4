//! Learning by adding up: nothing is forgotten, because the statistics of what came before stay.

use std::path::Path;

use inarch_core::file;
use inarch_peft::{Artifact, MethodConfig, Rows, Statistics};
use serde::{Deserialize, Serialize};

use super::head::{empty_statistics, solve_head};
use super::{Arrival, Learner, Setting};
use crate::error::{Error, Result};

const STATISTICS: &str = "statistics.safetensors";
const STATE: &str = "learner.json";

/// An analytic head.
#[derive(Debug)]
pub struct AnalyticLearner {
    method: MethodConfig,
    classes: Vec<String>,
    statistics: Option<Statistics>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    method: MethodConfig,
    classes: Vec<String>,
}

impl AnalyticLearner {
    /// A learner that knows nothing.
    pub fn new(method: MethodConfig) -> Self {
        Self { method, classes: Vec::new(), statistics: None }
    }

    fn statistics(&self) -> Result<&Statistics> {
        self.statistics.as_ref().ok_or_else(|| Error::setting("learner", "nothing has been learned yet"))
    }
}

impl Learner for AnalyticLearner {
    fn learn(&mut self, arrival: &Arrival<'_>, setting: &Setting<'_>, _folder: &Path) -> Result<()> {
        let dim = setting.session.backbone().spec().dim;
        let mut statistics = match self.statistics.take() {
            Some(statistics) => statistics,
            None => empty_statistics(&self.method, dim)?,
        };
        // Sums do not care about chunks, so an online stream is learned in one go.
        let features = setting.session.features(arrival.train)?;
        let examples = features.kept.iter().map(|position| &arrival.train[*position]);
        let (ids, classes): (Vec<String>, Vec<String>) =
            examples.map(|example| (example.id.clone(), arrival.classes[example.label].clone())).unzip();
        statistics.add(&Rows { ids: &ids, classes: &classes, features: &features.values })?;
        self.statistics = Some(statistics);
        self.classes = arrival.classes.to_vec();
        Ok(())
    }

    fn artifact(&self, setting: &Setting<'_>) -> Result<Artifact> {
        let backbone = setting.session.backbone();
        let read = (setting.templates, setting.session.dataset().clips.as_ref());
        solve_head(backbone, &self.method, self.statistics()?, &self.classes, read)
    }

    fn save(&self, folder: &Path) -> Result<()> {
        file::write(&folder.join(STATISTICS), &self.statistics()?.encode())?;
        let state = State { method: self.method.clone(), classes: self.classes.clone() };
        Ok(file::write_json(&folder.join(STATE), &state)?)
    }

    fn load(&mut self, folder: &Path, _setting: &Setting<'_>) -> Result<()> {
        let State { classes, .. } = file::read_json(&folder.join(STATE), "learner state")?;
        self.statistics = Some(Statistics::decode(&file::read(&folder.join(STATISTICS))?)?);
        self.classes = classes;
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.statistics.as_ref().map_or(0, |statistics| statistics.encode().len() as u64)
    }
}
