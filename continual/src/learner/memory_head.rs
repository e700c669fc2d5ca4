//! A head solved anew on what the memory holds. With herding and class means: the nearest mean of exemplars of iCaRL.

use std::path::Path;

use inarch_core::file;
use inarch_peft::{Artifact, MethodConfig, Rows};

use super::head::{empty_statistics, solve_head};
use super::{Arrival, Learner, Setting};
use crate::error::{Error, Result};
use crate::memory::{Fingerprint, Memory, MemoryConfig, Sample};

const MEMORY: &str = "memory.inarch";
const CLASSES: &str = "classes.json";

/// A memory and the analytic method that its samples are given to.
#[derive(Debug)]
pub struct MemoryHeadLearner {
    method: MethodConfig,
    config: MemoryConfig,
    classes: Vec<String>,
    memory: Option<Memory>,
}

impl MemoryHeadLearner {
    /// A learner that knows nothing.
    pub fn new(method: MethodConfig, config: MemoryConfig) -> Self {
        Self { method, config, classes: Vec::new(), memory: None }
    }

    fn memory(&self) -> Result<&Memory> {
        self.memory.as_ref().ok_or_else(|| Error::setting("learner", "nothing has been learned yet"))
    }
}

impl Learner for MemoryHeadLearner {
    fn learn(&mut self, arrival: &Arrival<'_>, setting: &Setting<'_>, _folder: &Path) -> Result<()> {
        let backbone = setting.session.backbone();
        let mut memory = match self.memory.take() {
            Some(memory) => memory,
            None => Memory::new(self.config, Fingerprint::of(backbone, setting.session.dataset().window))?,
        };
        let features = setting.session.features(arrival.train)?;
        let rows = features.values.chunks_exact(features.dim).zip(&features.kept);
        memory.offer(rows.map(|(latent, position)| {
            let example = &arrival.train[*position];
            Sample {
                id: example.id.clone(),
                class: arrival.classes[example.label].clone(),
                source: arrival.source.into(),
                time: arrival.time,
                weight: 1.0,
                latent: latent.to_vec(),
                views: Vec::new(),
                image: None,
                scores: Vec::new(),
            }
        }))?;
        self.memory = Some(memory);
        self.classes = arrival.classes.to_vec();
        Ok(())
    }

    fn artifact(&self, setting: &Setting<'_>) -> Result<Artifact> {
        let backbone = setting.session.backbone();
        let memory = self.memory()?;
        let mut statistics = empty_statistics(&self.method, backbone.spec().dim)?;
        let (ids, classes): (Vec<String>, Vec<String>) =
            memory.samples().map(|sample| (sample.id.clone(), sample.class.clone())).unzip();
        let features: Vec<f32> = memory.samples().flat_map(|sample| sample.latent.iter().copied()).collect();
        statistics.add(&Rows { ids: &ids, classes: &classes, features: &features })?;
        let read = (setting.templates, setting.session.dataset().clips.as_ref());
        solve_head(backbone, &self.method, &statistics, &self.classes, read)
    }

    fn save(&self, folder: &Path) -> Result<()> {
        self.memory()?.save(&folder.join(MEMORY), None)?;
        Ok(file::write_json(&folder.join(CLASSES), &self.classes)?)
    }

    fn load(&mut self, folder: &Path, _setting: &Setting<'_>) -> Result<()> {
        self.memory = Some(Memory::load(&folder.join(MEMORY), None)?);
        self.classes = file::read_json(&folder.join(CLASSES), "learner state")?;
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.memory.as_ref().map_or(0, Memory::bytes)
    }
}
