//! `inarch fit`: train an adapter.

use std::path::{Path, PathBuf};

use inarch_core::data::Dataset;
use inarch_core::file;
use inarch_core::metrics::{Detail, MeanStd};
use inarch_core::text::TemplateSet;
use inarch_peft::MANIFEST_FILE;
use inarch_recipes::{FitReport, Recipe, RecipeLayers, ReportHead, Session, Subset};
use inarch_registry::Version;
use serde::Serialize;

use crate::args::FitArgs;
use crate::backbones;
use crate::commands::registry::publish_folder;
use crate::data::{check_apart, open};
use crate::error::CommandError;
use crate::output::{Output, percent, quoted, table};
use crate::progress::Bars;
use crate::published;

/// What is printed with `--json`.
#[derive(Serialize)]
struct FitResult {
    #[serde(flatten)]
    head: ReportHead,
    /// One entry for each seed.
    runs: Vec<FitRun>,
    /// Mean and spread over the seeds; `null` without test images.
    accuracy: Option<MeanStd>,
    /// The backbone alone; `null` without test images, or where nothing can name the classes.
    zero_shot_accuracy: Option<f64>,
    /// The version in the registry; `null` without `--publish`.
    published: Option<Version>,
}

#[derive(Serialize)]
struct FitRun {
    seed: u64,
    adapter: PathBuf,
    /// On the test images, as `ece`; both `null` without them.
    accuracy: Option<f64>,
    ece: Option<f64>,
    /// Ranking, balance and abstention; the key is absent without test images.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<Detail>,
    trainable: usize,
    steps: usize,
    seconds: f64,
}

pub(crate) fn run(args: &FitArgs, bars: &Bars, output: &Output) -> Result<(), CommandError> {
    // From here on Ctrl-C stops between steps, also while files are still being opened.
    let control = bars.control();
    let layers = layers(args)?;
    let seeds = if args.seed.is_empty() { vec![layers.clone().finish()?.seed] } else { args.seed.clone() };
    check_seeds(&seeds)?;
    let recipe = layers.finish()?;
    if args.publish.is_some() && seeds.len() > 1 {
        let hint = "give one seed, or publish one of the folders with `inarch registry publish FOLDER NAME`";
        return Err(CommandError::usage("`--publish` publishes one adapter, and there are several seeds", hint));
    }
    if let Some(name) = &args.publish {
        // A name that cannot be is said before the training, not after it.
        published::name_and_release(name)?;
    }
    let named = |what: &str, flag: &str| {
        CommandError::usage(format!("no {what} is given"), format!("give one with `{flag}` or in the recipe"))
    };
    let backbone_name = recipe.backbone.clone().ok_or_else(|| named("backbone", "-b"))?;
    let data = recipe.data.clone().ok_or_else(|| named("data set", "-d"))?;

    let device = inarch_core::device(&args.device.device)?;
    let backbone = backbones::open(&backbone_name, &device)?;
    let dataset = open(&data, recipe.data_options(), &args.data.clips, recipe.clips.as_ref(), bars)?;
    let policy = recipe.on_bad_image.into();
    let session =
        Session::new(&backbone, &dataset, recipe.subset, policy, control)?.with_measures(args.measures.config(None));
    if args.explain {
        let plan = session.plan(&recipe)?;
        output.result(&plan, || plan.to_string());
        return Ok(());
    }
    let folder = args.output.clone().unwrap_or_else(|| default_folder(&recipe, backbone.name(), &dataset.name));
    check_apart(&folder, &data)?;

    if let Some(note) = recipe.shots.and_then(|shots| too_few(session.dataset(), shots)) {
        control.progress.say(&note);
    }

    let mut reports = Vec::new();
    for seed in &seeds {
        let recipe = Recipe { seed: *seed, ..recipe.clone() };
        let folder = if seeds.len() > 1 { folder.join(format!("seed-{seed}")) } else { folder.clone() };
        let own = recipe.method.name();
        if let Some(other) = other_method(&folder, own) {
            let place = folder.display();
            let note = format!("note: `{place}` holds an adapter of method `{other}`; that of `{own}` will replace it");
            session.control().progress.say(&note);
        }
        let (artifact, report) = session.fit(&recipe, &folder)?;
        artifact.self_test(&backbone)?;
        reports.push((*seed, folder, report));
    }
    let mut result = summarise(ReportHead::new(&backbone), &reports);
    if let (Some(name), [(_, folder, _)]) = (&args.publish, &reports[..]) {
        result.published = Some(publish_folder(folder, name)?.version);
    }
    if seeds.len() > 1 {
        // Each run has its own report; this one has their mean and spread.
        file::write_json(&folder.join("report.json"), &result)?;
    }
    output.result(&result, || text(&result, &reports));
    Ok(())
}

/// Refuses a seed that is given twice: the same run again would make the spread too small.
pub(crate) fn check_seeds(seeds: &[u64]) -> Result<(), CommandError> {
    let twice = seeds.iter().enumerate().find(|(at, seed)| seeds[..*at].contains(seed));
    twice.map_or(Ok(()), |(_, seed)| {
        Err(CommandError::usage(format!("seed {seed} is given twice"), "each seed is a run of its own: give each once"))
    })
}

/// What to say of classes that have fewer training images than are asked for.
fn too_few(dataset: &Dataset, shots: usize) -> Option<String> {
    let mut counts = vec![0_usize; dataset.classes.len()];
    for example in &dataset.train {
        for label in dataset.labels_of(example) {
            counts[*label] += 1;
        }
    }
    let few = counts.iter().filter(|count| **count < shots).count();
    let (least, class) = counts.iter().zip(&dataset.classes).min()?;
    let all = counts.len();
    (few > 0).then(|| {
        format!(
            "note: {few} of {all} classes have fewer than {shots} training images, `{class}` {least}: all of theirs are \
             taken"
        )
    })
}

/// The method of the adapter that lies in a folder, if it is another one.
fn other_method(folder: &Path, own: &str) -> Option<String> {
    let manifest: serde_json::Value = file::read_json(&folder.join(MANIFEST_FILE), "adapter manifest").ok()?;
    manifest["method"]["name"].as_str().filter(|found| *found != own).map(String::from)
}

fn layers(args: &FitArgs) -> Result<RecipeLayers, CommandError> {
    if let Some(path) = args.recipe.as_deref().filter(|path| path.is_dir()) {
        return Err(CommandError::usage(
            format!("`{}` is a folder, where a recipe file is expected", path.display()),
            "a data set goes behind `-d`; a run is made again by the `recipe.toml` in its folder",
        ));
    }
    let mut layers = match (&args.recipe, &args.method) {
        (Some(path), _) => RecipeLayers::open(path)?,
        (None, Some(method)) => RecipeLayers::preset(method, args.official)?,
        (None, None) => {
            return Err(CommandError::usage(
                "neither a recipe nor a method is given",
                "`inarch fit -b pocket -d DATA -m lora --shots 16`, or `inarch fit recipe.toml`",
            ));
        }
    };
    let quoted = |path: &Path| format!("{:?}", path.display().to_string());
    let mut overrides = Vec::new();
    if let Some(backbone) = &args.backbone {
        overrides.push(format!("backbone={backbone:?}"));
    }
    if let Some(data) = &args.data.data {
        overrides.push(format!("data={}", quoted(data)));
    }
    if let Some(root) = &args.data.reading.source.root {
        overrides.push(format!("root={}", quoted(root)));
    }
    if let Some(pattern) = &args.data.reading.source.group_by {
        overrides.push(format!("group_by={pattern:?}"));
    }
    if let Some(slices) = args.data.reading.shown.slices {
        overrides.push(format!("slices=\"{slices}\""));
    }
    if let Some(window) = args.data.reading.shown.window {
        overrides.push(format!("window=\"{window}\""));
    }
    if let Some(path) = &args.descriptions {
        layers.describe(TemplateSet::descriptions(path)?.templates());
    }
    if let Some(shots) = args.shots {
        overrides.push(format!("shots={shots}"));
    }
    if let [seed] = args.seed[..] {
        overrides.push(format!("seed={seed}"));
    }
    if let Some(policy) = args.data.on_bad_image {
        overrides.push(format!("on_bad_image=\"{}\"", value_name(policy)));
    }
    if let Some(subset) = args.data.subset {
        overrides.push(format!("subset=\"{}\"", value_name(subset)));
    }
    let clips = &args.data.clips;
    for (key, value) in [
        ("frames", clips.frames),
        ("stride", clips.frame_step),
        ("views", clips.clip_views),
        ("crops", clips.clip_crops),
    ] {
        overrides.extend(value.map(|value| format!("clips.{key}={value}")));
    }
    if let Some(sampling) = clips.sampling {
        overrides.push(format!("clips.sampling=\"{}\"", value_name(sampling)));
    }
    for assignment in overrides.iter().chain(&args.set) {
        layers.set(assignment)?;
    }
    Ok(layers)
}

fn value_name(value: impl clap::ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_string()).unwrap_or_default()
}

fn default_folder(recipe: &Recipe, backbone: &str, data: &str) -> PathBuf {
    let shots = recipe.shots.map_or("all".into(), |shots| format!("{shots}-shot"));
    Path::new("runs").join(format!("{backbone}-{data}-{}-{shots}", recipe.method.name()))
}

fn summarise(head: ReportHead, reports: &[(u64, PathBuf, FitReport)]) -> FitResult {
    let runs: Vec<FitRun> = reports
        .iter()
        .map(|(seed, folder, report)| FitRun {
            seed: *seed,
            adapter: folder.clone(),
            accuracy: report.test.as_ref().map(|test| test.metrics.accuracy),
            ece: report.test.as_ref().map(|test| test.metrics.ece),
            detail: report.test.as_ref().and_then(|test| test.detail.clone()),
            trainable: report.trainable,
            steps: report.steps,
            seconds: report.seconds.total,
        })
        .collect();
    let accuracies: Vec<f64> = runs.iter().filter_map(|run| run.accuracy).collect();
    FitResult {
        head,
        accuracy: MeanStd::of(&accuracies),
        zero_shot_accuracy: reports.iter().find_map(|(_, _, report)| Some(report.zero_shot.as_ref()?.metrics.accuracy)),
        runs,
        published: None,
    }
}

fn text(result: &FitResult, reports: &[(u64, PathBuf, FitReport)]) -> String {
    let mut rows = vec![["seed", "accuracy", "ECE", "trained values", "seconds"].map(String::from).to_vec()];
    for run in &result.runs {
        rows.push(vec![
            run.seed.to_string(),
            run.accuracy.map_or("no test images".into(), percent),
            run.ece.map_or(String::new(), |ece| format!("{ece:.3}")),
            run.trainable.to_string(),
            format!("{:.1}", run.seconds),
        ]);
    }
    let mut text = table(&rows);
    if let (Some(accuracy), Some(zero_shot)) = (&result.accuracy, result.zero_shot_accuracy) {
        let baseline = reports.first().map_or("zero-shot", |(_, _, report)| report.baseline);
        text.push_str(&format!("{baseline} {}  adapted {}", percent(zero_shot), percent(accuracy.mean)));
        if accuracy.n > 1 {
            text.push_str(&format!(" ± {} over {} seeds", percent(accuracy.std), accuracy.n));
        }
        text.push('\n');
    }
    let most =
        |count: &dyn Fn(&FitReport) -> usize| reports.iter().map(|(_, _, report)| count(report)).max().unwrap_or(0);
    let trained = most(&|report| report.data.skipped.len());
    let tested = most(&|report| report.test.as_ref().map_or(0, |test| test.skipped.len()));
    for (what, skipped) in [("training", trained), ("test", tested)] {
        if skipped > 0 {
            text.push_str(&format!("{what} images that could not be read: {skipped}; report.json lists them\n"));
        }
    }
    if let Some((_, folder, report)) = reports.last() {
        text.push_str(&format!("adapter: {}\n", folder.display()));
        let adapter = result.published.as_ref().map_or(folder.display().to_string(), ToString::to_string);
        if result.published.is_some() {
            text.push_str(&format!("published: {adapter}\n"));
        }
        if let (Some(backbone), Some(data)) = (&report.recipe.backbone, &report.recipe.data) {
            let (backbone, adapter) = (quoted(backbone), quoted(&adapter));
            let (data, reading) = (quoted(&data.display().to_string()), reading(&report.recipe));
            // Without test images there is nothing to measure.
            text.push_str(&match report.test {
                Some(_) => format!("next: inarch eval -b {backbone} -d {data}{reading} -a {adapter}\n"),
                None => format!("next: inarch predict -b {backbone} -a {adapter} IMAGE\n"),
            });
        }
    }
    text
}

/// The options by which another command sees the same images of the same classes in the same splits: test images that are
/// drawn otherwise may have been trained on.
fn reading(recipe: &Recipe) -> String {
    let Recipe { root, group_by, slices, window, subset, .. } = recipe;
    let subset = match subset {
        Subset::All => None,
        Subset::Base => Some("base".to_string()),
        Subset::New => Some("new".to_string()),
    };
    let given = [
        ("--root", root.as_ref().map(|root| root.display().to_string())),
        ("--group-by", group_by.clone()),
        ("--slices", slices.as_ref().map(ToString::to_string)),
        ("--window", window.as_ref().map(ToString::to_string)),
        ("--subset", subset),
    ];
    given.into_iter().filter_map(|(option, value)| Some(format!(" {option} {}", quoted(&value?)))).collect()
}
