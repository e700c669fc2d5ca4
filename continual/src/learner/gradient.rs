//! Learning by steps on any method that trains, with a strategy against forgetting.

use std::collections::BTreeMap;
use std::path::Path;

use inarch_core::checkpoint::read_safetensors;
use inarch_core::data::Example;
use inarch_core::{Digest, Seed, file};
use inarch_peft::{Adapter, Artifact, MethodConfig, Parameters, Provenance};
use inarch_recipes::{Budget, Learned, Recipe, Task};

use super::escort::{Escort, read_state, write_parameters, write_state};
use super::recall::centre;
use super::{Arrival, Learner, Setting};
use crate::error::{Error, Result};
use crate::memory::{Memory, MemoryConfig};
use crate::strategy::{Beginning, Episode, GradientConfig, Offer, Outcome, Scope, Strategy};

const ADAPTER: &str = "adapter.safetensors";
const ANSWER: &str = "answer.safetensors";
const MEMORY: &str = "memory.inarch";
const CLASSES: &str = "classes.json";
const METHOD: &str = "answer.json";

/// What of an arrival is learned in one training.
#[derive(Clone, Copy)]
struct Part<'a> {
    number: usize,
    count: usize,
    train: &'a [Example],
    /// The adapter before the arrival, and how many classes were known then.
    teacher: Option<&'a Adapter>,
    known: usize,
}

/// An adapter in training, a strategy and, where the strategy rehearses, a memory.
pub struct GradientLearner {
    pub(super) config: GradientConfig,
    pub(super) recipe: Recipe,
    pub(super) memory_config: MemoryConfig,
    pub(super) strategy: Box<dyn Strategy>,
    pub(super) memory: Option<Memory>,
    pub(super) classes: Vec<String>,
    /// What training goes on from, and what answers.
    pub(super) trained: Option<Outcome>,
}

impl GradientLearner {
    /// A learner that knows nothing.
    pub fn new(config: GradientConfig, recipe: Recipe, memory_config: MemoryConfig) -> Self {
        let strategy = config.build();
        Self { config, recipe, memory_config, strategy, memory: None, classes: Vec::new(), trained: None }
    }

    /// Goes on from an adapter that was trained elsewhere, with the memory that belongs to it.
    #[must_use]
    pub fn going_on(mut self, adapter: Adapter, classes: Vec<String>, memory: Option<Memory>) -> Self {
        self.trained = Some(Outcome::of(adapter));
        self.classes = classes;
        self.memory = memory;
        self
    }

    /// The memory, where the strategy keeps one.
    pub fn memory(&self) -> Option<&Memory> {
        self.memory.as_ref()
    }

    /// What answers, and by which method.
    pub(super) fn answer(&self) -> Result<(&MethodConfig, &Adapter)> {
        let Some(Outcome { answer, method, .. }) = &self.trained else {
            return Err(Error::setting("learner", "nothing has been learned yet"));
        };
        Ok((method.as_ref().unwrap_or(&self.recipe.method), answer))
    }

    /// The settings of one training.
    fn recipe(&self, arrival: &Arrival<'_>, setting: &Setting<'_>, part: usize) -> Recipe {
        let mut recipe = self.recipe.clone();
        // Fresh rows of new classes are drawn from the same seed as those of old ones; the order of examples is not.
        recipe.seed = Seed::new(setting.seed).split("training").split(arrival.index).split(part).value();
        recipe.shots = None;
        let budget = &mut recipe.train.budget;
        match (self.config.scope(), *budget) {
            (Scope::Everything, Budget::Iterations(steps)) => *budget = Budget::Iterations(steps * (arrival.index + 1)),
            (Scope::Arrival, _) if arrival.chunk.is_some() => *budget = Budget::Epochs(1),
            _ => {}
        }
        recipe
    }

    /// The adapter for all classes known now, with the values of those known before.
    fn grown(&self, recipe: &Recipe, arrival: &Arrival<'_>, setting: &Setting<'_>) -> Result<Adapter> {
        let initial = Recipe { seed: setting.seed, ..recipe.clone() };
        let fresh = setting.session.fresh_adapter(&initial, arrival.classes)?;
        let Some(Outcome { trained, .. }) = &self.trained else { return Ok(fresh) };
        let device = setting.session.backbone().device().clone().autodiff();
        let (before, after) = (self.classes.len(), arrival.classes.len());
        fresh.grown_from(&trained.parameters(), before, after, &device).map_err(|reason| {
            Error::setting(
                format!("method `{}`", recipe.method.name()),
                format!("it cannot take on new classes: {reason}"),
            )
        })
    }

    fn learn_part(
        &mut self,
        arrival: &Arrival<'_>,
        Part { number: part, count, train, teacher, known }: Part<'_>,
        setting: &Setting<'_>,
        folder: &Path,
    ) -> Result<()> {
        self.check_views(arrival, setting)?;
        let recipe = self.recipe(arrival, setting, part);
        let scope = self.config.scope();
        if scope == Scope::Memory {
            // The memory first: it is all that is trained on.
            if self.trained.is_none() {
                self.trained = Some(Outcome::of(self.grown(&recipe, arrival, setting)?.without_autodiff()));
            }
            let (mut memory, samples, _) = self.offered(arrival, train, setting, &recipe)?;
            memory.offer(samples)?;
            self.memory = Some(memory);
        }
        let memory = self.rehearsed(arrival, train, setting)?;
        let views = Self::in_views(memory.as_ref(), arrival.classes, setting);
        let rehearsal = centre(&views, memory.as_ref());
        let examples = match scope {
            Scope::Arrival => self.open(train),
            Scope::Everything => arrival.earlier.iter().chain(train).cloned().collect(),
            Scope::Memory => rehearsal.to_vec(),
        };
        let initial =
            setting.session.fresh_adapter(&Recipe { seed: setting.seed, ..recipe.clone() }, arrival.classes)?;
        let start = match scope {
            Scope::Arrival => self.grown(&recipe, arrival, setting)?,
            Scope::Everything | Scope::Memory => initial.clone(),
        };
        let beginning = Beginning {
            session: setting.session,
            recipe: &recipe,
            classes: arrival.classes,
            grown: &start,
            train: &examples,
        };
        let (recipe, start) = match self.strategy.start(&beginning)? {
            Some((method, start)) => (Recipe { method, ..recipe }, start),
            None => (recipe, start),
        };
        let episode = Episode {
            session: setting.session,
            recipe: &recipe,
            index: arrival.index,
            training: part,
            trainings: count,
            time: arrival.time,
            classes: arrival.classes,
            before: known,
            start: &start,
            teacher,
            initial: &initial,
            train: &examples,
            memory: memory.as_ref(),
            rehearsal,
            views: &views,
        };
        self.strategy.begin(&episode)?;
        let rehearses = self.rehearses();
        let task = Task {
            recipe: &recipe,
            classes: arrival.classes,
            train: examples.clone(),
            rehearsal: if rehearses { views.clone() } else { Vec::new() },
            views: memory.as_ref().map_or(1, |memory| memory.config().views),
            start: Some(start.clone()),
            identity: Digest::of(serde_json::to_string(&self.config).unwrap_or_default().as_bytes()),
        };
        let draws = Seed::new(recipe.seed).split("rehearsal");
        let mut escort = Escort { strategy: &mut *self.strategy, episode: &episode, memory: memory.as_ref(), draws };
        let Learned { adapter, .. } =
            setting.session.learn(task, &mut escort, &folder.join(format!("training-{part}")))?;
        let outcome = self.strategy.end(&episode, adapter)?;
        self.trained = Some(outcome.clone());
        if rehearses && scope != Scope::Memory {
            let (mut memory, samples, examples) = self.offered(arrival, train, setting, &recipe)?;
            let offer = Offer { adapter: &outcome.trained, examples: &examples, samples };
            self.strategy.remember(&episode, &mut memory, offer)?;
            self.memory = Some(memory);
        }
        let views = Self::in_views(self.memory.as_ref(), arrival.classes, setting);
        let rehearsal = centre(&views, self.memory.as_ref());
        let episode = Episode { memory: self.memory.as_ref(), rehearsal, views: &views, ..episode };
        self.trained = Some(self.strategy.settle(&episode, outcome)?);
        self.classes = arrival.classes.to_vec();
        self.record_scores(arrival, setting, &recipe)
    }
}

impl Learner for GradientLearner {
    fn learn(&mut self, arrival: &Arrival<'_>, setting: &Setting<'_>, folder: &Path) -> Result<()> {
        // The upper bound is not online, and a memory that is trained on afterwards is the same whatever the chunks.
        let chunk = arrival.chunk.filter(|_| self.config.scope() == Scope::Arrival).unwrap_or(arrival.train.len());
        let parts = arrival.train.chunks(chunk.max(1));
        let count = parts.len();
        // What is held to what was before is held to that in every chunk.
        let (before, known) = (self.trained.clone(), self.classes.len());
        let teacher = before.as_ref().map(|before| &before.trained);
        for (number, train) in parts.enumerate() {
            self.learn_part(arrival, Part { number, count, train, teacher, known }, setting, folder)?;
        }
        Ok(())
    }

    fn artifact(&self, setting: &Setting<'_>) -> Result<Artifact> {
        let provenance = Provenance {
            classes: self.classes.clone(),
            templates: setting.templates.to_vec(),
            data: None,
            clips: setting.session.dataset().clips.clone(),
            metrics: BTreeMap::new(),
        };
        let (method, adapter) = self.answer()?;
        let adapter = adapter.clone().without_autodiff();
        Ok(Artifact::new(adapter, method.clone(), setting.session.backbone(), provenance)?)
    }

    fn save(&self, folder: &Path) -> Result<()> {
        let Some(Outcome { trained, answer, method }) = &self.trained else {
            return Err(Error::setting("learner", "nothing has been learned yet"));
        };
        write_parameters(&folder.join(ADAPTER), &trained.parameters())?;
        write_parameters(&folder.join(ANSWER), &answer.parameters())?;
        if let Some(method) = method {
            file::write_json(&folder.join(METHOD), method)?;
        }
        write_state(&*self.strategy, folder)?;
        if let Some(memory) = &self.memory {
            memory.save(&folder.join(MEMORY), None)?;
        }
        Ok(file::write_json(&folder.join(CLASSES), &self.classes)?)
    }

    fn load(&mut self, folder: &Path, setting: &Setting<'_>) -> Result<()> {
        self.classes = file::read_json(&folder.join(CLASSES), "learner state")?;
        let method: Option<MethodConfig> = match folder.join(METHOD) {
            path if path.is_file() => Some(file::read_json(&path, "method of the answer")?),
            _ => None,
        };
        let read = |name: &str, method: &MethodConfig| -> Result<Adapter> {
            let path = folder.join(name);
            let (parameters, _) = read_safetensors(&path)?;
            let recipe = Recipe { seed: setting.seed, method: method.clone(), ..self.recipe.clone() };
            let fresh = setting.session.fresh_adapter(&recipe, &self.classes)?.without_autodiff();
            let adapter = fresh.with_parameters(parameters, setting.session.backbone().device());
            adapter.map_err(|reason| inarch_core::Error::malformed("saved adapter", &path, reason).into())
        };
        let own = &self.recipe.method;
        let (trained, answer) = (read(ADAPTER, own)?, read(ANSWER, method.as_ref().unwrap_or(own))?);
        self.trained = Some(Outcome { trained, answer, method });
        read_state(&mut *self.strategy, folder)?;
        let memory = folder.join(MEMORY);
        self.memory = if memory.is_file() { Some(Memory::load(&memory, None)?) } else { None };
        Ok(())
    }

    fn bytes(&self) -> u64 {
        let values =
            |parameters: &Parameters| parameters.values().map(|tensor| 4 * tensor.data.len() as u64).sum::<u64>();
        let adapter = self.trained.as_ref().map_or(0, |trained| values(&trained.trained.parameters()));
        let state: u64 = self.strategy.state().values().map(values).sum();
        adapter + state + self.memory.as_ref().map_or(0, Memory::bytes)
    }
}
