//! Methods beside each other: every method at every number of shots and every seed, on one data set.

mod ledger;
mod page;
mod summary;

use std::path::{Path, PathBuf};

use inarch_core::backbone::Backbone;
use inarch_core::data::{Dataset, Example, validation_shots};
use inarch_core::image::OnBadImage;
use inarch_core::text::Template;
use inarch_core::{Digest, DigestBuilder, Seed, file};
use serde::{Deserialize, Serialize};

use self::ledger::Ledger;
pub use self::ledger::Run;
use self::page::comparison_page;
pub use self::summary::{BaseToNew, Comparison, Line, ZeroShot};
use crate::control::{Control, Silent};
use crate::error::{Error, Result};
use crate::fit_report::FitReport;
use crate::recipe::{Recipe, Subset};
use crate::recipe_layers::RecipeLayers;
use crate::report::render;
use crate::report_head::reset_peak_memory;
use crate::session::Session;

/// What is compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompareConfig {
    /// The methods.
    pub methods: Vec<String>,
    /// Training images of each class.
    pub shots: Vec<usize>,
    /// Seeds.
    pub seeds: Vec<u64>,
    /// The authors' own schedules where the presets are shorter.
    pub official: bool,
    /// Templates that classes are described with, in place of the presets'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub templates: Option<Vec<Template>>,
    /// Settings of all methods, `key=value`.
    pub set: Vec<String>,
    /// Settings that are chosen on validation images; the methods' own are kept when there are none.
    pub tune: Vec<Axis>,
    /// Train on the first half of the classes and test on both halves.
    pub base_to_new: bool,
}

/// A setting with the values that are tried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Axis {
    /// The setting, e.g. `train.optimizer.lr`.
    pub key: String,
    /// Its values.
    pub values: Vec<String>,
}

/// One fit of a comparison.
struct Job {
    method: String,
    shots: usize,
    seed: u64,
    /// One recipe for each combination of the tuned settings, with what was set.
    recipes: Vec<(String, Recipe)>,
}

/// Runs what is missing of a comparison in `folder` and writes its report there. Runs that are done, by earlier calls too,
/// are kept as long as recipe, backbone and data are the same, down to the bytes of every image.
///
/// # Errors
/// An unknown method or setting before anything runs; faults of data and disk; an interruption, after which the same call
/// goes on. A run that fails by itself (its loss diverges) is listed as failed.
pub fn compare(
    backbone: &Backbone,
    dataset: &Dataset,
    config: &CompareConfig,
    policy: OnBadImage,
    folder: &Path,
    control: Control<'_>,
) -> Result<Comparison> {
    let jobs = jobs(config)?;
    let otherwise = |(_, recipe): &(String, Recipe)| recipe.clips.is_some() && recipe.clips != dataset.clips;
    if jobs.iter().flat_map(|job| &job.recipes).any(otherwise) {
        let reason = "clips are read alike in all runs; say how by `--frames` and its neighbours, not by `clips`";
        return Err(Error::Recipe { origin: "comparison".into(), reason: reason.into() });
    }
    let inner = Control { progress: &Silent, ..control };
    let subset = if config.base_to_new { Subset::Base } else { Subset::All };
    let session = Session::new(backbone, dataset, subset, policy, inner)?;
    let unseen = match config.base_to_new {
        true => Some(Session::new(backbone, dataset, Subset::New, policy, inner)?),
        false => None,
    };
    session.need_frozen()?;
    file::create_folder(folder)?;
    let mut ledger = Ledger::open(folder)?;
    let contents = dataset.contents(dataset.examples().map(|(_, example)| example));
    let keys = jobs.iter().map(|job| job.key(config, &session, &contents)).collect::<Result<Vec<Digest>>>()?;
    let before: Vec<bool> = keys.iter().map(|key| ledger.get(key).is_some()).collect();
    control.progress.start("compare", jobs.len() as u64);
    control.progress.resume(before.iter().filter(|done| **done).count() as u64);
    let mut runs = Vec::new();
    for ((job, key), before) in jobs.iter().zip(keys).zip(before) {
        let run = match ledger.get(&key) {
            Some(run) => run.clone().with_train_seconds(&job.folder_of(run.chosen.as_deref(), folder)),
            None => {
                let run = job.run(key, &session, unseen.as_ref(), folder)?;
                control.progress.say(&run.line());
                ledger.add(run.clone())?;
                run
            }
        };
        if !before {
            control.progress.advance(1, &format!("{} {} shots", run.method, run.shots));
        }
        runs.push(run);
    }
    control.progress.finish();
    let comparison = Comparison::new(config, &session, unseen.as_ref(), &runs)?;
    file::write_json(&folder.join("report.json"), &comparison)?;
    file::write(&folder.join("table.md"), comparison.markdown().as_bytes())?;
    file::write(&folder.join("report.html"), render(&comparison_page(&comparison))?.as_bytes())?;
    Ok(comparison)
}

/// Every run, resolved before the first one starts; all methods of a seed and a number of shots before the next, so that an
/// early stop leaves rows that can be compared.
fn jobs(config: &CompareConfig) -> Result<Vec<Job>> {
    let fault = |reason: &str| Error::Recipe { origin: "comparison".into(), reason: reason.into() };
    if config.methods.is_empty() || config.shots.is_empty() || config.seeds.is_empty() {
        return Err(fault("at least one method, one number of shots and one seed are needed"));
    }
    if config.shots.contains(&0) {
        return Err(fault("shots must be at least 1"));
    }
    let mut choices: Vec<Vec<String>> = vec![Vec::new()];
    for Axis { key, values } in &config.tune {
        if values.is_empty() {
            return Err(fault(&format!("`{key}` is to be tuned but has no values")));
        }
        let with = |choice: &[String], value: &String| [choice, &[format!("{key}={value}")]].concat();
        choices = choices.iter().flat_map(|choice| values.iter().map(move |value| with(choice, value))).collect();
    }
    let mut jobs: Vec<Job> = Vec::new();
    for seed in &config.seeds {
        for shots in &config.shots {
            for method in &config.methods {
                let same = |job: &Job| (job.seed, job.shots, &job.method) == (*seed, *shots, method);
                if jobs.iter().any(same) {
                    // Given twice it is one run, which must not count twice.
                    continue;
                }
                let recipe = |choice: &Vec<String>| -> Result<(String, Recipe)> {
                    let mut layers = RecipeLayers::preset(method, config.official)?;
                    config.templates.iter().for_each(|templates| layers.describe(templates));
                    let own = [format!("shots={shots}"), format!("seed={seed}")];
                    for assignment in own.iter().chain(&config.set).chain(choice) {
                        layers.set(assignment)?;
                    }
                    let mut recipe = layers.finish()?;
                    recipe.subset = if config.base_to_new { Subset::Base } else { Subset::All };
                    Ok((choice.join(" "), recipe))
                };
                let recipes = choices.iter().map(recipe).collect::<Result<_>>()?;
                jobs.push(Job { method: method.clone(), shots: *shots, seed: *seed, recipes });
            }
        }
    }
    Ok(jobs)
}

impl Job {
    /// Identity of a run: all that decides its result, with the `contents` of the data.
    fn key(&self, config: &CompareConfig, session: &Session<'_>, contents: &Digest) -> Result<Digest> {
        let mut builder = DigestBuilder::default();
        for (_, recipe) in &self.recipes {
            builder.piece(recipe.identity()?.as_bytes());
        }
        builder.piece(session.backbone().digest().to_string().as_bytes());
        builder.piece(session.dataset().digest().to_string().as_bytes());
        builder.piece(contents.to_string().as_bytes());
        if let Some(clips) = &session.dataset().clips {
            builder.piece(format!("{clips:?}").as_bytes());
        }
        builder.piece(if config.base_to_new { b"base to new" } else { b"all classes" });
        Ok(builder.finish())
    }

    /// Where the run of a recipe stands in the folder of the comparison.
    fn folder(&self, index: usize, folder: &Path) -> PathBuf {
        let name = format!("{}-{}-shot-seed-{}", self.method, self.shots, self.seed);
        let tuned = self.recipes.get(index).is_some_and(|(choice, _)| !choice.is_empty());
        folder.join("runs").join(if tuned { format!("{name}-{index}") } else { name })
    }

    /// The same by what was chosen.
    fn folder_of(&self, chosen: Option<&str>, folder: &Path) -> PathBuf {
        let index = self.recipes.iter().position(|(choice, _)| choice == chosen.unwrap_or_default());
        self.folder(index.unwrap_or(0), folder)
    }

    /// Fits, chooses where there is a choice, and measures.
    fn run(&self, key: Digest, session: &Session<'_>, unseen: Option<&Session<'_>>, folder: &Path) -> Result<Run> {
        let blank = Run::new(key, &self.method, self.shots, self.seed);
        match self.best(session, unseen, folder) {
            Ok((choice, report, new)) => Ok(blank.done(&choice, &report, new)),
            Err(error @ (Error::Diverged { .. } | Error::Unbounded { .. })) => {
                Ok(Run { failure: Some(error.to_string()), ..blank })
            }
            Err(error) => Err(error),
        }
    }

    /// The chosen settings, their report, and the accuracy on new classes where that is asked for.
    fn best(
        &self,
        session: &Session<'_>,
        unseen: Option<&Session<'_>>,
        folder: &Path,
    ) -> Result<(String, FitReport, Option<f64>)> {
        let validation: Vec<Example> = match self.recipes.len() {
            1 => Vec::new(),
            _ => validation_shots(session.dataset(), self.shots, Seed::new(self.seed).split("few-shot"))?,
        };
        if self.recipes.len() > 1 && validation.is_empty() {
            let reason =
                "it has no image to choose settings on that training leaves; add a `val` folder or take fewer shots";
            return Err(inarch_core::Error::invalid(format!("data set `{}`", session.dataset().name), reason).into());
        }
        let mut best: Option<(f64, String, FitReport, Option<f64>)> = None;
        for (index, (choice, recipe)) in self.recipes.iter().enumerate() {
            reset_peak_memory();
            let (artifact, report) = session.fit(recipe, &self.folder(index, folder))?;
            let score =
                if validation.is_empty() { 0.0 } else { session.validate(&artifact, &validation)?.metrics.accuracy };
            if best.as_ref().is_some_and(|(known, ..)| *known >= score) {
                continue;
            }
            // Where words have no features every method learns its classes.
            let new = match unseen.filter(|_| !artifact.manifest.method.bound_to_classes()) {
                Some(unseen) => Some(unseen.evaluate(&artifact)?.metrics.accuracy),
                None => None,
            };
            best = Some((score, choice.clone(), report, new));
        }
        let (_, choice, report, new) = best.ok_or_else(|| Error::Recipe {
            origin: "comparison".into(),
            reason: "no combination of settings to try".into(),
        })?;
        Ok((choice, report, new))
    }
}
