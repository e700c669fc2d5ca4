//! `inarch stream`: a continual-learning benchmark over a stream of experiences.

use std::path::{Path, PathBuf};

use inarch_continual::{StreamRecipe, run_stream};
use inarch_core::data::open_dataset_with;
use inarch_recipes::{BadImagePolicy, Control};

use crate::args::StreamArgs;
use crate::backbones;
use crate::commands::fit::check_seeds;
use crate::data::check_apart;
use crate::error::CommandError;
use crate::output::{Output, table};
use crate::progress::Bars;

pub(crate) fn run(args: &StreamArgs, bars: &Bars, output: &Output) -> Result<(), CommandError> {
    let control = bars.control();
    check_seeds(&args.seeds)?;
    let protocol = recipe(args, control)?.protocol()?;
    let named = |what: &str, flag: &str| {
        CommandError::usage(format!("no {what} is given"), format!("give one with `{flag}` or in the recipe"))
    };
    let recipe = &protocol.recipe;
    let backbone = recipe.backbone.as_deref().ok_or_else(|| named("backbone", "-b"))?;
    let paths: &[PathBuf] = recipe.data.as_ref().map(|data| data.paths()).unwrap_or_default();
    if paths.is_empty() {
        return Err(named("data set", "-d"));
    }
    let device = inarch_core::device(&args.device.device)?;
    let backbone = backbones::open(backbone, &device)?;
    let options = recipe.data_options();
    let datasets = paths.iter().map(|path| open_dataset_with(path, &options)).collect::<Result<Vec<_>, _>>()?;
    for dataset in &datasets {
        dataset.need_single_labels("a stream of experiences")?;
    }
    let folder = args.output.clone().unwrap_or_else(|| {
        let names: Vec<&str> = datasets.iter().map(|dataset| dataset.name.as_str()).collect();
        Path::new("runs").join(format!("stream-{}-{}", backbone.name(), names.join("+")))
    });
    paths.iter().try_for_each(|path| check_apart(&folder, path))?;
    let policy = BadImagePolicy::from(args.on_bad_image);
    let report = run_stream(&backbone, &datasets, &protocol, policy.into(), &folder, control)?;
    output.result(&report, || {
        let mut rows = vec![report.header()];
        rows.extend(report.cells());
        let note = "In percent, over the test images of what has come; forgetting since learned; retention: accuracy on what \
                    has not come yet as a share of zero-shot's own.";
        for failure in &report.failures {
            rows.push(vec![failure.strategy.clone(), format!("seed {}: {}", failure.seed, failure.reason)]);
        }
        format!("{}{note}\nreport: {}\n", table(&rows), folder.join("report.html").display())
    });
    Ok(())
}

fn recipe(args: &StreamArgs, control: Control<'_>) -> Result<StreamRecipe, CommandError> {
    let mut settings = args.set.clone();
    if let Some(method) = &args.method {
        // First, so that `--set` may refine it.
        let name = toml::Value::String(method.clone());
        settings.insert(0, format!("fit.method={{ name = {name} }}"));
    }
    let mut recipe = match &args.recipe {
        Some(path) => StreamRecipe::open(path, &settings)?,
        None => StreamRecipe::read("", "command line", &settings)?,
    };
    if let Some(backbone) = &args.backbone {
        recipe.backbone = Some(backbone.clone());
    }
    if !args.data.is_empty() {
        recipe.data = Some(inarch_continual::OneOrMore::More(args.data.clone()));
    }
    if let Some(root) = &args.reading.source.root {
        recipe.root = Some(root.clone());
    }
    if let Some(pattern) = &args.reading.source.group_by {
        recipe.group_by = Some(pattern.clone());
    }
    recipe.slices = args.reading.shown.slices.or(recipe.slices);
    recipe.window = args.reading.shown.window.or(recipe.window);
    if !args.seeds.is_empty() {
        recipe.seeds.clone_from(&args.seeds);
    }
    if args.strategy.iter().any(|name| name == "all") {
        let left_out = recipe.choose_all()?;
        if !left_out.is_empty() {
            let names = left_out.join(", ");
            let why = "left out, because each needs another `fit.method`, or whole experiences";
            control.progress.say(&format!("{why}: {names}"));
        }
    } else if !args.strategy.is_empty() {
        recipe.choose(&args.strategy);
    } else if args.method.is_some() && args.recipe.is_none() && !args.set.iter().any(|set| set.starts_with("strategy"))
    {
        // The default strategy is a head in closed form, which would leave the method out.
        recipe.choose(&["naive".into()]);
    }
    Ok(recipe)
}
