//! One training of a longer story: some classes, some examples, an adapter to go on from.

use std::path::Path;

use burn::tensor::Tensor;
use inarch_core::backbone::{Entry, Frozen, Pass, Sites, Stack, Tower};
use inarch_core::data::{ClipConfig, Example, Source};
use inarch_core::{Digest, DigestBuilder, Seed};
use inarch_peft::{Adapter, Classifier, Loss, Parameters, Start, Step, identified};

use crate::balance::Balance;
use crate::clips::frames;
use crate::companion::Companion;
use crate::encode::{ImageFeatures, Views, encode_images};
use crate::error::{Error, Result};
use crate::evaluate::shares_image_features;
use crate::fitting::{Fitted, Fitting, training_views};
use crate::gradient::host_gradients;
use crate::objective::{Images, Objective, TextSide};
use crate::recipe::Recipe;
use crate::saved_run::SavedRun;
use crate::session::Session;
use crate::shards::text_shards;

/// Images of a pass that is watched.
const WATCHED: usize = 64;

/// What is to be trained.
pub struct Task<'t> {
    /// Method, optimisation and seed.
    pub recipe: &'t Recipe,
    /// The classes; labels of the examples are indices into it.
    pub classes: &'t [String],
    /// The examples that the epochs go through.
    pub train: Vec<Example>,
    /// Examples that a companion may add to batches.
    pub rehearsal: Vec<Example>,
    /// How many views of one image follow each other in `rehearsal`, all images in the first view, then all in the next: together
    /// they count as one image.
    pub views: usize,
    /// Where to start; a fresh adapter when absent.
    pub start: Option<Adapter>,
    /// Tells this training from others of the same examples, so that a saved state cannot be taken for another's.
    pub identity: Digest,
}

/// What a training gave.
pub struct Learned {
    /// The trained adapter, as plain values.
    pub adapter: Adapter,
    /// The loss of each step.
    pub losses: Vec<f32>,
}

impl Session<'_> {
    /// A fresh adapter for some classes, on the device that trains.
    ///
    /// # Errors
    /// A setting outside its domain, a class name that the tokenizer refuses, or a method that starts from images.
    pub fn fresh_adapter(&self, recipe: &Recipe, classes: &[String]) -> Result<Adapter> {
        if recipe.method.needs_support() {
            let reason = "it starts from the images of all its classes and cannot be trained on".to_string();
            return Err(Error::Recipe { origin: format!("method {}", recipe.method.name()), reason });
        }
        let templates = recipe.templates.resolve()?;
        let features = Classifier::zero_shot(self.backbone, classes, &templates)?.features(&Frozen);
        let device = self.backbone.device().clone().autodiff();
        let start = Start::new(self.backbone, &features, Seed::new(recipe.seed).split("init"), &device);
        Ok(identified(recipe.method.init(&start)?))
    }

    /// Trains with a companion. An unfinished training in `folder` is continued; the result is the same as without
    /// interruption. `folder` is empty of state in the end.
    ///
    /// # Errors
    /// Faults of recipe and data, a diverged loss, or [`Error::Interrupted`] after the state was saved.
    pub fn learn(&self, task: Task<'_>, companion: &mut dyn Companion, folder: &Path) -> Result<Learned> {
        let Task { recipe, classes, train, rehearsal, views, start, identity } = task;
        let recipe = &Recipe { clips: self.dataset.clips.clone(), ..recipe.clone() };
        let adapter = match start {
            Some(adapter) => self.to_train(adapter)?,
            None => self.fresh_adapter(recipe, classes)?,
        };
        self.check_sources(recipe, &adapter, train.iter().chain(&rehearsal))?;
        let images = rehearsal.len() / views.max(1);
        let all: Vec<Example> = train.iter().chain(&rehearsal[..images]).cloned().collect();
        let balance = Balance::new(recipe.train.imbalance, classes.len(), &all, None)?;
        let objective = self.objective(recipe, classes, &adapter, balance)?;
        let mut identity = task_identity(&identity, recipe, classes, &train, &rehearsal);
        identity.piece(self.dataset.contents(&train).to_string().as_bytes());
        let run = SavedRun::new(folder, identity.finish());
        let mut fitting = Fitting::new(self, recipe, train, objective, adapter).with_companion(companion, rehearsal);
        if let Some((step, state)) = run.load()? {
            fitting.load(step, &state)?;
            self.control.progress.say(&format!("going on from step {step} of {}", fitting.steps));
        }
        fitting.run(&run)?;
        let Fitted { adapter, losses, .. } = fitting.finish()?;
        if folder.is_dir() {
            run.clear()?;
        }
        Ok(Learned { adapter, losses })
    }

    /// Gradients of a loss for single examples, in evaluation mode. `loss` is given one example at a time with its
    /// position, `take` its gradients.
    ///
    /// # Errors
    /// As [`learn`](Self::learn).
    pub fn sample_gradients(
        &self,
        (recipe, classes, adapter): (&Recipe, &[String], &Adapter),
        examples: &[Example],
        loss: &dyn Fn(usize, &Step<'_>) -> Tensor<1>,
        take: &mut dyn FnMut(&Parameters),
    ) -> Result<()> {
        let adapter = self.to_train(adapter.clone())?;
        self.check_sources(recipe, &adapter, examples.iter())?;
        let objective = self.objective(recipe, classes, &adapter, Balance::default())?;
        let stored = self.before_adapter(&adapter, examples)?;
        for (row, position) in stored.kept.iter().enumerate() {
            let pass = Pass { frames: frames(self.dataset.clips.as_ref()), ..Pass::evaluate() };
            let (image, frozen) = self.image(&adapter, &stored, row, &pass);
            let images = Images { adapted: image, frozen, examples: &[*position] };
            let of_step = |step: &Step<'_>| Loss::plain(loss(*position, step));
            let loss = objective.loss_by(self.backbone, &adapter, images, TextSide::Classes, examples, &pass, &of_step);
            take(&host_gradients(&adapter, &loss.task.backward()));
        }
        Ok(())
    }

    /// Scores `[examples, classes]` of examples in evaluation mode, row-major.
    ///
    /// # Errors
    /// As [`learn`](Self::learn).
    pub fn scores(
        &self,
        (recipe, classes, adapter): (&Recipe, &[String], &Adapter),
        examples: &[Example],
    ) -> Result<Vec<f32>> {
        let templates = recipe.templates.resolve()?;
        let adapter = adapter.clone().without_autodiff();
        self.check_sources(recipe, &adapter, examples.iter())?;
        let classifier = Classifier::adapted(self.backbone, &recipe.method, classes, classes, &templates)?;
        let features = self.adapted_features(&adapter, examples)?;
        Ok(crate::evaluate::score(self.backbone, &classifier, adapter.sites(), &features))
    }

    /// Image features of examples through an adapter, from the centre view.
    ///
    /// # Errors
    /// An image that cannot be read.
    pub fn adapted_features(&self, adapter: &Adapter, examples: &[Example]) -> Result<ImageFeatures> {
        let Self { backbone, dataset, policy, control, .. } = self;
        if shares_image_features(adapter.sites()) {
            return Ok(self.frozen(Entry::Feature, examples, &Views::Centre)?.through(adapter.sites(), backbone));
        }
        encode_images(backbone, adapter.sites(), dataset, examples, &Views::Centre, *policy, *control)
    }

    /// Runs examples, and the texts of some classes, through an adapter and `watcher` behind it, in evaluation mode and in a
    /// fixed order: through those of the towers that the adapter changes.
    ///
    /// # Errors
    /// As [`learn`](Self::learn), and texts that depend on the image.
    pub fn watch(
        &self,
        (recipe, classes, adapter): (&Recipe, &[String], &Adapter),
        (examples, texts): (&[Example], &[String]),
        watcher: &dyn Sites,
    ) -> Result<()> {
        let adapter = adapter.clone().without_autodiff();
        self.check_sources(recipe, &adapter, examples.iter())?;
        let sites = Stack(vec![adapter.sites(), watcher]);
        if adapter.entry(Tower::Image) < Entry::Feature {
            let pass = Pass { frames: frames(self.dataset.clips.as_ref()), ..Pass::evaluate() };
            for part in examples.chunks(WATCHED) {
                let stored = self.frozen(sites.entry(Tower::Image), part, &Views::Centre)?;
                let rows = (0..stored.kept.len()).map(|row| (row, 0));
                let _ = self.backbone.finish(Tower::Image, stored.partial(rows, self.backbone), &sites, &pass);
            }
        }
        if adapter.entry(Tower::Text) < Entry::Feature && !texts.is_empty() {
            if adapter.conditions_text() {
                let reason = "its texts depend on the image, so that they cannot be watched by themselves".to_string();
                return Err(Error::Recipe { origin: format!("method {}", recipe.method.name()), reason });
            }
            let templates = recipe.templates.resolve()?;
            let _ = Classifier::adapted(self.backbone, &recipe.method, classes, texts, &templates)?.features(&sites);
        }
        Ok(())
    }

    fn before_adapter(&self, adapter: &Adapter, examples: &[Example]) -> Result<ImageFeatures> {
        self.frozen(adapter.entry(Tower::Image).min(Entry::Feature), examples, &Views::Centre)
    }

    fn image(
        &self,
        adapter: &Adapter,
        stored: &ImageFeatures,
        row: usize,
        pass: &Pass<'_>,
    ) -> (Tensor<2>, Option<Tensor<2>>) {
        let pair = [(row, 0)].into_iter();
        if stored.entry == Entry::Feature {
            let frozen = stored.gather(pair, self.backbone);
            return (adapter.feature(Tower::Image, frozen.clone(), pass), Some(frozen));
        }
        let partial = stored.partial(pair, self.backbone);
        (self.backbone.finish(Tower::Image, partial, adapter.sites(), pass), None)
    }

    fn objective(
        &self,
        recipe: &Recipe,
        classes: &[String],
        adapter: &Adapter,
        balance: Balance,
    ) -> Result<Objective<'_>> {
        let templates = recipe.templates.resolve()?;
        let classifier = Classifier::adapted(self.backbone, &recipe.method, classes, classes, &templates)?;
        let text = classifier.parts(adapter.sites(), text_shards(classes.len()));
        Ok(Objective::Classify { classifier, text, balance })
    }

    /// The same adapter on the autodiff device, with identities that an optimizer's saved state finds.
    fn to_train(&self, adapter: Adapter) -> Result<Adapter> {
        let device = self.backbone.device().clone().autodiff();
        let parameters = adapter.parameters();
        let adapter = adapter
            .with_parameters(parameters, &device)
            .map_err(|reason| inarch_core::Error::invalid("adapter to be trained further", reason))?;
        Ok(identified(adapter))
    }

    /// An adapter that changes the image tower needs images.
    fn check_sources<'e>(
        &self,
        recipe: &Recipe,
        adapter: &Adapter,
        mut examples: impl Iterator<Item = &'e Example>,
    ) -> Result<()> {
        let images = adapter.entry(Tower::Image) >= Entry::Feature;
        match examples.find(|example| !images && matches!(example.source, Source::Row(_))) {
            None => Ok(()),
            Some(example) => Err(Error::Recipe {
                origin: format!("method {}", recipe.method.name()),
                reason: format!(
                    "it changes the image tower and needs images, but of `{}` there is only a feature; rehearse images \
                     (`memory.content = \"images\"`) or use a method that works on features",
                    example.id
                ),
            }),
        }
    }
}

/// Identity of a training: what it was told apart by, its settings, the names of its examples.
fn task_identity(
    identity: &Digest,
    recipe: &Recipe,
    classes: &[String],
    train: &[Example],
    rehearsal: &[Example],
) -> DigestBuilder {
    let recipe = Recipe { backbone: None, data: None, root: None, ..recipe.clone() };
    let mut builder = DigestBuilder::default();
    builder.piece(identity.to_string().as_bytes()).piece(recipe.to_toml().as_bytes());
    let names = classes.iter().chain(train.iter().chain(rehearsal).map(|example| &example.id));
    for name in names {
        builder.piece(name.as_bytes());
    }
    builder
}

/// The view that every training image is seen in when nothing is to be drawn.
pub(crate) fn is_centre_only(recipe: &Recipe) -> bool {
    recipe.augment.draws_nothing() && !recipe.clips.as_ref().is_some_and(ClipConfig::draws)
}

/// The fixed views of a training, one centre view where nothing is drawn.
pub(crate) fn views_of(recipe: &Recipe, count: usize) -> Views {
    if is_centre_only(recipe) { Views::Centre } else { training_views(recipe, count) }
}
