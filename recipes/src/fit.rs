//! Training an adapter: a recipe to an artifact and a report.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use burn::tensor::Tensor;
use inarch_core::backbone::Frozen;
use inarch_core::data::{Example, few_shot};
use inarch_core::text::Template;
use inarch_core::{Digest, DigestBuilder, Seed, file};
use inarch_peft::{Adapter, Artifact, Classifier, Provenance, Start, identified};

use crate::error::{Error, Result};
use crate::evaluate::shares_image_features;
use crate::fit_page::fit_page;
use crate::fit_report::{DataReport, FitReport, Timing, peak_memory_bytes};
use crate::fitting::{Fitting, Objective};
use crate::pretrain::PairSet;
use crate::recipe::Recipe;
use crate::report::render;
use crate::saved_run::SavedRun;
use crate::session::Session;

/// Points of the loss curve in a report.
const CURVE_POINTS: usize = 200;

impl<'a> Session<'a> {
    /// Trains an adapter to classify, into `folder`. An unfinished run in `folder` is continued; the result is the same
    /// bytes as without interruption.
    ///
    /// # Errors
    /// Faults of recipe and data, a diverged loss, or [`Error::Interrupted`] after the state was saved.
    pub fn fit(&self, recipe: &Recipe, folder: &Path) -> Result<(Artifact, FitReport)> {
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
        let class_features = Classifier::zero_shot(self.backbone, classes, &templates)?.features(&Frozen);
        let adapter = self.fresh(recipe, &class_features)?;
        let classifier = Classifier::adapted(self.backbone, &recipe.method, classes, classes, &templates)?;
        let text = classifier.start(adapter.sites());
        self.train(recipe, train, Objective::Classify { classifier, text }, adapter, &templates, folder)
    }

    /// Trains an adapter on image-text pairs with the contrastive loss, into `folder`; resumable like
    /// [`fit`](Self::fit). The session's data set must be [`PairSet::dataset`] of the same pairs.
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
        let class_features = Tensor::zeros([1, self.backbone.spec().dim], self.backbone.device());
        let adapter = self.fresh(recipe, &class_features)?;
        let templates = recipe.templates.resolve()?;
        let train = self.dataset.train.clone();
        self.train(recipe, train, Objective::Match(pairs), adapter, &templates, folder)
    }

    /// A fresh adapter on the autodiff device.
    fn fresh(&self, recipe: &Recipe, class_features: &Tensor<2>) -> Result<Adapter> {
        let device = self.backbone.device().clone().autodiff();
        let seed = Seed::new(recipe.seed).split("init");
        Ok(identified(recipe.method.init(&Start::new(self.backbone, class_features, seed, &device))?))
    }

    fn train(
        &self,
        recipe: &Recipe,
        train: Vec<Example>,
        objective: Objective<'_>,
        adapter: Adapter,
        templates: &[Template],
        folder: &Path,
    ) -> Result<(Artifact, FitReport)> {
        let started = Instant::now();
        let on_features = shares_image_features(adapter.sites());
        if !on_features && self.dataset.features.is_some() {
            return Err(Error::Recipe {
                origin: format!("method {}", recipe.method.name()),
                reason: format!("it changes the image tower and needs images; `{}` holds features", self.dataset.name),
            });
        }
        let run = SavedRun::new(folder, self.identity(recipe, &train));
        let mut fitting = Fitting::new(self, recipe, train, objective, adapter);
        if let Some((step, state)) = run.load()? {
            fitting.load(step, &state)?;
            self.control.progress.say(&format!("going on from step {step} of {}", fitting.steps));
        }
        file::create_folder(folder)?;
        let encode = if on_features { fitting.fit_features(&run)? } else { fitting.fit_images(&run)? };
        // An evaluation that is stopped must not cost the training.
        fitting.keep(&run)?;
        let trained = started.elapsed().as_secs_f64();

        let Fitting { train, adapter, losses, steps, skipped, .. } = fitting;
        let mut artifact = Artifact::new(
            adapter.without_autodiff(),
            recipe.method.clone(),
            self.backbone,
            Provenance {
                classes: self.dataset.classes.clone(),
                templates: templates.to_vec(),
                data: Some(self.dataset.digest()),
                metrics: BTreeMap::new(),
            },
        )?;
        let (zero_shot, test) = if self.dataset.test.is_empty() {
            (None, None)
        } else {
            (Some(self.zero_shot(templates)?), Some(self.evaluate(&artifact)?))
        };
        artifact.manifest.metrics = [("accuracy", &test), ("zero_shot_accuracy", &zero_shot)]
            .into_iter()
            .filter_map(|(name, evaluation)| Some((name.to_string(), evaluation.as_ref()?.metrics.accuracy)))
            .collect();
        artifact.save(folder)?;
        // Beside the result and not before it, so that a run that fails leaves an older result and its recipe alone.
        file::write(&folder.join("recipe.toml"), recipe.to_toml().as_bytes())?;
        let total = started.elapsed().as_secs_f64();
        let report = FitReport {
            inarch: env!("CARGO_PKG_VERSION"),
            recipe: recipe.clone(),
            backbone: artifact.manifest.backbone.clone(),
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
            steps,
            losses: thin(&losses),
            zero_shot,
            test,
            seconds: Timing { encode, train: trained - encode, evaluate: total - trained, total },
            peak_memory_bytes: peak_memory_bytes(),
        };
        file::write_json(&folder.join("report.json"), &report)?;
        file::write(&folder.join("report.html"), render(&fit_page(&report))?.as_bytes())?;
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

/// At most [`CURVE_POINTS`] means of equal stretches.
fn thin(losses: &[f32]) -> Vec<f32> {
    let stretch = losses.len().div_ceil(CURVE_POINTS).max(1);
    losses.chunks(stretch).map(|part| part.iter().sum::<f32>() / part.len() as f32).collect()
}
