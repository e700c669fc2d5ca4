//! The report of a fit as a page.

use inarch_core::metrics::{ClassRanking, Detail, Estimate};

use crate::evaluate::Evaluation;
use crate::fit_report::FitReport;
use crate::report::{Body, Confusion, Curves, Page, Point, Section, Series, Table};

/// The page of one fit: result, loss, classes, confusion.
pub(crate) fn fit_page(report: &FitReport) -> Page {
    let method = report.recipe.method.name();
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let lead = match (&report.zero_shot, &report.test) {
        (Some(zero_shot), Some(test)) => format!(
            "{method} classifies {} of {} test images of `{}` correctly; {} {}.",
            percent(test.metrics.accuracy),
            test.metrics.n,
            report.data.name,
            report.baseline,
            percent(zero_shot.metrics.accuracy)
        ),
        _ => format!("{method} was trained on {} images of `{}`.", report.data.train, report.data.name),
    };
    let mut sections = Vec::new();
    // A method that is solved without steps has no curve.
    if !report.losses.is_empty() {
        sections.push(Section {
            title: "Training loss".into(),
            text: "Means of equal stretches of the run.".into(),
            body: Body::Curves(loss_curve(report)),
        });
    }
    if let (Some(zero_shot), Some(test)) = (&report.zero_shot, &report.test) {
        let cell = |accuracy: Option<f64>| accuracy.map_or("no images".into(), percent);
        let classes = test.classes.iter().zip(&zero_shot.metrics.per_class).zip(&test.metrics.per_class);
        sections.push(Section {
            title: "Accuracy of each class".into(),
            text: String::new(),
            body: Body::Table(Table {
                header: ["class", report.baseline, method].map(String::from).to_vec(),
                rows: classes
                    .map(|((class, before), after)| vec![class.clone(), cell(*before), cell(*after)])
                    .collect(),
            }),
        });
        sections.extend(test.detail.as_ref().map(|detail| ranking(test, detail)));
        // Images with several labels are not taken for one another.
        if !test.confusion.is_empty() {
            sections.push(Section {
                title: "What is taken for what".into(),
                text: "Test images by true class (row) and predicted class (column).".into(),
                body: Body::Confusion(Confusion { classes: test.classes.clone(), counts: test.confusion.clone() }),
            });
        }
    }
    let mut facts = vec![
        ("backbone", format!("{} ({})", report.head.backbone.name, report.head.backbone.digest.short())),
        ("device", report.head.device.to_string()),
        ("data", format!("{} ({})", report.data.name, report.data.digest.short())),
        ("training images", report.data.train.to_string()),
        ("seed", report.recipe.seed.to_string()),
        ("trained values", report.trainable.to_string()),
        ("steps", report.steps.to_string()),
        ("seconds", format!("{:.1}", report.seconds.total)),
    ];
    if let Some(bytes) = report.head.peak_memory_bytes {
        facts.push(("peak memory", format!("{} MiB", bytes >> 20)));
    }
    if let Some(test) = &report.test {
        facts.push(("calibration error", format!("{:.3}", test.metrics.ece)));
    }
    Page {
        title: format!("{method} on {}", report.data.name),
        lead,
        facts: facts.into_iter().map(|(name, value)| (name.to_string(), value)).collect(),
        sections,
    }
}

/// Each class against all others.
fn ranking(test: &Evaluation, detail: &Detail) -> Section {
    let cell = |estimate: Estimate| match estimate.interval {
        Some([low, high]) => format!("{:.3} ({low:.3} to {high:.3})", estimate.value),
        None => format!("{:.3}", estimate.value),
    };
    let sensitivity = format!("sensitivity at {:.0} % specificity", 100.0 * detail.specificity);
    let row = |(class, found): (&String, &Option<ClassRanking>)| {
        let Some(found) = found else { return vec![class.clone(), "none".into()] };
        let ClassRanking { positives, auroc, average_precision, sensitivity, .. } = found;
        vec![class.clone(), positives.to_string(), cell(*auroc), cell(*average_precision), cell(*sensitivity)]
    };
    let drawn = detail.resampled_groups.map_or("the images".into(), |groups| format!("{groups} groups of images"));
    Section {
        title: "Each class against all others".into(),
        text: format!("With 95 % intervals over {} bootstrap resamples of {drawn}.", detail.resamples),
        body: Body::Table(Table {
            header: ["class", "images", "AUROC", "average precision"]
                .map(String::from)
                .into_iter()
                .chain([sensitivity])
                .collect(),
            rows: test.classes.iter().zip(&detail.ranking).map(row).collect(),
        }),
    }
}

fn loss_curve(report: &FitReport) -> Curves {
    let stretch = report.steps as f64 / report.losses.len().max(1) as f64;
    let points = report
        .losses
        .iter()
        .enumerate()
        .map(|(index, loss)| Point { x: (index as f64 + 0.5) * stretch, mean: f64::from(*loss), std: 0.0 })
        .collect();
    Curves {
        x_label: "step".into(),
        y_label: "loss (nats)".into(),
        log2_x: false,
        series: vec![Series { name: report.recipe.method.name().into(), points }],
        baselines: Vec::new(),
    }
}
