//! `inarch eval`: measure zero-shot or an adapter on a data set.

use std::time::Instant;

use inarch_core::metrics::{Detail, Estimate};
use inarch_recipes::test_time::{EpisodeStore, TestTimeReport};
use inarch_recipes::{Evaluation, ReportHead, Session};
use serde::Serialize;

use crate::adapter::{Model, check_no_run};
use crate::args::EvalArgs;
use crate::data::open;
use crate::error::CommandError;
use crate::output::{Output, percent, table};
use crate::progress::Bars;
use crate::test_time::Adaptation;

/// What is printed with `--json`.
#[derive(Serialize)]
struct EvalResult {
    model: String,
    #[serde(flatten)]
    head: ReportHead,
    #[serde(flatten)]
    evaluation: Evaluation,
    seconds: f64,
    /// The temperature that was fitted on the validation images.
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    test_time: Option<TestTimeReport>,
}

/// What is printed with `--json` for several methods of adaptation.
#[derive(Serialize)]
struct Several {
    model: String,
    #[serde(flatten)]
    head: ReportHead,
    methods: Vec<EvalResult>,
    seconds: f64,
}

pub(crate) fn run(args: &EvalArgs, bars: &Bars, output: &Output) -> Result<(), CommandError> {
    let started = Instant::now();
    let Some(data) = &args.data.data else {
        return Err(CommandError::usage("no data set is given", "give one with `-d`"));
    };
    args.calibrate.as_ref().map_or(Ok(()), |folder| check_no_run(folder))?;
    let model = Model::open(&args.model)?;
    // Splits that are made here are to be those of `fit`, or the adapter would be tested on what it has learned.
    let options = model.reading(args.data.options());
    let (window, group_by) = (options.window, options.group_by.clone());
    let dataset = open(data, options, &args.data.clips, model.clips(), bars)?;
    let subset = args.data.subset.map_or_else(Default::default, Into::into);
    let policy = args.data.on_bad_image.map_or_else(Default::default, inarch_recipes::BadImagePolicy::from);
    let session = Session::new(&model.backbone, &dataset, subset, policy.into(), bars.control())?
        .with_measures(args.measures.config(args.abstain));
    let adaptations = args.test_time.open(model.backbone.device())?;
    if !adaptations.is_empty() {
        if args.abstain.is_some() {
            let hint = "`--set test-time.abstain=P` withholds those that adaptation leaves unsure";
            return Err(CommandError::usage("`--abstain` measures answers without adaptation", hint));
        }
        model.backbone.need_towers("adaptation at test time")?;
    }
    let calibrated = match &args.calibrate {
        Some(folder) => {
            let (mut artifact, temperature) = session.calibrated(model.adapter.as_ref(), &args.prompts.templates()?)?;
            // Its images are to be shown as those that it was fitted to.
            artifact.manifest.window = window;
            artifact.manifest.group_by = group_by.or(artifact.manifest.group_by);
            artifact.save(folder)?;
            Some((artifact, temperature))
        }
        None => None,
    };
    let adapter = calibrated.as_ref().map(|(artifact, _)| artifact).or(model.adapter.as_ref());
    let temperature = calibrated.as_ref().map(|(_, temperature)| *temperature);
    let plain = adaptations.is_empty().then(|| match adapter {
        Some(artifact) => Ok::<_, CommandError>(session.evaluate(artifact)?),
        None => Ok(session.zero_shot(&args.prompts.templates()?)?),
    });
    let mut found = match plain {
        Some(evaluation) => vec![(evaluation?, None)],
        None => Vec::with_capacity(adaptations.len()),
    };
    let mut store = EpisodeStore::default();
    for Adaptation { config, judge, state, .. } in &adaptations {
        let templates = args.prompts.templates()?;
        let (judge, state) = (judge.as_ref(), state.as_ref());
        let one = session.evaluate_test_time(adapter, &templates, config, judge, state, &mut store)?;
        if let [adaptation] = &adaptations[..] {
            adaptation.write(&one.snapshot, &one.audit)?;
        }
        found.push((one.evaluation, Some(one.report)));
    }
    let seconds = started.elapsed().as_secs_f64();
    let head = ReportHead::new(&model.backbone);
    let result = |(evaluation, test_time)| {
        let (model, head) = (model.name(), head.clone());
        EvalResult { model, head, evaluation, seconds, temperature, test_time }
    };
    let mut results: Vec<EvalResult> = found.into_iter().map(result).collect();
    if adaptations.len() > 1 {
        let result = Several { model: model.name(), head, seconds, methods: results };
        output.result(&result, || several_text(&result));
        return Ok(());
    }
    let Some(result) = results.pop() else { return Ok(()) };
    output.result(&result, || text(&result));
    Ok(())
}

fn text(result: &EvalResult) -> String {
    let EvalResult { model, evaluation, seconds, temperature, test_time, .. } = result;
    let metrics = &evaluation.metrics;
    let mut rows = vec![["class", "accuracy"].map(String::from).to_vec()];
    for (class, accuracy) in evaluation.classes.iter().zip(&metrics.per_class) {
        rows.push(vec![class.clone(), accuracy.map_or("no images".into(), percent)]);
    }
    let mut text = table(&rows);
    if let Some(detail) = &evaluation.detail {
        text.push_str(&detail_text(detail, &evaluation.classes));
    }
    text.push_str(&format!(
        "{model}: accuracy {} over {} images, ECE {:.3}, {seconds:.1} s\n",
        percent(metrics.accuracy),
        metrics.n,
        metrics.ece
    ));
    if let Some(temperature) = temperature {
        text.push_str(&format!("temperature from the validation images: {temperature:.3}\n"));
    }
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

/// Each class against all others, and what is left when unsure answers are withheld.
fn detail_text(detail: &Detail, classes: &[String]) -> String {
    let head = format!("sensitivity at {:.0} % specificity", 100.0 * detail.specificity);
    let mut rows = vec![["class", "images", "AUROC", "AP", &head].map(String::from).to_vec()];
    let cell = |estimate: Estimate| match estimate.interval {
        Some([low, high]) => format!("{:.3} ({low:.3} to {high:.3})", estimate.value),
        None => format!("{:.3}", estimate.value),
    };
    for (class, found) in classes.iter().zip(&detail.ranking) {
        rows.push(match found {
            None => vec![class.clone(), "none, or nothing else".into()],
            Some(found) => vec![
                class.clone(),
                found.positives.to_string(),
                cell(found.auroc),
                cell(found.average_precision),
                cell(found.sensitivity),
            ],
        });
    }
    let mut text = format!("\n{}", table(&rows));
    let means = [
        ("AUROC", detail.auroc.map(|value| format!("{value:.3}"))),
        ("mAP", detail.mean_average_precision.map(|value| format!("{value:.3}"))),
        ("balanced accuracy", detail.balanced_accuracy.map(percent)),
    ];
    let means: Vec<String> =
        means.into_iter().filter_map(|(name, value)| value.map(|value| format!("{name} {value}"))).collect();
    text.push_str(&format!("mean over classes: {}\n", means.join(", ")));
    if let Some(groups) = detail.resampled_groups {
        text.push_str(&format!("intervals: bootstrap over {groups} groups of images\n"));
    }
    if let Some(selective) = &detail.selective {
        let mut rows = vec![["answered from", "answered", "accuracy of those"].map(String::from).to_vec()];
        for point in &selective.points {
            let accuracy = point.accuracy.map_or("none".into(), percent);
            rows.push(vec![format!("{}", point.threshold), percent(point.coverage), accuracy]);
        }
        text.push_str(&format!("\n{}\n", table(&rows)));
        let mut rows = vec![["the surest", "answered from", "accuracy of those"].map(String::from).to_vec()];
        for point in &selective.surest {
            rows.push(vec![percent(point.share), format!("{:.3}", point.threshold), percent(point.accuracy)]);
        }
        text.push_str(&format!("{}\n", table(&rows)));
    }
    text
}

/// One line for each method, after the one without.
fn several_text(result: &Several) -> String {
    let head = ["method", "accuracy", "ECE", "ms an image", "views", "fell back", "memory"];
    let mut rows = vec![head.map(String::from).to_vec()];
    for EvalResult { evaluation, test_time, .. } in &result.methods {
        let Some(report) = test_time else { continue };
        if rows.len() == 1 {
            let before = &report.unadapted;
            rows.push(vec!["none".into(), percent(before.accuracy), format!("{:.3}", before.ece)]);
        }
        rows.push(vec![
            report.method.clone(),
            percent(evaluation.metrics.accuracy),
            format!("{:.3}", evaluation.metrics.ece),
            format!("{:.1}", 1000.0 * report.seconds_per_image),
            percent(report.views_share),
            report.fell_back.to_string(),
            format!("{} B", report.memory_bytes),
        ]);
    }
    let images = result.methods.first().map_or(0, |result| result.evaluation.metrics.n);
    format!("{}{}: {images} images, {:.1} s\n", table(&rows), result.model, result.seconds)
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
