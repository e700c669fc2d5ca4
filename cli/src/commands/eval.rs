//! `inarch eval`: measure zero-shot or an adapter on a data set.

use std::time::Instant;

use inarch_core::data::open_dataset;
use inarch_recipes::{Evaluation, Session};
use serde::Serialize;

use crate::adapter::{Model, resolve};
use crate::args::EvalArgs;
use crate::error::CommandError;
use crate::output::{Output, percent, table};
use crate::progress::Bars;

/// What is printed with `--json`.
#[derive(Serialize)]
struct EvalResult {
    model: String,
    #[serde(flatten)]
    evaluation: Evaluation,
    seconds: f64,
}

pub(crate) fn run(args: &EvalArgs, bars: &Bars, output: &Output) -> Result<(), CommandError> {
    let started = Instant::now();
    let Some(data) = &args.data.data else {
        return Err(CommandError::usage("no data set is given", "give one with `-d`"));
    };
    let model = Model::open(&args.model)?;
    let dataset = open_dataset(data, args.data.root.as_deref())?;
    let subset = args.data.subset.map_or_else(Default::default, Into::into);
    let policy = args.data.on_bad_image.map_or_else(Default::default, inarch_recipes::BadImagePolicy::from);
    let session = Session::new(&model.backbone, &dataset, subset, policy.into(), bars.control())?;
    let evaluation = match &model.adapter {
        Some(artifact) => session.evaluate(artifact)?,
        None => session.zero_shot(&resolve(&args.templates)?)?,
    };
    let result = EvalResult { model: model.name(), evaluation, seconds: started.elapsed().as_secs_f64() };
    output.result(&result, || text(&result));
    Ok(())
}

fn text(result: &EvalResult) -> String {
    let EvalResult { model, evaluation, seconds } = result;
    let metrics = &evaluation.metrics;
    let mut rows = vec![["class", "accuracy"].map(String::from).to_vec()];
    for (class, accuracy) in evaluation.classes.iter().zip(&metrics.per_class) {
        rows.push(vec![class.clone(), accuracy.map_or("no images".into(), percent)]);
    }
    let mut text = table(&rows);
    text.push_str(&format!(
        "{model}: accuracy {} over {} images, ECE {:.3}, {seconds:.1} s\n",
        percent(metrics.accuracy),
        metrics.n,
        metrics.ece
    ));
    if !evaluation.skipped.is_empty() {
        text.push_str(&format!(
            "could not be read ({}): {}\n",
            evaluation.skipped.len(),
            evaluation.skipped.join(", ")
        ));
    }
    text
}
