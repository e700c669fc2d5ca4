//! Runs a benchmark.

use std::collections::HashSet;
use std::path::Path;
use std::time::Instant;

use inarch_core::backbone::Backbone;
use inarch_core::data::{Dataset, Example};
use inarch_core::image::OnBadImage;
use inarch_core::{Digest, DigestBuilder, file};
use inarch_recipes::report::render;
use inarch_recipes::{Control, ReportHead, Session, Subset};

use super::evaluate::{evaluate_step, zero_shot};
use super::page::stream_page;
use super::progress::{Progress, RunFolder};
use super::recipe::Protocol;
use super::report::{Failure, SeedResult, StrategyResult, StreamReport};
use crate::error::{Error, Result};
use crate::learner::{Arrival, LearnerConfig, Setting};
use crate::measure::{negative_flips, positive_flips};
use crate::stream::Stream;

/// Runs every strategy under every seed, into `folder`. What the folder holds already is not done again; a run that was
/// stopped or killed goes on after its last experience, within a training after its last saved step.
///
/// # Errors
/// Faults of recipe, data and training, or an interruption after the state was saved.
pub fn run_stream(
    backbone: &Backbone,
    datasets: &[Dataset],
    protocol: &Protocol,
    policy: OnBadImage,
    folder: &Path,
    control: Control<'_>,
) -> Result<StreamReport> {
    backbone.need_features("learning from a stream")?;
    let templates = protocol.fit.templates.resolve()?;
    let mut results: Vec<Vec<SeedResult>> = vec![Vec::new(); protocol.strategies.len()];
    let (mut names, mut skipped, mut data, mut failures) = (Vec::new(), Vec::new(), String::new(), Vec::new());
    for seed in &protocol.recipe.seeds {
        let mut stream = Stream::new(datasets, &protocol.recipe.stream, *seed, &folder.join("domains"))?;
        let session = Session::new(backbone, &stream.dataset, Subset::All, policy, control)?;
        // All features once, which also tells what cannot be read.
        let all: Vec<Example> =
            stream.experiences.iter().flat_map(|part| part.train.iter().chain(&part.test)).cloned().collect();
        let features = session.features(&all)?;
        if !features.bad.is_empty() {
            let read: HashSet<&str> = features.kept.iter().map(|position| all[*position].id.as_str()).collect();
            stream.leave_out(&|example: &Example| !read.contains(example.id.as_str()));
            for path in features.bad.iter().map(|bad| bad.path.display().to_string()) {
                // Another seed may choose others.
                if !skipped.contains(&path) {
                    skipped.push(path);
                }
            }
        }
        stream.need_images()?;
        if names.is_empty() {
            names = stream.experiences.iter().map(|experience| experience.name.clone()).collect();
            data.clone_from(&stream.dataset.name);
        }
        let baseline = zero_shot(&session, &stream, &templates)?;
        let setting = Setting { session: &session, templates: &templates, seed: *seed };
        let examples = stream.experiences.iter().flat_map(|part| part.train.iter().chain(&part.test));
        let contents = stream.dataset.contents(examples);
        for (strategy, results) in protocol.strategies.iter().zip(&mut results) {
            control.progress.say(&format!("{} with seed {seed}", strategy.name()));
            let root = folder.join(label(protocol, strategy)).join(format!("seed-{seed}"));
            let run = identity(&setting, &stream, protocol, strategy, &contents);
            match run_one(&setting, &stream, protocol, strategy, run, root, control) {
                Ok(progress) => results.push(result(*seed, &stream, &baseline, progress)),
                // One strategy that diverges or does not fit the data must not cost the others.
                Err(error) if is_of_strategy(&error) && protocol.strategies.len() > 1 => {
                    let strategy = label(protocol, strategy);
                    failures.push(Failure { strategy, seed: *seed, reason: error.to_string() });
                }
                Err(error) => return Err(error),
            }
        }
    }
    let strategies = protocol
        .strategies
        .iter()
        .zip(results)
        .filter(|(_, seeds)| !seeds.is_empty())
        .map(|(strategy, seeds)| StrategyResult::new(label(protocol, strategy), strategy.identity(), seeds))
        .collect();
    let report = StreamReport {
        head: ReportHead::new(backbone),
        recipe: protocol.recipe.clone(),
        data,
        experiences: names,
        skipped,
        strategies,
        failures,
    };
    let recipe = toml::to_string(&protocol.recipe.led_from(folder)).unwrap_or_default();
    file::write(&folder.join("recipe.toml"), recipe.as_bytes())?;
    file::write_json(&folder.join("report.json"), &report)?;
    let page = render(&stream_page(&report)).map_err(inarch_recipes::Error::from)?;
    file::write(&folder.join("report.html"), page.as_bytes())?;
    Ok(report)
}

/// Whether a fault is of a strategy or its settings, and not of the disk or the user's wish to stop.
fn is_of_strategy(error: &Error) -> bool {
    use inarch_recipes::Error as RecipeError;
    let own = |error: &inarch_core::Error| matches!(error, inarch_core::Error::Invalid { .. });
    match error {
        Error::Core(error) | Error::Recipe(RecipeError::Core(error)) => own(error),
        Error::Peft(_) => true,
        Error::Recipe(error) => {
            matches!(
                error,
                RecipeError::Diverged { .. }
                    | RecipeError::Unbounded { .. }
                    | RecipeError::Recipe { .. }
                    | RecipeError::Peft(_)
            )
        }
        _ => false,
    }
}

/// A strategy's name, with a number where a recipe has it with several settings.
fn label(protocol: &Protocol, strategy: &LearnerConfig) -> String {
    let same: Vec<&LearnerConfig> =
        protocol.strategies.iter().filter(|other| other.name() == strategy.name()).collect();
    match same.iter().position(|other| *other == strategy) {
        Some(at) if same.len() > 1 => format!("{}-{}", strategy.name(), at + 1),
        _ => strategy.name().to_string(),
    }
}

fn run_one(
    setting: &Setting<'_>,
    stream: &Stream,
    protocol: &Protocol,
    strategy: &LearnerConfig,
    run: Digest,
    root: std::path::PathBuf,
    control: Control<'_>,
) -> Result<Progress> {
    let folder = RunFolder { root };
    let mut progress = folder.load(&run)?;
    if progress.done() == stream.experiences.len() {
        return Ok(progress);
    }
    let mut learner = strategy.build(&protocol.fit, protocol.recipe.memory);
    if progress.done() > 0 {
        learner.load(&folder.state(progress.done()), setting)?;
        control.progress.say(&format!("going on after experience {}", progress.done()));
    }
    for index in progress.done()..stream.experiences.len() {
        if control.stopped() {
            let (step, steps) = (index, stream.experiences.len());
            return Err(Error::Recipe(inarch_recipes::Error::Interrupted { step, steps }));
        }
        let started = Instant::now();
        let earlier: Vec<Example> =
            stream.experiences[..index].iter().flat_map(|experience| experience.train.iter()).cloned().collect();
        let arrival = Arrival {
            index,
            classes: stream.known(index),
            train: &stream.experiences[index].train,
            earlier: &earlier,
            source: "stream",
            time: index as u64,
            chunk: stream.chunk,
        };
        learner.learn(&arrival, setting, &folder.training())?;
        let artifact = learner.artifact(setting)?;
        progress.seconds.push(rounded(started.elapsed().as_secs_f64()));
        let row = evaluate_step(setting.session, &artifact, stream, index)?;
        if index > 0 {
            let [before, after] = [&progress.right[..index], &row.right[..index]]
                .map(|right| right.iter().flatten().copied().collect::<Vec<_>>());
            progress.flips.push(rounded(negative_flips(&before, &after)));
            progress.positive_flips.push(rounded(positive_flips(&before, &after)));
        }
        progress.seen.push(rounded(row.seen()));
        progress.matrix.rows.push(row.accuracies.into_iter().map(|accuracy| accuracy.map(rounded)).collect());
        progress.right = row.right;
        progress.bytes.push(learner.bytes());
        folder.save(&progress, |into| {
            learner.save(into)?;
            // The adapter itself, to be used like any other.
            Ok(artifact.save(&into.join("adapter"))?)
        })?;
    }
    Ok(progress)
}

/// To twelve decimals, which is what comes back unchanged from a file.
fn rounded(value: f64) -> f64 {
    (value * 1e12).round() / 1e12
}

fn result(seed: u64, stream: &Stream, zero_shot: &[f64], progress: Progress) -> SeedResult {
    let baseline: Vec<Option<f64>> = zero_shot.iter().copied().map(Some).collect();
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
    SeedResult {
        seed,
        classes: stream.classes.clone(),
        measures: progress.matrix.measures(&baseline),
        zero_shot: zero_shot.to_vec(),
        average: mean(&progress.seen),
        last: progress.seen.last().copied().unwrap_or(0.0),
        negative_flips: mean(&progress.flips),
        positive_flips: mean(&progress.positive_flips),
        bytes: progress.bytes.last().copied().unwrap_or(0),
        seconds: progress.seconds.iter().sum(),
        matrix: progress.matrix,
        seen: progress.seen,
    }
}

/// Identity of a run: strategy, settings, backbone, and every example in its place, with the `contents` of all.
fn identity(
    setting: &Setting<'_>,
    stream: &Stream,
    protocol: &Protocol,
    strategy: &LearnerConfig,
    contents: &Digest,
) -> Digest {
    let mut builder = DigestBuilder::default();
    builder.piece(strategy.identity().as_bytes());
    builder.piece(protocol.fit.to_toml().as_bytes());
    builder.piece(serde_json::to_string(&protocol.recipe.memory).unwrap_or_default().as_bytes());
    builder.piece(setting.session.backbone().digest().to_string().as_bytes());
    builder.piece(format!("{} {:?} {:?}", setting.seed, stream.labels, stream.chunk).as_bytes());
    if let Some(window) = protocol.recipe.window {
        // How an image is shown is no part of its id.
        builder.piece(format!("window {window}").as_bytes());
    }
    builder.piece(contents.to_string().as_bytes());
    setting.templates.iter().for_each(|template| {
        builder.piece(template.to_string().as_bytes());
    });
    for class in &stream.classes {
        builder.piece(class.as_bytes());
    }
    for experience in &stream.experiences {
        builder.piece(experience.name.as_bytes());
        for example in experience.train.iter().chain(&experience.test) {
            builder.piece(example.id.as_bytes()).piece(&(example.label as u64).to_le_bytes());
        }
    }
    builder.finish()
}
