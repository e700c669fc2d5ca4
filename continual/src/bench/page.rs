//! A benchmark as a page.

use inarch_core::metrics::MeanStd;
use inarch_recipes::report::{Body, Curves, Heat, Page, Point, Section, Series, Table};

use super::report::{Failure, StrategyResult, StreamReport, bytes_text};

/// Lines in one plot; more could not be told apart.
const LINES: usize = 6;

pub(super) fn stream_page(report: &StreamReport) -> Page {
    let mut order: Vec<&StrategyResult> = report.strategies.iter().collect();
    order.sort_by(|a, b| b.last.mean.total_cmp(&a.last.mean));
    let lead = match order.first() {
        Some(best) => format!(
            "Best of {} after {} experiences: {} with {:.1} %, carrying {} on.",
            order.len(),
            report.experiences.len(),
            best.name,
            100.0 * best.last.mean,
            bytes_text(best.bytes)
        ),
        None => "Nothing was run.".into(),
    };
    let mut sections = vec![Section {
        title: "All strategies".into(),
        text: "In percent, mean and standard deviation over the seeds. Average and last: accuracy over all test images of what \
               has come, mean over the experiences and at the end. Forgetting: accuracy right after an experience was learned \
               minus the last. Transfer: accuracy before it was learned. Flips: answers that were right and became wrong."
            .into(),
        body: Body::Table(Table { header: report.header(), rows: report.cells() }),
    }];
    for (index, chunk) in order.chunks(LINES).enumerate() {
        let series = chunk.iter().map(|strategy| curve(strategy)).collect();
        sections.push(Section {
            title: match index {
                0 => "Accuracy as the stream goes on".into(),
                _ => format!(
                    "Accuracy as the stream goes on, ranks {} to {}",
                    index * LINES + 1,
                    index * LINES + chunk.len()
                ),
            },
            text: "Over all test images of what has come; the bars are one standard deviation over the seeds.".into(),
            body: Body::Curves(Curves {
                x_label: "experience".into(),
                y_label: "accuracy (%)".into(),
                log2_x: false,
                series,
                baselines: Vec::new(),
            }),
        });
    }
    for strategy in &order {
        sections.push(Section {
            title: format!("{}: accuracy matrix", strategy.name),
            text: "Mean over the seeds. A row is a moment of the stream, a column an experience; right of the diagonal it has \
                   not come yet."
                .into(),
            body: Body::Heat(heat(strategy, &report.experiences)),
        });
    }
    if !report.failures.is_empty() {
        let row = |failure: &Failure| vec![failure.strategy.clone(), failure.seed.to_string(), failure.reason.clone()];
        sections.push(Section {
            title: "Runs without a result".into(),
            text: String::new(),
            body: Body::Table(Table {
                header: ["strategy", "seed", "why"].map(String::from).to_vec(),
                rows: report.failures.iter().map(row).collect(),
            }),
        });
    }
    let seeds = report.recipe.seeds.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let facts = [
        ("backbone", format!("{} ({})", report.backbone.name, report.backbone.digest.short())),
        ("data", report.data.clone()),
        ("experiences", report.experiences.len().to_string()),
        ("seeds", seeds),
    ];
    Page {
        title: format!("A stream over {}", report.data),
        lead,
        facts: facts.into_iter().map(|(name, value)| (name.to_string(), value)).collect(),
        sections,
    }
}

fn curve(strategy: &StrategyResult) -> Series {
    let length = strategy.seeds.iter().map(|seed| seed.seen.len()).min().unwrap_or(0);
    let point = |at: usize| {
        let values: Vec<f64> = strategy.seeds.iter().map(|seed| 100.0 * seed.seen[at]).collect();
        MeanStd::of(&values).map(|value| Point { x: (at + 1) as f64, mean: value.mean, std: value.std })
    };
    Series { name: strategy.name.clone(), points: (0..length).filter_map(point).collect() }
}

fn heat(strategy: &StrategyResult, experiences: &[String]) -> Heat {
    let steps = experiences.len();
    let mean = |step: usize, task: usize| {
        let values: Option<Vec<f64>> = strategy.seeds.iter().map(|seed| seed.matrix.get(step, task)).collect();
        MeanStd::of(&values?).map(|value| value.mean)
    };
    Heat {
        columns: experiences.to_vec(),
        rows: (0..steps).map(|step| format!("after {}", experiences[step])).collect(),
        values: (0..steps).map(|step| (0..steps).map(|task| mean(step, task)).collect()).collect(),
    }
}
