//! The training loop of an adapter: batches, gradients, optimizer, saved state.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer, SgdConfig};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Tensor, TensorData};
use inarch_core::backbone::{Backbone, Frozen, Partial, Pass, Tower, normalise};
use inarch_core::checkpoint::{Precision, encode_safetensors, read_safetensors};
use inarch_core::data::{Example, Source};
use inarch_core::image::{ImageBatch, ImageJob, Loader, View};
use inarch_core::{Seed, file};
use inarch_peft::{Adapter, Classifier};

use crate::contrastive::Pairs;
use crate::encode::{ImageFeatures, Views, encode_images};
use crate::error::{Error, Result};
use crate::parallel::{Shards, sharded_gradients, threads};
use crate::pretrain::PairSet;
use crate::recipe::{Budget, OptimizerConfig, Recipe};
use crate::saved_run::{SAVE_SECONDS, SavedRun, load_optimizer, save_optimizer};
use crate::schedule::learning_rate;
use crate::session::Session;

/// Images in a shard of a step through the image tower.
const SHARD: usize = 16;
/// Fixed views that stand for fresh ones where features are computed once.
const FRESH_VIEWS: usize = 32;
/// Bytes of decoded training images that are kept in memory.
const CACHE_BYTES: usize = 512 << 20;

/// What an adapter is trained to do.
#[expect(clippy::large_enum_variant, reason = "there is one for each run")]
pub(crate) enum Objective<'a> {
    /// Cross entropy over classes.
    Classify {
        /// The classes.
        classifier: Classifier<'a>,
        /// The frozen part of their texts.
        text: Partial,
    },
    /// The contrastive loss over pairs; position `i` of the training examples is pair `i`.
    Match(&'a PairSet),
}

/// A run on its way.
pub(crate) struct Fitting<'a> {
    session: &'a Session<'a>,
    recipe: &'a Recipe,
    pub(crate) train: Vec<Example>,
    objective: Objective<'a>,
    pub(crate) adapter: Adapter,
    optimizer: ModuleOptimizer,
    seed: Seed,
    step: usize,
    pub(crate) steps: usize,
    steps_per_epoch: usize,
    pub(crate) losses: Vec<f32>,
    pub(crate) skipped: Vec<String>,
    saved: Instant,
}

impl<'a> Fitting<'a> {
    pub(crate) fn new(
        session: &'a Session<'a>,
        recipe: &'a Recipe,
        train: Vec<Example>,
        objective: Objective<'a>,
        adapter: Adapter,
    ) -> Self {
        let steps_per_epoch = (train.len() / recipe.train.batch).max(1);
        let shots = recipe.shots.unwrap_or(16);
        let steps = match recipe.train.budget {
            Budget::Epochs(epochs) => epochs * steps_per_epoch,
            Budget::Iterations(steps) => steps,
            Budget::IterationsPerShot(steps) => steps * shots,
            Budget::CoopEpochs => {
                let epochs = match shots {
                    0..=1 => 50,
                    2..=4 => 100,
                    _ => 200,
                };
                epochs * steps_per_epoch
            }
        };
        let optimizer = match recipe.train.optimizer {
            OptimizerConfig::Sgd { momentum, weight_decay, .. } => SgdConfig::new()
                .with_momentum(Some(MomentumConfig { momentum, dampening: 0.0, nesterov: false }))
                .with_weight_decay((weight_decay > 0.0).then(|| WeightDecayConfig::new(weight_decay)))
                .init(),
            OptimizerConfig::Adamw { weight_decay, .. } => {
                AdamWConfig::new().with_epsilon(1e-8).with_weight_decay(weight_decay).init()
            }
        };
        Self {
            session,
            recipe,
            train,
            objective,
            adapter,
            optimizer,
            seed: Seed::new(recipe.seed),
            step: 0,
            steps,
            steps_per_epoch,
            losses: Vec::new(),
            skipped: Vec::new(),
            saved: Instant::now(),
        }
    }

    /// The examples of each step of an epoch, from the current step on.
    fn batches(&self, epoch: usize) -> Vec<Vec<usize>> {
        let order = self.seed.split("order").split(epoch).order(self.train.len());
        let batch = self.recipe.train.batch.min(self.train.len());
        order
            .chunks_exact(batch)
            .take(self.steps_per_epoch)
            .skip(self.step % self.steps_per_epoch)
            .take(self.steps - self.step)
            .map(<[usize]>::to_vec)
            .collect()
    }

    /// Trains on image features that are computed once; returns the seconds that took.
    pub(crate) fn fit_features(&mut self, run: &SavedRun) -> Result<f64> {
        let started = Instant::now();
        let session = self.session;
        let views = match self.recipe.views {
            0 if self.session.dataset.features.is_none() => Views::Augmented {
                count: self.steps.div_ceil(self.steps_per_epoch).clamp(1, FRESH_VIEWS),
                augment: Arc::new(self.recipe.augment.clone()),
                seed: self.seed.split("augment"),
            },
            count => Views::Augmented {
                count: count.max(1),
                augment: Arc::new(self.recipe.augment.clone()),
                seed: self.seed.split("augment"),
            },
        };
        let features = encode_images(
            session.backbone,
            &Frozen,
            &session.dataset,
            &self.train,
            &views,
            session.policy,
            session.control,
        )?;
        self.leave_out(&features);
        let seconds = started.elapsed().as_secs_f64();
        session.control.progress.start("train", self.steps as u64);
        session.control.progress.advance(self.step as u64, "");
        while self.step < self.steps {
            let epoch = self.step / self.steps_per_epoch;
            for batch in self.batches(epoch) {
                let image = features.gather(batch.iter().map(|example| (*example, epoch)), session.backbone);
                let pass = self.pass();
                let sites = self.adapter.sites();
                let image = sites.feature(Tower::Image, image, &pass);
                let texts = self.texts(&batch)?;
                let loss = self.loss_with(image, &batch, texts.as_ref(), &pass);
                let value = loss.clone().into_scalar::<f32>();
                let gradients = GradientsParams::from_grads(loss.backward(), &self.adapter);
                self.apply(gradients, value, run)?;
            }
        }
        session.control.progress.finish();
        Ok(seconds)
    }

    /// Trains through the image tower; images are decoded, varied and encoded in each step.
    pub(crate) fn fit_images(&mut self, run: &SavedRun) -> Result<f64> {
        let session = self.session;
        let loader = Loader::new(session.backbone.preprocess().clone())?
            .with_batch_size(self.recipe.train.batch.min(self.train.len()))
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
                .filter_map(|index| {
                    let example = &self.train[*index];
                    let Source::Image(path) = &example.source else { return None };
                    let seed = seed.split(&example.id).split(view);
                    let view = View::Augmented { augment: augment.clone(), seed };
                    Some(ImageJob { index: *index, path: path.clone(), view })
                })
                .collect();
            let bad = loader.run(&jobs, |batch: ImageBatch| -> Result<()> {
                if self.step < self.steps { self.image_step(batch, run) } else { Ok(()) }
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

    fn image_step(&mut self, batch: ImageBatch, run: &SavedRun) -> Result<()> {
        let backbone = self.session.backbone;
        let shards = Shards::new(&batch, SHARD, backbone.device());
        let pass = self.pass();
        let step_seed = self.step_seed();
        let forward = |adapter: &Adapter, shard: usize| {
            let sites = adapter.sites();
            let partial = backbone.start_image(shards.pixels(shard), sites.entry(Tower::Image));
            backbone.finish(Tower::Image, partial, sites, &Pass::train(step_seed.split(shard)))
        };
        let texts = self.texts(&batch.indices)?;
        let loss = |image: Tensor<2>| (self.loss_with(image, &batch.indices, texts.as_ref(), &pass), ());
        let (gradients, loss, ()) = sharded_gradients(&self.adapter, shards.count(), threads(), forward, loss);
        self.apply(gradients, loss, run)
    }

    fn step_seed(&self) -> Seed {
        self.seed.split("step").split(self.step)
    }

    fn pass(&self) -> Pass<'static> {
        Pass::train(self.step_seed().split("text"))
    }

    /// The texts of a step of the contrastive objective: pairs and token rows.
    fn texts(&self, indices: &[usize]) -> Result<Option<(Pairs, Vec<Vec<u32>>)>> {
        let Objective::Match(set) = &self.objective else { return Ok(None) };
        let draw = self.seed.split("caption").split(self.step);
        let pairs = Pairs::new(indices.iter().map(|index| set.caption(*index, draw)));
        let rows = self.session.backbone.tokenize(&pairs.texts)?;
        Ok(Some((pairs, rows)))
    }

    /// The loss, `[1]`, of image features `[images, dim]` of the training examples `indices`.
    fn loss_with(
        &self,
        image: Tensor<2>,
        indices: &[usize],
        texts: Option<&(Pairs, Vec<Vec<u32>>)>,
        pass: &Pass<'_>,
    ) -> Tensor<1> {
        let sites = self.adapter.sites();
        let backbone = self.session.backbone;
        match (&self.objective, texts) {
            (Objective::Classify { classifier, text }, _) => {
                let condition = sites.conditions_text().then(|| normalise(image.clone()));
                let pass = Pass { condition: condition.as_ref(), ..*pass };
                let text = classifier.text(text.clone(), sites, &pass);
                let logits = classifier.logits(&image, &text, sites, &pass);
                let labels: Vec<usize> = indices.iter().map(|index| self.train[*index].label).collect();
                cross_entropy(logits, &labels, backbone)
            }
            (Objective::Match(_), Some((pairs, rows))) => {
                let partial = backbone.start_text(rows, sites.entry(Tower::Text));
                let text = normalise(backbone.finish(Tower::Text, partial, sites, pass));
                let scale = Tensor::from_data([backbone.logit_scale()], backbone.device());
                pairs.loss(normalise(image), text, scale, 0.0)
            }
            (Objective::Match(_), None) => unreachable!("the contrastive objective always has texts"),
        }
    }

    /// Takes the optimizer's step, reports, and saves when it is time.
    fn apply(&mut self, gradients: GradientsParams, loss: f32, run: &SavedRun) -> Result<()> {
        if !loss.is_finite() {
            return Err(Error::Diverged { step: self.step, loss });
        }
        let train = &self.recipe.train;
        let lr = learning_rate(train.schedule, train.optimizer.lr(), self.step, self.steps, self.steps_per_epoch);
        let lr = lr * train.optimizer.scale_factor(self.session.backbone.logit_scale());
        self.adapter = self.optimizer.step(lr, self.adapter.clone(), gradients);
        self.losses.push(loss);
        self.step += 1;
        let control = self.session.control;
        control.progress.advance(1, &format!("loss {loss:.3}"));
        let stop = control.stopped();
        if stop || self.saved.elapsed().as_secs() >= SAVE_SECONDS {
            self.keep(run)?;
            self.saved = Instant::now();
        }
        if stop { Err(Error::Interrupted { step: self.step, steps: self.steps }) } else { Ok(()) }
    }

    /// Saves the state of the current step.
    pub(crate) fn keep(&self, run: &SavedRun) -> Result<()> {
        run.save(self.step, |into| self.save(into))
    }

    /// Drops examples whose image could not be read.
    fn leave_out(&mut self, features: &ImageFeatures) {
        self.skipped = features.bad.iter().map(|bad| bad.path.display().to_string()).collect();
        if features.kept.len() < self.train.len() {
            self.train = features.kept.iter().map(|position| self.train[*position].clone()).collect();
            self.steps_per_epoch = (self.train.len() / self.recipe.train.batch).max(1);
        }
    }

    fn save(&self, into: &Path) -> Result<()> {
        let bytes = encode_safetensors(&self.adapter.parameters(), BTreeMap::new(), Precision::F32)?;
        file::write(&into.join("adapter.safetensors"), &bytes)?;
        save_optimizer(&self.optimizer, &into.join("optimizer.bin"))?;
        Ok(file::write_json(&into.join("losses.json"), &self.losses)?)
    }

    pub(crate) fn load(&mut self, step: usize, from: &Path) -> Result<()> {
        let (tensors, _) = read_safetensors(&from.join("adapter.safetensors"))?;
        let device = self.session.backbone.device().clone().autodiff();
        self.adapter = self
            .adapter
            .clone()
            .with_parameters(tensors, &device)
            .map_err(|reason| inarch_core::Error::malformed("saved adapter", from, reason))?;
        self.optimizer = load_optimizer(self.optimizer.clone(), &from.join("optimizer.bin"))?;
        self.losses = file::read_json(&from.join("losses.json"), "loss history")?;
        self.step = step;
        Ok(())
    }
}

fn cross_entropy(logits: Tensor<2>, labels: &[usize], backbone: &Backbone) -> Tensor<1> {
    let [rows, classes] = logits.dims();
    let mut targets = vec![0.0f32; rows * classes];
    for (row, label) in labels.iter().enumerate() {
        targets[row * classes + label] = 1.0;
    }
    let targets = Tensor::<2>::from_data(TensorData::new(targets, [rows, classes]), backbone.device());
    (log_softmax(logits, 1) * targets).sum() / -(rows as f32)
}
