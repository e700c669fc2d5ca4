//! Training an adapter: a recipe to an artifact and a report.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use burn::tensor::Tensor;
use inarch_core::backbone::{Backbone, Entry, Pass, Scores, Sites, normalise, values};
use inarch_core::data::{ClipConfig, Example, Purpose, few_shot};
use inarch_core::image::{ImageJob, Loader, View};
use inarch_core::text::{Template, check_described};
use inarch_core::{Digest, DigestBuilder, Seed, file};
use inarch_peft::{Adapter, Artifact, Classifier, Provenance, Start, Support, identified};

use crate::balance::Balance;
use crate::clips::jobs;
use crate::contrastive::PairLoss;
use crate::error::{Error, Result};
use crate::evaluate::shares_image_features;
use crate::fit_page::fit_page;
use crate::fit_report::{DataReport, FitReport, Timing};
use crate::fitting::{Fitted, Fitting, none_readable, training_views};
use crate::objective::Objective;
use crate::plan::Plan;
use crate::pretrain::PairSet;
use crate::recipe::Recipe;
use crate::report::render;
use crate::report_head::ReportHead;
use crate::saved_run::SavedRun;
use crate::session::Session;
use crate::shards::text_shards;

/// Points of the loss curve in a report.
const CURVE_POINTS: usize = 200;

/// Everything before the first step.
struct Prepared<'a> {
    train: Vec<Example>,
    objective: Objective<'a>,
    adapter: Adapter,
    templates: Vec<Template>,
    /// Training images that are left out, since they could not be read.
    skipped: Vec<String>,
}

impl<'a> Session<'a> {
    /// Trains an adapter to classify, into `folder`. An unfinished run in `folder` is continued; the result is the same
    /// bytes as without interruption.
    ///
    /// # Errors
    /// Faults of recipe and data, a diverged loss, or [`Error::Interrupted`] after the state was saved.
    pub fn fit(&self, recipe: &Recipe, folder: &Path) -> Result<(Artifact, FitReport)> {
        let recipe = &self.resolved(recipe)?;
        let Prepared { train, objective, adapter, templates, skipped } = self.prepare(recipe)?;
        self.train(recipe, (train, skipped), objective, adapter, &templates, folder)
    }

    /// What [`fit`](Self::fit) would compute once, and what in every step.
    ///
    /// # Errors
    /// Faults of recipe and data.
    pub fn plan(&self, recipe: &Recipe) -> Result<Plan> {
        let recipe = &self.resolved(recipe)?;
        let Prepared { train, objective, adapter, .. } = self.prepare(recipe)?;
        Ok(Plan::new(self.backbone, recipe, (train.len(), self.dataset.features.is_some()), &objective, &adapter))
    }

    /// The recipe with what the backbone and the data decide.
    fn resolved(&self, recipe: &Recipe) -> Result<Recipe> {
        self.need_frozen()?;
        if recipe.train.pair_loss.is_some() {
            let reason =
                "classes are no pairs; leave it out, or train on images and captions with `inarch pretrain -b`";
            return Err(Error::Recipe { origin: "train.pair_loss".into(), reason: reason.into() });
        }
        let method = recipe.method.resolved(self.backbone)?;
        Ok(Recipe { method, clips: self.dataset.clips.clone(), ..recipe.clone() })
    }

    fn prepare(&self, recipe: &Recipe) -> Result<Prepared<'_>> {
        let seed = Seed::new(recipe.seed);
        let classes = &self.dataset.classes;
        let train = match recipe.shots {
            Some(shots) => few_shot(&self.dataset.train, classes.len(), shots, seed.split("few-shot"))?,
            None => self.dataset.train.clone(),
        };
        if train.is_empty() {
            let reason = "it has no training images; add a `train` folder or a `train` split";
            return Err(inarch_core::Error::invalid(format!("data set `{}`", self.dataset.name), reason).into());
        }
        let templates = recipe.templates.resolve()?;
        check_described(&templates, classes)?;
        let class_features = self.class_features(classes, &train, &templates)?;
        let (adapter, train, skipped) = self.begin(recipe, train, &class_features)?;
        let classifier = Classifier::adapted(self.backbone, &recipe.method, classes, classes, &templates)?;
        let text = classifier.parts(adapter.sites(), text_shards(classes.len()));
        let balance = self.balance(recipe, &train, &class_features, &adapter)?;
        let objective = Objective::Classify { classifier, text, balance };
        Ok(Prepared { train, objective, adapter, templates, skipped })
    }

    /// Trains an adapter on image-text pairs, into `folder`; resumable like [`fit`](Self::fit). The session's data set must be
    /// [`PairSet::dataset`] of the same pairs. The loss is that of the recipe, or else the one that the backbone was trained with.
    ///
    /// # Errors
    /// As [`fit`](Self::fit), and a method that holds rows for classes or a prompt of its own.
    pub fn fit_pairs(&self, recipe: &Recipe, pairs: &'a PairSet, folder: &Path) -> Result<(Artifact, FitReport)> {
        if recipe.method.bound_to_classes() || !recipe.method.templates()?.is_empty() {
            return Err(Error::Recipe {
                origin: format!("method {}", recipe.method.name()),
                reason: "it works on class names, not on free texts; use one that changes the towers, e.g. `lora`"
                    .into(),
            });
        }
        if recipe.method.needs_support() {
            let reason = "it starts from images of known classes, and pairs have none".to_string();
            return Err(Error::Recipe { origin: format!("method {}", recipe.method.name()), reason });
        }
        self.backbone.need_towers("contrastive training")?;
        let class_features = Tensor::zeros([1, self.backbone.spec().dim], self.backbone.device());
        let adapter = self.fresh(recipe, &class_features, None)?;
        let templates = recipe.templates.resolve()?;
        let train = self.dataset.train.clone();
        let own = if self.backbone.logit_bias().is_some() { PairLoss::Sigmoid } else { PairLoss::Softmax };
        let loss = recipe.train.pair_loss.unwrap_or(own);
        let mut recipe = recipe.clone();
        recipe.train.pair_loss = Some(loss);
        self.train(&recipe, (train, Vec::new()), Objective::Match { pairs, loss }, adapter, &templates, folder)
    }

    /// How steps are judged. Images with several labels need scores to start from, where each class is as likely as it is
    /// among the training images.
    fn balance(
        &self,
        recipe: &Recipe,
        train: &[Example],
        class_features: &Tensor<2>,
        adapter: &Adapter,
    ) -> Result<Balance> {
        let imbalance = recipe.train.imbalance;
        if !self.dataset.multi_label {
            return Balance::new(imbalance, self.dataset.classes.len(), train, None);
        }
        self.backbone.need_features("images with several labels")?;
        if recipe.method.needs_support() || recipe.method.trainable(self.backbone, 2, 2) == 0 {
            return Err(Error::Recipe {
                origin: format!("method {}", recipe.method.name()),
                reason:
                    "it is made for images with one label each; use one that is trained by steps, e.g. `linear-probe`"
                        .into(),
            });
        }
        let stored = self.frozen(Entry::Feature, train, &training_views(recipe, 1))?;
        let train: Vec<Example> = stored.kept.iter().map(|position| train[*position].clone()).collect();
        if train.is_empty() {
            return Err(none_readable());
        }
        let images = normalise(stored.all(self.backbone));
        let text = normalise(class_features.clone());
        let shift = offset_of_scores(self.backbone, adapter.sites(), &images, &text);
        let scores = images.matmul(text.transpose()) * self.backbone.logit_scale();
        let means = values(scores.mean_dim(0)).iter().zip(shift).map(|(mean, shift)| mean + shift).collect();
        Balance::new(imbalance, self.dataset.classes.len(), &train, Some(means))
    }

    /// A fresh adapter, the training examples to use, and those that are left out. A method that starts from the training images
    /// sees the frozen features of all that can be read, in the views that training will use.
    fn begin(
        &self,
        recipe: &Recipe,
        train: Vec<Example>,
        class_features: &Tensor<2>,
    ) -> Result<(Adapter, Vec<Example>, Vec<String>)> {
        if !recipe.method.needs_support() {
            return Ok((self.fresh(recipe, class_features, None)?, train, Vec::new()));
        }
        let Self { backbone, dataset, .. } = self;
        let views = training_views(recipe, recipe.views.max(1));
        let stored = self.frozen(Entry::Feature, &train, &views)?;
        let train: Vec<Example> = stored.kept.iter().map(|position| train[*position].clone()).collect();
        if train.is_empty() {
            return Err(none_readable());
        }
        let labels: Vec<usize> = train.iter().map(|example| example.label).collect();
        let every = (0..train.len()).flat_map(|image| (0..stored.views).map(move |view| (image, view)));
        let clips = dataset.clips.as_ref();
        let visit = |take: &mut dyn FnMut(Tensor<4>)| visit_pixels(backbone, &train, clips, take);
        let support = Support {
            features: stored.gather(every, backbone),
            views: stored.views,
            labels: &labels,
            pixels: dataset.features.is_none().then_some(&visit),
        };
        let adapter = self.fresh(recipe, class_features, Some(&support))?;
        let skipped = stored.bad.iter().map(|bad| bad.path.display().to_string()).collect();
        Ok((adapter, train, skipped))
    }

    /// A fresh adapter on the autodiff device.
    fn fresh(&self, recipe: &Recipe, class_features: &Tensor<2>, support: Option<&Support<'_>>) -> Result<Adapter> {
        let device = self.backbone.device().clone().autodiff();
        let seed = Seed::new(recipe.seed).split("init");
        let start = Start { support, ..Start::new(self.backbone, class_features, seed, &device) };
        Ok(identified(recipe.method.init(&start)?))
    }

    fn train(
        &self,
        recipe: &Recipe,
        (train, skipped): (Vec<Example>, Vec<String>),
        objective: Objective<'_>,
        adapter: Adapter,
        templates: &[Template],
        folder: &Path,
    ) -> Result<(Artifact, FitReport)> {
        let started = Instant::now();
        if !shares_image_features(adapter.sites()) && self.dataset.features.is_some() {
            return Err(Error::Recipe {
                origin: format!("method {}", recipe.method.name()),
                reason: format!("it changes the image tower and needs images; `{}` holds features", self.dataset.name),
            });
        }
        let offsets = match &objective {
            Objective::Classify { balance, .. } => balance.offsets().map(<[f32]>::to_vec),
            Objective::Match { .. } => None,
        };
        let run = SavedRun::new(folder, self.identity(recipe, &train)?);
        let mut fitting = Fitting::new(self, recipe, train, objective, adapter);
        fitting.skipped = skipped;
        if let Some((step, state)) = run.load()? {
            fitting.load(step, &state)?;
            self.control.progress.say(&format!("going on from step {step} of {}", fitting.steps));
        }
        let is_new = !folder.exists();
        file::create_folder(folder)?;
        let encode = fitting.run(&run).inspect_err(|_| {
            if is_new {
                // Goes only when nothing was saved in it.
                let _ = std::fs::remove_dir(folder);
            }
        })?;
        // An evaluation that is stopped must not cost the training.
        fitting.keep(&run)?;
        let trained = started.elapsed().as_secs_f64();

        let before = fitting.before;
        let Fitted { adapter, train, losses, skipped } = fitting.finish()?;
        let mut artifact = Artifact::new(
            adapter,
            recipe.method.clone(),
            self.backbone,
            Provenance {
                classes: self.dataset.classes.clone(),
                templates: templates.to_vec(),
                data: Some(self.dataset.digest()),
                clips: recipe.clips.clone(),
                metrics: BTreeMap::new(),
            },
        )?;
        artifact.manifest.offsets = offsets;
        artifact.manifest.group_by.clone_from(&recipe.group_by);
        artifact.manifest.window = recipe.window;
        let (zero_shot, test) = if self.dataset.test.is_empty() {
            (None, None)
        } else {
            (self.unadapted(templates)?, Some(self.evaluate(&artifact)?))
        };
        artifact.manifest.metrics = [("accuracy", &test), ("zero_shot_accuracy", &zero_shot)]
            .into_iter()
            .filter_map(|(name, evaluation)| Some((name.to_string(), evaluation.as_ref()?.metrics.accuracy)))
            .collect();
        artifact.save(folder)?;
        // Beside the result and not before it, so that a run that fails leaves an older result and its recipe alone.
        file::write(&folder.join("recipe.toml"), recipe.led_from(folder).to_toml().as_bytes())?;
        let total = started.elapsed().as_secs_f64();
        let report = FitReport {
            head: ReportHead::new(self.backbone),
            recipe: recipe.clone(),
            data: DataReport {
                name: self.dataset.name.clone(),
                digest: self.dataset.digest(),
                classes: self.dataset.classes.len(),
                train: train.len(),
                val: self.dataset.val.len(),
                test: self.dataset.test.len(),
                skipped,
            },
            trainable: artifact.manifest.parameters,
            // One of which no image could be read is none that was taken.
            steps: losses.len(),
            losses: thin(&losses),
            zero_shot,
            baseline: if self.backbone.has_words() { "zero-shot" } else { "own head" },
            test,
            seconds: Timing {
                encode,
                train: before + trained - encode,
                evaluate: total - trained,
                total: before + total,
            },
        };
        file::write_json(&folder.join("report.json"), &report)?;
        file::write(&folder.join("report.html"), render(&fit_page(&report))?.as_bytes())?;
        run.clear()?;
        Ok((artifact, report))
    }

    /// Identity of a run: recipe, backbone and training examples, with what they show. Where the data lies does not matter.
    fn identity(&self, recipe: &Recipe, train: &[Example]) -> Result<Digest> {
        let mut builder = DigestBuilder::default();
        builder.piece(recipe.identity()?.as_bytes());
        builder.piece(self.backbone.digest().to_string().as_bytes());
        builder.piece(self.dataset.digest().to_string().as_bytes());
        builder.piece(self.dataset.contents(train).to_string().as_bytes());
        Ok(builder.finish())
    }
}

/// What the offset of a backbone's scores adds to those of an adapter's classes: nothing where it brings scores of its own.
/// `images` `[n, dim]`, of which the first will do, and `text` `[classes, dim]` are normalised.
fn offset_of_scores(backbone: &Backbone, sites: &dyn Sites, images: &Tensor<2>, text: &Tensor<2>) -> Vec<f32> {
    let [classes, _] = text.dims();
    let Some(bias) = backbone.logit_bias().filter(|_| !sites.conditions_text()) else { return vec![0.0; classes] };
    let image = images.clone().narrow(0, 0, 1);
    let scores = |value: f32| {
        let logits = Tensor::zeros([1, classes], backbone.device()) + value;
        let scale = backbone.logit_scale();
        let scores = Scores { feature: &image, image: &image, text, logits, scale, offset: value };
        values(sites.logits(scores, &Pass::evaluate()))
    };
    scores(bias).iter().zip(scores(0.0)).map(|(with, without)| with - without).collect()
}

/// Hands the centre views of the examples to `take`, in batches; of clips their frames, each as an image.
fn visit_pixels(
    backbone: &Backbone,
    examples: &[Example],
    clips: Option<&ClipConfig>,
    take: &mut dyn FnMut(Tensor<4>),
) -> inarch_core::Result<()> {
    let one = |(index, example)| jobs(example, clips, Purpose::Test(0), &View::Centre, index);
    let jobs: Vec<ImageJob> = examples.iter().enumerate().flat_map(one).collect();
    let loader = Loader::new(backbone.preprocess().clone())?;
    loader.run(&jobs, |batch| -> inarch_core::Result<()> {
        take(backbone.pixels(batch.pixels, batch.shape)?);
        Ok(())
    })?;
    Ok(())
}

/// At most [`CURVE_POINTS`] means of equal stretches.
fn thin(losses: &[f32]) -> Vec<f32> {
    let stretch = losses.len().div_ceil(CURVE_POINTS).max(1);
    losses.chunks(stretch).map(|part| part.iter().sum::<f32>() / part.len() as f32).collect()
}
