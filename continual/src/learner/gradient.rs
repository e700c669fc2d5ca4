//! Learning by steps on any method that trains, with a strategy against forgetting.

use std::collections::BTreeMap;
use std::path::Path;

use inarch_core::backbone::{Entry, Sites as _, Tower};
use inarch_core::checkpoint::{Precision, encode_safetensors, read_safetensors};
use inarch_core::data::{Example, Source};
use inarch_core::{Digest, Seed, file};
use inarch_peft::{Adapter, Artifact, Loss, Parameters, Provenance};
use inarch_recipes::{Budget, Change, Companion, Learned, Moment, Recipe, Task};

use super::{Arrival, Learner, Setting};
use crate::error::{Error, Result};
use crate::memory::{Content, Fingerprint, Memory, MemoryConfig, Sample};
use crate::strategy::{Episode, GradientConfig, Outcome, Scope, Strategy};

const ADAPTER: &str = "adapter.safetensors";
const ANSWER: &str = "answer.safetensors";
const MEMORY: &str = "memory.inarch";
const CLASSES: &str = "classes.json";
/// What files of a strategy's state begin with.
const STATE: &str = "strategy-";

/// An adapter in training, a strategy and, where the strategy rehearses, a memory.
pub struct GradientLearner {
    config: GradientConfig,
    recipe: Recipe,
    memory_config: MemoryConfig,
    strategy: Box<dyn Strategy>,
    memory: Option<Memory>,
    classes: Vec<String>,
    /// What training goes on from, and what answers.
    trained: Option<Outcome>,
}

/// The strategy as the training loop meets it.
struct Escort<'a> {
    strategy: &'a mut dyn Strategy,
    episode: &'a Episode<'a>,
    memory: Option<&'a Memory>,
    draws: Seed,
}

impl Companion for Escort<'_> {
    fn rehearse(&self, step: usize) -> Vec<usize> {
        let (Some(memory), Some(rows)) = (self.memory, self.strategy.rehearsal()) else { return Vec::new() };
        let draw = |draw: usize| memory.draw(rows.rows, self.draws.split(step).split(draw));
        (0..rows.draws).flat_map(draw).collect()
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

fn write_state(strategy: &dyn Strategy, folder: &Path) -> inarch_recipes::Result<()> {
    for (name, parameters) in strategy.state() {
        write_parameters(&folder.join(format!("{STATE}{name}.safetensors")), &parameters)?;
    }
    Ok(())
}

fn read_state(strategy: &mut dyn Strategy, folder: &Path) -> inarch_recipes::Result<()> {
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

fn write_parameters(path: &Path, parameters: &Parameters) -> inarch_core::Result<()> {
    file::write(path, &encode_safetensors(parameters, BTreeMap::new(), Precision::F32)?)
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
        self.trained = Some(Outcome { trained: adapter.clone(), answer: adapter });
        self.classes = classes;
        self.memory = memory;
        self
    }

    /// The memory, where the strategy keeps one.
    pub fn memory(&self) -> Option<&Memory> {
        self.memory.as_ref()
    }

    fn answer(&self) -> Result<&Adapter> {
        let trained = self.trained.as_ref().map(|trained| &trained.answer);
        trained.ok_or_else(|| Error::setting("learner", "nothing has been learned yet"))
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
            _ if arrival.chunk.is_some() => *budget = Budget::Epochs(1),
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

    /// The samples of the memory as examples.
    fn rehearsal(&self, classes: &[String], setting: &Setting<'_>, folder: &Path) -> Result<Vec<Example>> {
        let Some(memory) = &self.memory else { return Ok(Vec::new()) };
        let example = |sample: &Sample| -> Result<Option<Example>> {
            let Some(label) = classes.iter().position(|class| *class == sample.class) else { return Ok(None) };
            let id = format!("memory/{}", sample.id);
            let source = match &sample.image {
                Some(bytes) => {
                    let path = folder.join("rehearsed").join(format!("{:016x}.img", Seed::new(0).hash(&sample.id)));
                    if !path.is_file() {
                        file::write(&path, bytes)?;
                    }
                    Source::Image(path)
                }
                None => {
                    setting.session.give(&id, sample.latent.clone());
                    Source::Row(0)
                }
            };
            Ok(Some(Example::new(id, source, label)))
        };
        memory.samples().filter_map(|sample| example(sample).transpose()).collect()
    }

    /// Offers what was learned to the memory.
    fn remember(
        &mut self,
        arrival: &Arrival<'_>,
        train: &[Example],
        setting: &Setting<'_>,
        recipe: &Recipe,
    ) -> Result<()> {
        if self.strategy.rehearsal().is_none() && self.config.scope() != Scope::Memory {
            return Ok(());
        }
        let session = setting.session;
        let mut memory = match self.memory.take() {
            Some(memory) => memory,
            None => {
                let adapter = self.answer()?;
                let whole = adapter.entry(Tower::Image) < Entry::Feature;
                let content = if whole { Content::Images } else { self.memory_config.content };
                Memory::new(MemoryConfig { content, ..self.memory_config }, Fingerprint::of(session.backbone()))?
            }
        };
        let features = session.features(train)?;
        let losses = self.losses(train, arrival, setting, recipe, &memory)?;
        let mut samples = Vec::new();
        for (row, position) in features.kept.iter().enumerate() {
            let example = &train[*position];
            let image = match &example.source {
                Source::Image(path) if memory.config().content == Content::Images => Some(file::read(path)?),
                _ => None,
            };
            samples.push(Sample {
                id: example.id.clone(),
                class: arrival.classes[example.label].clone(),
                source: arrival.source.into(),
                time: arrival.time,
                weight: losses.get(*position).copied().unwrap_or(1.0),
                latent: features.values[row * features.dim..(row + 1) * features.dim].to_vec(),
                image,
                scores: Vec::new(),
            });
        }
        memory.offer(samples)?;
        self.memory = Some(memory);
        Ok(())
    }

    /// The loss of each example, for a sampler that asks.
    fn losses(
        &self,
        train: &[Example],
        arrival: &Arrival<'_>,
        setting: &Setting<'_>,
        recipe: &Recipe,
        memory: &Memory,
    ) -> Result<Vec<f32>> {
        if memory.config().sampler != crate::memory::Sampler::LossAware {
            return Ok(Vec::new());
        }
        let scores = setting.session.scores((recipe, arrival.classes, self.answer()?), train)?;
        let columns = arrival.classes.len();
        let loss = |(row, example): (&[f32], &Example)| {
            let greatest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f32 = row.iter().map(|score| (score - greatest).exp()).sum();
            (greatest + sum.ln() - row[example.label]).max(1e-3)
        };
        Ok(scores.chunks_exact(columns).zip(train).map(loss).collect())
    }

    fn learn_part(
        &mut self,
        arrival: &Arrival<'_>,
        (part, train): (usize, &[Example]),
        setting: &Setting<'_>,
        folder: &Path,
    ) -> Result<()> {
        let recipe = self.recipe(arrival, setting, part);
        let scope = self.config.scope();
        if scope == Scope::Memory {
            // The memory first: it is all that is trained on.
            if self.trained.is_none() {
                let fresh = self.grown(&recipe, arrival, setting)?.without_autodiff();
                self.trained = Some(Outcome { trained: fresh.clone(), answer: fresh });
            }
            self.remember(arrival, train, setting, &recipe)?;
        }
        let rehearsal = self.rehearsal(arrival.classes, setting, folder)?;
        let examples = match scope {
            Scope::Arrival => train.to_vec(),
            Scope::Everything => arrival.earlier.iter().chain(train).cloned().collect(),
            Scope::Memory => rehearsal.clone(),
        };
        let start = match scope {
            Scope::Arrival => self.grown(&recipe, arrival, setting)?,
            Scope::Everything | Scope::Memory => {
                setting.session.fresh_adapter(&Recipe { seed: setting.seed, ..recipe.clone() }, arrival.classes)?
            }
        };
        let memory = self.memory.as_ref();
        let episode = Episode {
            session: setting.session,
            recipe: &recipe,
            index: arrival.index,
            classes: arrival.classes,
            before: self.classes.len(),
            start: &start,
            teacher: self.trained.as_ref().map(|trained| &trained.trained),
            initial: &setting
                .session
                .fresh_adapter(&Recipe { seed: setting.seed, ..recipe.clone() }, arrival.classes)?,
            train: &examples,
            memory,
        };
        self.strategy.begin(&episode)?;
        let rehearses = self.strategy.rehearsal().is_some();
        let task = Task {
            recipe: &recipe,
            classes: arrival.classes,
            train: examples.clone(),
            rehearsal: if rehearses { rehearsal.clone() } else { Vec::new() },
            start: Some(start.clone()),
            identity: Digest::of(serde_json::to_string(&self.config).unwrap_or_default().as_bytes()),
        };
        let draws = Seed::new(recipe.seed).split("rehearsal");
        let mut escort = Escort { strategy: &mut *self.strategy, episode: &episode, memory, draws };
        let Learned { adapter, .. } =
            setting.session.learn(task, &mut escort, &folder.join(format!("training-{part}")))?;
        let trained = self.strategy.end(&episode, adapter)?;
        self.trained = Some(trained);
        self.classes = arrival.classes.to_vec();
        if scope != Scope::Memory {
            self.remember(arrival, train, setting, &recipe)?;
        }
        self.record_scores(arrival, setting, &recipe, folder)
    }

    /// Writes the scores of the samples that came now into the memory, where the strategy holds on to scores.
    fn record_scores(
        &mut self,
        arrival: &Arrival<'_>,
        setting: &Setting<'_>,
        recipe: &Recipe,
        folder: &Path,
    ) -> Result<()> {
        if !self.strategy.holds_scores() || self.memory.is_none() {
            return Ok(());
        }
        let examples = self.rehearsal(arrival.classes, setting, folder)?;
        let unscored = self.memory.iter().flat_map(|memory| memory.samples()).map(|sample| sample.scores.is_empty());
        let examples: Vec<Example> =
            examples.into_iter().zip(unscored).filter_map(|(example, unscored)| unscored.then_some(example)).collect();
        if examples.is_empty() {
            return Ok(());
        }
        let scores = setting.session.scores((recipe, arrival.classes, self.answer()?), &examples)?;
        let rows = scores.chunks_exact(arrival.classes.len()).map(<[f32]>::to_vec);
        let named = examples.iter().map(|example| example.id.trim_start_matches("memory/").to_string()).zip(rows);
        if let Some(memory) = &mut self.memory {
            memory.set_scores(named);
        }
        Ok(())
    }
}

impl Learner for GradientLearner {
    fn learn(&mut self, arrival: &Arrival<'_>, setting: &Setting<'_>, folder: &Path) -> Result<()> {
        let chunk = arrival.chunk.unwrap_or(arrival.train.len()).max(1);
        // The upper bound is not online: it is given all at once.
        let chunk = if self.config.scope() == Scope::Everything { arrival.train.len().max(1) } else { chunk };
        for (part, train) in arrival.train.chunks(chunk).enumerate() {
            self.learn_part(arrival, (part, train), setting, folder)?;
        }
        Ok(())
    }

    fn artifact(&self, setting: &Setting<'_>) -> Result<Artifact> {
        let provenance = Provenance {
            classes: self.classes.clone(),
            templates: setting.templates.to_vec(),
            data: None,
            metrics: BTreeMap::new(),
        };
        let adapter = self.answer()?.clone().without_autodiff();
        Ok(Artifact::new(adapter, self.recipe.method.clone(), setting.session.backbone(), provenance)?)
    }

    fn save(&self, folder: &Path) -> Result<()> {
        let Some(Outcome { trained, answer }) = &self.trained else {
            return Err(Error::setting("learner", "nothing has been learned yet"));
        };
        write_parameters(&folder.join(ADAPTER), &trained.parameters())?;
        write_parameters(&folder.join(ANSWER), &answer.parameters())?;
        write_state(&*self.strategy, folder)?;
        if let Some(memory) = &self.memory {
            memory.save(&folder.join(MEMORY), None)?;
        }
        Ok(file::write_json(&folder.join(CLASSES), &self.classes)?)
    }

    fn load(&mut self, folder: &Path, setting: &Setting<'_>) -> Result<()> {
        self.classes = file::read_json(&folder.join(CLASSES), "learner state")?;
        let recipe = Recipe { seed: setting.seed, ..self.recipe.clone() };
        let fresh = setting.session.fresh_adapter(&recipe, &self.classes)?.without_autodiff();
        let device = setting.session.backbone().device();
        let read = |name: &str| -> Result<Adapter> {
            let path = folder.join(name);
            let (parameters, _) = read_safetensors(&path)?;
            let adapter = fresh.clone().with_parameters(parameters, device);
            adapter.map_err(|reason| inarch_core::Error::malformed("saved adapter", &path, reason).into())
        };
        self.trained = Some(Outcome { trained: read(ADAPTER)?, answer: read(ANSWER)? });
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
