//! The training loop of an adapter: batches, gradients, optimizer, saved state.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::Tensor;
use inarch_core::backbone::{Entry, Frames, Frozen, Partial, Pass, Sites as _, Tower, normalise, values};
use inarch_core::checkpoint::{Precision, encode_safetensors, read_safetensors};
use inarch_core::data::{Example, Purpose};
use inarch_core::image::{ImageBatch, ImageJob, Loader, View};
use inarch_core::{Seed, file};
use inarch_peft::{Adapter, Correction, Loss, Parameters, Step};

use crate::balance::{Imbalance, balanced_order};
use crate::clips::{frames, jobs, whole};
use crate::companion::{Change, Companion, Foresight, Moment};
use crate::encode::{ImageFeatures, Views};
use crate::error::{Error, Result};
use crate::gradient::{accumulate, by_rate, copied, corrected};
use crate::objective::{Images, Objective, TextSide, Texts};
use crate::plan::{KEPT_BYTES, kept_bytes, stored_entry, stored_views};
use crate::recipe::Recipe;
use crate::saved_run::{SAVE_SECONDS, SavedRun, load_optimizer, save_optimizer};
use crate::schedule::learning_rate;
use crate::session::Session;
use crate::shards::{Shard, ShardCounts, ShardFeatures, Shards, shard_size, sharded_gradients};
use crate::task::views_of;

/// Bytes of decoded training images that are kept in memory.
const CACHE_BYTES: usize = 512 << 20;

/// Tokens that the images of a shard meet at most, but for a single image.
const SHARD_TOKENS: usize = 1 << 12;

/// A run on its way.
pub(crate) struct Fitting<'a> {
    session: &'a Session<'a>,
    recipe: &'a Recipe,
    pub(crate) train: Vec<Example>,
    /// How many of the examples the epochs go through; those behind are rehearsed by the companion.
    fresh: usize,
    companion: Option<&'a mut dyn Companion>,
    objective: Objective<'a>,
    /// Whether activations are too many to be kept for the way back.
    recompute: bool,
    adapter: Adapter,
    optimizer: ModuleOptimizer,
    seed: Seed,
    step: usize,
    pub(crate) steps: usize,
    steps_per_epoch: usize,
    pub(crate) losses: Vec<f32>,
    pub(crate) skipped: Vec<String>,
    /// The running average of the epochs, where the method asks for one.
    average: Parameters,
    saved: Instant,
}

/// What a finished run leaves.
pub(crate) struct Fitted {
    pub(crate) adapter: Adapter,
    /// The examples that it was trained on.
    pub(crate) train: Vec<Example>,
    /// The loss of each step.
    pub(crate) losses: Vec<f32>,
    /// Images that could not be read.
    pub(crate) skipped: Vec<String>,
}

/// Where a step's images come from.
enum ImageSide<'a> {
    /// Frozen features `[images, dim]`, for an adapter that leaves the tower alone.
    Features(Tensor<2>),
    /// The tower, from where `part` leaves each shard. `frozen` features are computed in the step when they are needed and
    /// not given.
    Towers { part: &'a (dyn Fn(usize) -> Partial + Sync), shards: usize, frozen: Option<Tensor<2>> },
}

/// Which of a step's losses a gradient is taken of.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Task,
    Guide(usize),
}

/// Scores of a step, for who asks for them.
type Scores = RefCell<Vec<f32>>;

/// What a gradient brings along: how many guides there are, and how they correct.
type Guides = Option<(usize, Correction)>;

impl Part {
    /// That loss, and the guides.
    fn of(self, loss: Loss) -> (Tensor<1>, Guides) {
        let guides = loss.guide.as_ref().map(|guide| (guide.losses.len(), guide.correction));
        let own = |at: usize| loss.guide.and_then(|guide| guide.losses.into_iter().nth(at));
        match self {
            Self::Guide(at) => (own(at).unwrap_or(loss.task), None),
            Self::Task => (loss.task, guides),
        }
    }
}

impl<'a> Fitting<'a> {
    pub(crate) fn new(
        session: &'a Session<'a>,
        recipe: &'a Recipe,
        train: Vec<Example>,
        objective: Objective<'a>,
        adapter: Adapter,
    ) -> Self {
        let (steps, steps_per_epoch) = recipe.steps(train.len());
        // A method without trained values is done when it is made, whatever the recipe allows it.
        let steps = match adapter.trainable() {
            0 => 0,
            _ => steps,
        };
        let kept = kept_bytes(session.backbone, &adapter, &objective, recipe, recipe.train.batch.min(train.len()));
        Self {
            session,
            recipe,
            recompute: kept > KEPT_BYTES,
            fresh: train.len(),
            train,
            companion: None,
            objective,
            adapter,
            optimizer: recipe.train.optimizer.build(),
            seed: Seed::new(recipe.seed),
            step: 0,
            steps,
            steps_per_epoch,
            losses: Vec::new(),
            skipped: Vec::new(),
            average: Parameters::new(),
            saved: Instant::now(),
        }
    }

    /// Lets a companion take part, with examples that it may add to batches.
    pub(crate) fn with_companion(mut self, companion: &'a mut dyn Companion, rehearsal: Vec<Example>) -> Self {
        self.train.extend(rehearsal);
        self.companion = Some(companion);
        self
    }

    /// Trains to the end; returns the seconds that went into work that is done once.
    pub(crate) fn run(&mut self, run: &SavedRun) -> Result<f64> {
        if self.step == self.steps {
            return Ok(0.0);
        }
        match stored_entry(self.session.backbone, &self.adapter, self.recipe, self.train.len()) {
            Some(entry) => self.run_stored(entry, run),
            None => self.run_images(run),
        }
    }

    /// The trained adapter, as plain values.
    pub(crate) fn finish(self) -> Result<Fitted> {
        let adapter = self.adapter.without_autodiff();
        let adapter = if self.average.is_empty() {
            adapter
        } else {
            let device = self.session.backbone.device();
            let average = self.average;
            adapter
                .with_parameters(average, device)
                .map_err(|reason| inarch_core::Error::invalid("average over epochs", reason))?
        };
        Ok(Fitted { adapter, train: self.train, losses: self.losses, skipped: self.skipped })
    }

    /// The examples of each step of an epoch, from the current step on; those that are rehearsed come last.
    fn batches(&self, epoch: usize) -> Vec<Vec<usize>> {
        let seed = self.seed.split("order").split(epoch);
        let order = if self.recipe.train.imbalance == Imbalance::BalancedSampling {
            let labels: Vec<usize> = self.train[..self.fresh].iter().map(|example| example.label).collect();
            balanced_order(&labels, seed)
        } else {
            seed.order(self.fresh)
        };
        let batch = self.recipe.train.batch.min(self.fresh);
        let rehearsed = |step: usize| {
            let positions = self.companion.as_ref().map(|companion| companion.rehearse(step)).unwrap_or_default();
            positions.into_iter().map(|position| self.fresh + position)
        };
        order
            .chunks_exact(batch)
            .take(self.steps_per_epoch)
            .skip(self.step % self.steps_per_epoch)
            .take(self.steps - self.step)
            .zip(self.step..)
            .map(|(batch, step)| batch.iter().copied().chain(rehearsed(step)).collect())
            .collect()
    }

    /// Trains on what the image tower gives short of the adapter, computed once; returns the seconds that took.
    fn run_stored(&mut self, entry: Entry, run: &SavedRun) -> Result<f64> {
        let started = Instant::now();
        let session = self.session;
        let epochs = self.steps.div_ceil(self.steps_per_epoch);
        let count = stored_views(self.recipe, epochs, session.dataset.features.is_some());
        let views = views_of(self.recipe, count);
        let store = |entry: Entry| session.frozen(entry, &self.train, &views);
        let stored = store(entry)?;
        // The same pooled features serve as frozen ones when the tower is left alone.
        let frozen = (entry < Entry::Feature && self.adapter.learner().needs_frozen_image())
            .then(|| store(Entry::Feature))
            .transpose()?;
        self.leave_out(&stored);
        let seconds = started.elapsed().as_secs_f64();
        session.control.progress.start("train", self.steps as u64);
        session.control.progress.advance(self.step as u64, "");
        while self.step < self.steps {
            let epoch = self.step / self.steps_per_epoch;
            for batch in self.batches(epoch) {
                let rows = |from: usize, to: usize| batch[from..to].iter().map(move |example| (*example, epoch));
                if entry == Entry::Feature && !session.backbone.crosses() {
                    let features = stored.gather(rows(0, batch.len()), session.backbone);
                    self.step(&ImageSide::Features(features), &batch, run)?;
                    continue;
                }
                let frozen = frozen.as_ref().map(|frozen| frozen.gather(rows(0, batch.len()), session.backbone));
                let size = self.shard_size(batch.len());
                let part = |shard: usize| {
                    let from = shard * size;
                    stored.partial(rows(from, (from + size).min(batch.len())), session.backbone)
                };
                let shards = batch.len().div_ceil(size);
                self.step(&ImageSide::Towers { part: &part, shards, frozen }, &batch, run)?;
            }
        }
        session.control.progress.finish();
        Ok(seconds)
    }

    /// Trains through the image tower; images are decoded, varied and encoded in each step.
    fn run_images(&mut self, run: &SavedRun) -> Result<f64> {
        let session = self.session;
        let loader = Loader::new(session.backbone.preprocess().clone())?
            .with_batch_size(
                self.batches(self.step / self.steps_per_epoch).first().map_or(1, Vec::len) * self.frames().count(),
            )
            .with_prefetch(4)
            .with_on_bad_image(session.policy)
            .with_cache_bytes(CACHE_BYTES);
        let augment = Arc::new(self.recipe.augment.clone());
        session.control.progress.start("train", self.steps as u64);
        session.control.progress.advance(self.step as u64, "");
        while self.step < self.steps {
            let epoch = self.step / self.steps_per_epoch;
            let view = if self.recipe.views == 0 { epoch } else { epoch % self.recipe.views };
            let seed = self.seed.split("augment");
            let batches = self.batches(epoch);
            let before = self.step;
            let jobs: Vec<ImageJob> = batches
                .iter()
                .flatten()
                .flat_map(|index| {
                    let example = &self.train[*index];
                    let seed = seed.split(&example.id).split(view);
                    let view = View::Augmented { augment: augment.clone(), seed };
                    let first = index * self.frames().count();
                    jobs(example, self.recipe.clips.as_ref(), Purpose::Train(seed), &view, first)
                })
                .collect();
            let bad = loader.run(&jobs, |batch: ImageBatch| -> Result<()> {
                let batch = whole(batch, self.frames());
                let any = !batch.indices.is_empty();
                if any && self.step < self.steps { self.image_step(&batch, run) } else { Ok(()) }
            })?;
            for bad in bad {
                let name = bad.path.display().to_string();
                if !self.skipped.contains(&name) {
                    self.skipped.push(name);
                }
            }
            if self.step == before {
                return Err(inarch_core::Error::invalid("training images", "none of them can be read").into());
            }
        }
        session.control.progress.finish();
        Ok(0.0)
    }

    fn image_step(&mut self, batch: &ImageBatch, run: &SavedRun) -> Result<()> {
        let backbone = self.session.backbone;
        let entry = self.adapter.entry(Tower::Image);
        let frames = self.frames();
        let size = self.shard_size(batch.indices.len()) * frames.count();
        let shards = Shards::new(batch, size, backbone.device());
        let part = |shard: usize| backbone.start_clips(shards.pixels(shard), frames, entry);
        self.step(&ImageSide::Towers { part: &part, shards: shards.count(), frozen: None }, &batch.indices, run)
    }

    /// A step through the towers that the adapter touches, in shards.
    fn step(&mut self, side: &ImageSide<'_>, examples: &[usize], run: &SavedRun) -> Result<()> {
        let backbone = self.session.backbone;
        let pass = self.pass();
        let (step_seed, frames) = (self.step_seed(), self.frames());
        let pairs = self.texts(examples)?;
        let parts = self.objective.text_shards(self.adapter.sites());
        let (shards, given) = match side {
            ImageSide::Features(features) => (0, Some(features)),
            ImageSide::Towers { shards, frozen, .. } => (*shards, frozen.as_ref()),
        };
        let beside = given.is_none() && self.adapter.learner().needs_frozen_image();
        // Only an adapter that leaves the images alone has texts that depend on them, and runs in shards.
        let condition = given.filter(|_| self.adapter.conditions_text()).map(|features| normalise(features.clone()));
        let size = self.shard_size(examples.len());
        let forward = |adapter: &Adapter, shard: Shard| {
            let (part, shard) = match (shard, side) {
                (Shard::Text(shard), _) => {
                    let pass =
                        Pass { condition: condition.as_ref(), ..Pass::train(step_seed.split("text").split(shard)) };
                    return parts[shard].output(backbone, adapter.sites(), &pass);
                }
                (Shard::Image(shard), ImageSide::Towers { part, .. }) => (part, shard),
                (Shard::Image(_), ImageSide::Features(_)) => unreachable!("features are not cut"),
            };
            let partial = part(shard);
            let evaluate = Pass { frames, ..Pass::evaluate() };
            let frozen = beside.then(|| backbone.finish(Tower::Image, partial.clone(), &Frozen, &evaluate));
            // What a prompt asks of the image is known already.
            let known = given.map(|frozen| {
                let all = examples.len();
                frozen.clone().narrow(0, shard * size, size.min(all - shard * size))
            });
            let query = frozen.clone().or(known).filter(|_| adapter.queries_image()).map(normalise);
            let train = Pass::train(step_seed.split(shard));
            let pass = Pass { query: query.as_ref(), frames, ..train };
            let adapted = backbone.finish(Tower::Image, partial, adapter.sites(), &pass);
            if backbone.crosses() {
                let [images, _] = adapted.dims();
                let own = (shard * size..shard * size + images, step_seed.split("words"));
                return self.objective.cross(backbone, &adapted, pairs.as_ref(), own, adapter.sites(), &pass);
            }
            // Side by side through the one channel that a shard has; nothing flows back into the frozen half.
            match frozen {
                Some(frozen) => Tensor::cat(vec![adapted, frozen], 1),
                None => adapted,
            }
        };
        let gradients = |adapter: &Adapter, foresight: Option<&Foresight>, which: Part, scores: Option<&Scores>| {
            let loss = |features: ShardFeatures| {
                let images = match side {
                    ImageSide::Features(frozen) => {
                        let adapted = adapter.feature(Tower::Image, frozen.clone(), &pass);
                        Images { adapted, frozen: Some(frozen.clone()), examples }
                    }
                    ImageSide::Towers { frozen, .. } => {
                        let image = Tensor::cat(features.images, 0);
                        let [_, width] = image.dims();
                        if beside {
                            let frozen = image.clone().narrow(1, width / 2, width / 2).without_autodiff();
                            Images { adapted: image.narrow(1, 0, width / 2), frozen: Some(frozen), examples }
                        } else {
                            Images { adapted: image, frozen: frozen.clone(), examples }
                        }
                    }
                };
                let texts = match &pairs {
                    _ if backbone.crosses() => TextSide::Met(pairs.as_ref().map(|(pairs, _)| pairs)),
                    Some((pairs, rows)) => TextSide::Pairs(pairs, rows),
                    None if parts.is_empty() => TextSide::Classes,
                    None => TextSide::Shards(features.texts),
                };
                which.of(self.loss((adapter, foresight), images, texts, &pass, scores))
            };
            let counts = ShardCounts { images: shards, texts: parts.len(), recompute: self.recompute };
            sharded_gradients(adapter, counts, forward, loss)
        };
        let foresees = self.companion.as_ref().is_some_and(|companion| companion.foresees());
        let foresight = (foresees && self.fresh_rows(examples) < examples.len()).then(|| {
            let (before, after) = (Scores::default(), Scores::default());
            let (virtual_step, _, _) = gradients(&self.adapter, None, Part::Task, Some(&before));
            let companion = self.companion.as_deref();
            let mut optimizer = self.optimizer.clone();
            let ahead = moved(&mut optimizer, self.adapter.clone(), virtual_step, self.lr(), companion);
            gradients(&ahead, None, Part::Task, Some(&after));
            Foresight { before: before.take(), after: after.take() }
        });
        let take = |which: Part| gradients(&self.adapter, foresight.as_ref(), which, None);
        let (gradients, value) = self.guided(take);
        self.apply(gradients, value, run)
    }

    /// The gradients of the task's loss, corrected by the guides' where there are any.
    fn guided(&self, take: impl Fn(Part) -> (GradientsParams, f32, Guides)) -> (GradientsParams, f32) {
        let (task, value, guides) = take(Part::Task);
        let Some((count, correction)) = guides else { return (task, value) };
        let guides: Vec<GradientsParams> = (0..count).map(|guide| take(Part::Guide(guide)).0).collect();
        (corrected(&self.adapter, task, &guides, correction), value)
    }

    /// How many of a step's examples are not rehearsed.
    fn fresh_rows(&self, examples: &[usize]) -> usize {
        examples.iter().filter(|example| **example < self.fresh).count()
    }

    fn loss(
        &self,
        (adapter, foresight): (&Adapter, Option<&Foresight>),
        images: Images<'_>,
        texts: TextSide<'_>,
        pass: &Pass<'_>,
        scores: Option<&Scores>,
    ) -> Loss {
        let examples = images.examples;
        let own = |step: &Step<'_>| {
            if let Some(scores) = scores {
                scores.replace(values(step.logits.clone()));
            }
            match &self.companion {
                None => adapter.learner().loss(step),
                Some(companion) => {
                    let fresh = self.fresh_rows(examples);
                    companion.loss(&Moment { adapter, step, examples, fresh, foresight })
                }
            }
        };
        self.objective.loss_by(self.session.backbone, adapter, images, texts, &self.train, pass, &own)
    }

    /// Images, or clips, of a shard of a step of so many; fewer where each meets many texts.
    fn shard_size(&self, examples: usize) -> usize {
        let met = self.objective.tokens_met(self.session.backbone, examples);
        shard_size(examples, self.frames()).min((SHARD_TOKENS / met.max(1)).max(1))
    }

    /// The rows of an example in the image tower.
    fn frames(&self) -> Frames {
        frames(self.recipe.clips.as_ref())
    }

    fn texts(&self, examples: &[usize]) -> Result<Texts> {
        self.objective.texts(self.session.backbone, examples, self.seed.split("caption").split(self.step))
    }

    fn step_seed(&self) -> Seed {
        self.seed.split("step").split(self.step)
    }

    fn pass(&self) -> Pass<'static> {
        Pass::train(self.step_seed().split("text"))
    }

    /// The learning rate of the current step.
    fn lr(&self) -> f64 {
        let train = &self.recipe.train;
        let lr = learning_rate(train.schedule, train.optimizer.lr(), self.step, self.steps, self.steps_per_epoch);
        let backbone = self.session.backbone;
        // Scores of pairs are no cosines, whose gradients grow with their factor.
        if backbone.crosses() { lr } else { lr * train.optimizer.scale_factor(backbone.logit_scale()) }
    }

    /// Takes the optimizer's step, reports, and saves when it is time.
    fn apply(&mut self, gradients: GradientsParams, loss: f32, run: &SavedRun) -> Result<()> {
        if !loss.is_finite() {
            return Err(Error::Diverged { step: self.step, loss });
        }
        let lr = self.lr();
        let watched = self.companion.as_ref().is_some_and(|companion| companion.watches());
        let (before, gradients) = if watched {
            let (copy, gradients) = copied(&self.adapter, gradients);
            (Some((self.adapter.parameters(), copy)), gradients)
        } else {
            (None, gradients)
        };
        let companion = self.companion.as_deref();
        self.adapter = moved(&mut self.optimizer, self.adapter.clone(), gradients, lr, companion);
        if let (Some((before, gradients)), Some(companion)) = (before, &mut self.companion) {
            companion.stepped(&Change { before: &before, gradients: &gradients, after: &self.adapter.parameters() });
        }
        self.losses.push(loss);
        self.step += 1;
        self.average_epoch();
        self.enter_stages(self.step - 1);
        let control = self.session.control;
        control.progress.advance(1, &format!("loss {loss:.3}"));
        let stop = control.stopped();
        if stop || self.saved.elapsed().as_secs() >= SAVE_SECONDS {
            self.keep(run)?;
            self.saved = Instant::now();
        }
        if stop { Err(Error::Interrupted { step: self.step, steps: self.steps }) } else { Ok(()) }
    }

    /// At the end of an epoch, adds it to the average.
    fn average_epoch(&mut self) {
        let Some(averaging) = self.adapter.learner().averaging() else { return };
        if !self.step.is_multiple_of(self.steps_per_epoch) && self.step != self.steps {
            return;
        }
        let weights = averaging.weights(self.steps.div_ceil(self.steps_per_epoch));
        let epoch = (self.step - 1) / self.steps_per_epoch;
        accumulate(&mut self.average, &self.adapter.parameters(), weights[epoch]);
    }

    /// Begins the stages that the run has come to since step `since`.
    fn enter_stages(&mut self, since: usize) {
        let begins = |fraction: &f64| (fraction * self.steps as f64).round() as usize;
        for (stage, fraction) in self.adapter.learner().stages().iter().enumerate() {
            if (since + 1..=self.step).contains(&begins(fraction)) {
                self.adapter.learner_mut().enter_stage(stage + 1);
            }
        }
    }

    /// Saves the state of the current step.
    pub(crate) fn keep(&self, run: &SavedRun) -> Result<()> {
        run.save(self.step, |into| self.save(into))
    }

    /// Drops examples whose image could not be read.
    fn leave_out(&mut self, features: &ImageFeatures) {
        self.skipped = features.bad.iter().map(|bad| bad.path.display().to_string()).collect();
        if features.kept.len() < self.train.len() {
            self.fresh = features.kept.iter().filter(|position| **position < self.fresh).count();
            self.train = features.kept.iter().map(|position| self.train[*position].clone()).collect();
            self.steps_per_epoch = (self.fresh / self.recipe.train.batch).max(1);
        }
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
        if let Some(companion) = &mut self.companion {
            companion.load(from)?;
        }
        self.step = step;
        self.enter_stages(0);
        Ok(())
    }
}

/// An adapter after a step on some gradients.
fn moved(
    optimizer: &mut ModuleOptimizer,
    adapter: Adapter,
    gradients: GradientsParams,
    lr: f64,
    companion: Option<&dyn Companion>,
) -> Adapter {
    let beside = |parameter: &str| companion.map_or(1.0, |companion| companion.rate(parameter));
    let groups = by_rate(&adapter, gradients, &beside);
    groups.into_iter().fold(adapter, |adapter, (factor, gradients)| optimizer.step(lr * factor, adapter, gradients))
}

/// Files of a saved state.
const ADAPTER: &str = "adapter.safetensors";
const AVERAGE: &str = "average.safetensors";
const OPTIMIZER: &str = "optimizer.bin";
const LOSSES: &str = "losses.json";

/// The views in which training images are seen when `count` of them are fixed.
pub(crate) fn training_views(recipe: &Recipe, count: usize) -> Views {
    let seed = Seed::new(recipe.seed).split("augment");
    Views::Augmented { count, augment: Arc::new(recipe.augment.clone()), seed }
}
