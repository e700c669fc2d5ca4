//! `inarch eval`: measure zero-shot or an adapter on a data set.

use std::time::Instant;

use inarch_core::data::open_dataset;
use inarch_recipes::test_time::TestTimeReport;
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
    #[serde(skip_serializing_if = "Option::is_none")]
    test_time: Option<TestTimeReport>,
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
    let adaptation = args.test_time.open(model.backbone.device())?;
    let (evaluation, test_time) = match (&adaptation, &model.adapter) {
        (None, Some(artifact)) => (session.evaluate(artifact)?, None),
        (None, None) => (session.zero_shot(&resolve(&args.templates)?)?, None),
        (Some(adaptation), adapter) => {
            let (config, judge) = (&adaptation.config, adaptation.judge.as_ref());
            let (templates, state) = (resolve(&args.templates)?, adaptation.state.as_ref());
            let found = session.evaluate_test_time(adapter.as_ref(), &templates, config, judge, state)?;
            adaptation.write(&found.snapshot, &found.audit)?;
            (found.evaluation, Some(found.report))
        }
    };
    let seconds = started.elapsed().as_secs_f64();
    let result = EvalResult { model: model.name(), evaluation, seconds, test_time };
    output.result(&result, || text(&result));
    Ok(())
}

fn text(result: &EvalResult) -> String {
    let EvalResult { model, evaluation, seconds, test_time } = result;
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
    if let Some(report) = test_time {
        text.push_str(&adaptation_text(report));
    }
    if !evaluation.skipped.is_empty() {
        text.push_str(&format!(
            "could not be read ({}): {}\n",
            evaluation.skipped.len(),
            evaluation.skipped.join(", ")
        ));
    }
    text
}

fn adaptation_text(report: &TestTimeReport) -> String {
    let mut text = format!(
        "{}: without adaptation accuracy {}, ECE {:.3}; {} views, {:.1} ms an image, {} of it for views\n",
        report.method,
        percent(report.unadapted.accuracy),
        report.unadapted.ece,
        report.views,
        1000.0 * report.seconds_per_image,
        percent(report.views_share),
    );
    if let Some(orders) = report.order_accuracy {
        let (mean, std) = (percent(orders.mean), percent(orders.std));
        text.push_str(&format!("in {} orders of the stream: accuracy {mean}, deviation {std}\n", orders.n));
    }
    text.push_str(&format!(
        "admitted {}, fell back {}, abstained {}",
        report.admitted, report.fell_back, report.abstained
    ));
    if let Some(accuracy) = report.accuracy_of_answered.filter(|_| report.abstained > 0) {
        text.push_str(&format!(" (accuracy of the others {})", percent(accuracy)));
    }
    text.push_str(&format!("; memory {} of at most {} bytes\n", report.memory_bytes, report.most_memory_bytes));
    text
}
