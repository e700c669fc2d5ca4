//! Training an adapter: a recipe to an artifact and a report.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer, SgdConfig};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Tensor, TensorData};
use inarch_core::backbone::{Backbone, Frozen, Mode, Partial, Pass, Tower, normalise};
use inarch_core::checkpoint::{Precision, encode_safetensors, read_safetensors};
use inarch_core::data::{Example, Source, few_shot};
use inarch_core::image::{ImageBatch, ImageJob, Loader, View};
use inarch_core::{Digest, DigestBuilder, Seed, file};
use inarch_peft::{Adapter, Artifact, Classifier, Provenance, identified};

use crate::encode::{ImageFeatures, Views, encode_images};
use crate::error::{Error, Result};
use crate::evaluate::shares_image_features;
use crate::fit_report::{DataReport, FitReport, Timing, peak_memory_bytes};
use crate::parallel::{sharded_gradients, threads};
use crate::recipe::{Budget, OptimizerConfig, Recipe};
use crate::saved_run::{SAVE_SECONDS, SavedRun, load_optimizer, save_optimizer};
use crate::schedule::learning_rate;
use crate::session::Session;

/// Images in a shard of a step through the image tower.
const SHARD: usize = 16;
/// Points of the loss curve in a report.
const CURVE_POINTS: usize = 200;
/// Bytes of decoded training images that are kept in memory.
const CACHE_BYTES: usize = 512 << 20;

impl Session<'_> {
    /// Trains an adapter into `folder`. An unfinished run in `folder` is continued; the result is the same bytes as
    /// without interruption.
    ///
    /// # Errors
    /// Faults of recipe and data, a diverged loss, or [`Error::Interrupted`] after the state was saved.
    pub fn fit(&self, recipe: &Recipe, folder: &Path) -> Result<(Artifact, FitReport)> {
        let started = Instant::now();
        let seed = Seed::new(recipe.seed);
        let classes = self.dataset.classes.len();
        let train = match recipe.shots {
            Some(shots) => few_shot(&self.dataset.train, classes, shots, seed.split("few-shot"))?,
            None => self.dataset.train.clone(),
        };
        if train.is_empty() {
            let reason = "it has no training images; add a `train` folder or a `train` split";
            return Err(inarch_core::Error::invalid(format!("data set `{}`", self.dataset.name), reason).into());
        }
        let templates = recipe.templates.resolve()?;
        let zero_shot = Classifier::zero_shot(self.backbone, &self.dataset.classes, &templates)?;
        let class_features = zero_shot.features(&Frozen);
        let device = self.backbone.device().clone().autodiff();
        let adapter = identified(recipe.method.init(self.backbone, &class_features, seed.split("init"), &device)?);
        let on_features = shares_image_features(adapter.sites());
        if !on_features && self.dataset.features.is_some() {
            return Err(Error::Recipe {
                origin: format!("method {}", recipe.method.name()),
                reason: format!("it changes the image tower and needs images; `{}` holds features", self.dataset.name),
            });
        }

        let run = SavedRun::new(folder, self.identity(recipe, &train));
        let classifier = Classifier::adapted(
            self.backbone,
            &recipe.method,
            &self.dataset.classes,
            &self.dataset.classes,
            &templates,
        )?;
        let mut fitting = Fitting::new(self, recipe, train, classifier, adapter, seed);
        if let Some((step, state)) = run.load()? {
            fitting.load(step, &state)?;
            self.control.progress.say(&format!("going on from step {step} of {}", fitting.steps));
        }
        file::create_folder(folder)?;
        file::write(&folder.join("recipe.toml"), recipe.to_toml().as_bytes())?;
        let encode_seconds = if on_features { fitting.fit_features(&run)? } else { fitting.fit_images(&run)? };
        let train_seconds = started.elapsed().as_secs_f64() - encode_seconds;

        let Fitting { train, adapter, losses, steps, skipped, .. } = fitting;
        let data = Some(self.dataset.digest());
        let adapter = adapter.without_autodiff();
        let provenance = |metrics| Provenance {
            classes: self.dataset.classes.clone(),
            templates: templates.clone(),
            data: data.clone(),
            metrics,
        };
        let artifact = Artifact::new(adapter, recipe.method.clone(), self.backbone, provenance(BTreeMap::new()))?;
        let evaluating = Instant::now();
        let (zero_shot, test) = if self.dataset.test.is_empty() {
            (None, None)
        } else {
            (Some(self.zero_shot(&templates)?), Some(self.evaluate(&artifact)?))
        };
        let metrics = [("accuracy", &test), ("zero_shot_accuracy", &zero_shot)]
            .into_iter()
            .filter_map(|(name, evaluation)| Some((name.to_string(), evaluation.as_ref()?.metrics.accuracy)))
            .collect();
        let Artifact { adapter, .. } = artifact;
        let artifact = Artifact::new(adapter, recipe.method.clone(), self.backbone, provenance(metrics))?;
        artifact.save(folder)?;
        let report = FitReport {
            inarch: env!("CARGO_PKG_VERSION"),
            recipe: recipe.clone(),
            backbone: artifact.manifest.backbone.clone(),
            data: DataReport {
                name: self.dataset.name.clone(),
                digest: self.dataset.digest(),
                classes,
                train: train.len(),
                val: self.dataset.val.len(),
                test: self.dataset.test.len(),
                skipped,
            },
            trainable: artifact.manifest.parameters,
            steps,
            losses: thin(&losses),
            zero_shot,
            test,
            seconds: Timing {
                encode: encode_seconds,
                train: train_seconds,
                evaluate: evaluating.elapsed().as_secs_f64(),
                total: started.elapsed().as_secs_f64(),
            },
            peak_memory_bytes: peak_memory_bytes(),
        };
        file::write_json(&folder.join("report.json"), &report)?;
        run.clear()?;
        Ok((artifact, report))
    }

    /// Identity of a run: recipe, backbone and training examples. Where the data lies does not matter.
    fn identity(&self, recipe: &Recipe, train: &[Example]) -> Digest {
        let recipe = Recipe { backbone: None, data: None, root: None, ..recipe.clone() };
        let mut builder = DigestBuilder::default();
        builder.piece(recipe.to_toml().as_bytes());
        builder.piece(self.backbone.digest().to_string().as_bytes());
        builder.piece(self.dataset.digest().to_string().as_bytes());
        for example in train {
            builder.piece(example.id.as_bytes());
        }
        builder.finish()
    }
}

/// A run on its way.
struct Fitting<'a> {
    session: &'a Session<'a>,
    recipe: &'a Recipe,
    train: Vec<Example>,
    classifier: Classifier<'a>,
    /// The frozen part of the text side.
    text: Partial,
    adapter: Adapter,
    optimizer: ModuleOptimizer,
    seed: Seed,
    step: usize,
    steps: usize,
    steps_per_epoch: usize,
    losses: Vec<f32>,
    skipped: Vec<String>,
    saved: Instant,
}

impl<'a> Fitting<'a> {
    fn new(
        session: &'a Session<'a>,
        recipe: &'a Recipe,
        train: Vec<Example>,
        classifier: Classifier<'a>,
        adapter: Adapter,
        seed: Seed,
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
        let text = classifier.start(adapter.sites());
        Self {
            session,
            recipe,
            train,
            classifier,
            text,
            adapter,
            optimizer,
            seed,
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
    fn fit_features(&mut self, run: &SavedRun) -> Result<f64> {
        let started = Instant::now();
        let session = self.session;
        let views = match self.recipe.views {
            0 if self.session.dataset.features.is_none() => Views::Augmented {
                count: self.steps.div_ceil(self.steps_per_epoch).clamp(1, 32),
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
                let labels: Vec<usize> = batch.iter().map(|example| self.train[*example].label).collect();
                let pass = self.pass();
                let sites = self.adapter.sites();
                let image = sites.feature(Tower::Image, image, &pass);
                let loss = self.loss(&self.adapter, image, &labels, &pass);
                let value = loss.clone().into_scalar::<f32>();
                let gradients = GradientsParams::from_grads(loss.backward(), &self.adapter);
                self.apply(gradients, value, run)?;
            }
        }
        session.control.progress.finish();
        Ok(seconds)
    }

    /// Trains through the image tower; images are decoded, varied and encoded in each step.
    fn fit_images(&mut self, run: &SavedRun) -> Result<f64> {
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
        let labels: Vec<usize> = batch.indices.iter().map(|index| self.train[*index].label).collect();
        let [images, channels, height, width] = batch.shape;
        let values = channels * height * width;
        let pass = self.pass();
        let step_seed = self.step_seed();
        let forward = |adapter: &Adapter, shard: usize| {
            let (from, to) = (shard * SHARD, ((shard + 1) * SHARD).min(images));
            let data = batch.pixels[from * values..to * values].to_vec();
            let shape = [to - from, channels, height, width];
            let pixels = Tensor::from_data(TensorData::new(data, shape), backbone.device());
            let sites = adapter.sites();
            let partial = backbone.start_image(pixels, sites.entry(Tower::Image));
            backbone.finish(Tower::Image, partial, sites, &Pass::train(step_seed.split(shard)))
        };
        let loss = |image: Tensor<2>| (self.loss(&self.adapter, image, &labels, &pass), ());
        let (gradients, loss, ()) = sharded_gradients(&self.adapter, images.div_ceil(SHARD), threads(), forward, loss);
        self.apply(gradients, loss, run)
    }

    fn step_seed(&self) -> Seed {
        self.seed.split("step").split(self.step)
    }

    fn pass(&self) -> Pass<'static> {
        Pass::train(self.step_seed().split("text"))
    }

    /// Mean cross entropy, `[1]`, of image features `[images, dim]`.
    fn loss(&self, adapter: &Adapter, image: Tensor<2>, labels: &[usize], pass: &Pass<'_>) -> Tensor<1> {
        let sites = adapter.sites();
        let condition = sites.conditions_text().then(|| normalise(image.clone()));
        let pass = Pass { condition: condition.as_ref(), ..*pass };
        debug_assert_ne!(pass.mode, Mode::Evaluate);
        let text = self.classifier.text(self.text.clone(), sites, &pass);
        let logits = self.classifier.logits(&image, &text, sites, &pass);
        cross_entropy(logits, labels, self.session.backbone)
    }

    /// Takes the optimizer's step, reports, and saves when it is time.
    fn apply(&mut self, gradients: GradientsParams, loss: f32, run: &SavedRun) -> Result<()> {
        if !loss.is_finite() {
            return Err(Error::Diverged { step: self.step, loss });
        }
        let train = &self.recipe.train;
        let lr = learning_rate(train.schedule, train.optimizer.lr(), self.step, self.steps, self.steps_per_epoch);
        self.adapter = self.optimizer.step(lr, self.adapter.clone(), gradients);
        self.losses.push(loss);
        self.step += 1;
        let control = self.session.control;
        control.progress.advance(1, &format!("loss {loss:.3}"));
        let stop = control.stopped();
        if stop || self.saved.elapsed().as_secs() >= SAVE_SECONDS {
            run.save(self.step, |into| self.save(into))?;
            self.saved = Instant::now();
        }
        if stop { Err(Error::Interrupted { step: self.step, steps: self.steps }) } else { Ok(()) }
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

    fn load(&mut self, step: usize, from: &Path) -> Result<()> {
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

/// At most [`CURVE_POINTS`] means of equal stretches.
fn thin(losses: &[f32]) -> Vec<f32> {
    let stretch = losses.len().div_ceil(CURVE_POINTS).max(1);
    losses.chunks(stretch).map(|part| part.iter().sum::<f32>() / part.len() as f32).collect()
}
