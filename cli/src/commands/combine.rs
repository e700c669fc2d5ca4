//! `inarch combine`: merge trained adapters into one, by weights.

use std::path::PathBuf;

use inarch_peft::{Artifact, Combination};
use inarch_recipes::Progress as _;
use serde::Serialize;

use crate::adapter::{check_no_run, load};
use crate::args::CombineArgs;
use crate::backbones;
use crate::error::CommandError;
use crate::output::Output;
use crate::progress::Bars;

/// What is printed with `--json`.
#[derive(Serialize)]
struct CombineResult {
    output: PathBuf,
    method: &'static str,
    parts: usize,
    parameters: usize,
}

pub(crate) fn run(args: &CombineArgs, bars: &Bars, output: &Output) -> Result<(), CommandError> {
    check_no_run(&args.output)?;
    let device = inarch_core::device(&args.device.device)?;
    let backbone = backbones::open(&args.backbone, &device)?;
    let parts = load(&args.adapters, &backbone)?;
    let combination = Combination {
        merge: args.merge.into(),
        weights: args.weights.clone(),
        rank: args.rank,
        density: args.density,
        seed: args.seed,
    };
    let combined = combination.combine(&parts, &backbone)?;
    if combined.manifest.group_by.is_none() && parts.iter().any(|part| part.manifest.group_by.is_some()) {
        bars.say(&several_groups(&parts));
    }
    combined.save(&args.output)?;
    let result = CombineResult {
        output: args.output.clone(),
        method: combined.manifest.method.name(),
        parts: parts.len(),
        parameters: combined.manifest.parameters,
    };
    output.result(&result, || {
        let CombineResult { output, method, parts, parameters } = &result;
        format!("{parts} adapters as one `{method}` of {parameters} parameters in {}", output.display())
    });
    Ok(())
}

/// What is said of adapters whose data was split by several patterns.
fn several_groups(parts: &[Artifact]) -> String {
    let mut patterns: Vec<String> =
        parts.iter().filter_map(|part| Some(format!("`{}`", part.manifest.group_by.as_ref()?))).collect();
    patterns.sort();
    patterns.dedup();
    format!(
        "note: the data of these adapters was split by different groups, {}, so the result remembers none; give `--group-by` with \
         the data that it is measured on",
        patterns.join(" and ")
    )
}
