//! `inarch compare`: many methods on one data set, in one table.

use std::path::Path;

use inarch_core::backbone::Backbone;
use inarch_core::text::TemplateSet;
use inarch_peft::{METHODS, MethodConfig};
use inarch_recipes::{Axis, BadImagePolicy, CompareConfig, compare};

use crate::args::CompareArgs;
use crate::backbones;
use crate::commands::fit::check_seeds;
use crate::data::{check_apart, open};
use crate::error::CommandError;
use crate::output::{Output, table};
use crate::progress::Bars;

pub(crate) fn run(args: &CompareArgs, bars: &Bars, output: &Output) -> Result<(), CommandError> {
    let control = bars.control();
    let data =
        args.data.data.as_ref().ok_or_else(|| CommandError::usage("no data set is given", "give one with `-d`"))?;
    if args.data.subset.is_some() {
        return Err(CommandError::usage(
            "a comparison is over all classes",
            "leave `--subset` out, or give `--base-to-new` for both halves",
        ));
    }
    check_seeds(&args.seeds)?;
    let device = inarch_core::device(&args.device.device)?;
    let backbone = backbones::open(&args.backbone, &device)?;
    let described = args.descriptions.as_ref().map(|path| TemplateSet::descriptions(path)).transpose()?;
    let config = CompareConfig {
        methods: methods(&args.method, &backbone),
        shots: args.shots.clone(),
        seeds: args.seeds.clone(),
        official: args.official,
        templates: described.map(|set| set.templates().to_vec()),
        set: args.set.clone(),
        tune: args.tune.iter().map(|axis| read_axis(axis)).collect::<Result<_, _>>()?,
        base_to_new: args.base_to_new,
    };
    let dataset = open(data, args.data.options(), &args.data.clips, None, bars)?;
    let folder = args.output.clone().unwrap_or_else(|| {
        let protocol = if args.base_to_new { "base-to-new" } else { "compare" };
        Path::new("runs").join(format!("{protocol}-{}-{}", backbone.name(), dataset.name))
    });
    check_apart(&folder, data)?;
    let policy = args.data.on_bad_image.map(BadImagePolicy::from).unwrap_or_default();
    let comparison = compare(&backbone, &dataset, &config, policy.into(), &folder, control)?;
    output.result(&comparison, || {
        let mut rows = vec![comparison.header()];
        rows.extend(comparison.cells());
        format!("{}{}\nreport: {}\n", table(&rows), comparison.caption(), folder.join("report.html").display())
    });
    Ok(())
}

/// The methods that were named; `all` are those that the backbone can carry.
fn methods(given: &[String], backbone: &Backbone) -> Vec<String> {
    if given.iter().any(|method| method == "all") {
        let carried =
            |name: &&str| backbone.has_towers() || MethodConfig::preset(name).is_some_and(|method| method.black_box());
        return METHODS.iter().copied().filter(|name| carried(name)).map(String::from).collect();
    }
    let mut methods: Vec<String> = Vec::new();
    for method in given {
        if !methods.contains(method) {
            methods.push(method.clone());
        }
    }
    methods
}

fn read_axis(text: &str) -> Result<Axis, CommandError> {
    let fault = || {
        CommandError::usage(
            format!("`--tune {text}` has no values"),
            "write it as `--tune train.optimizer.lr=0.001,0.01`",
        )
    };
    let (key, values) = text.split_once('=').ok_or_else(fault)?;
    let values: Vec<String> = values.split(',').map(|value| value.trim().to_string()).collect();
    if values.iter().any(String::is_empty) {
        return Err(fault());
    }
    Ok(Axis { key: key.trim().to_string(), values })
}
