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
        ("backbone", format!("{} ({})", report.head.backbone.name, report.head.backbone.digest.short())),
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

#[cfg(test)]
mod tests {
    use super::super::report::SeedResult;
    use super::{StrategyResult, curve, heat};
    use crate::measure::AccuracyMatrix;

    fn seed(seed: u64, seen: [f64; 2], rows: [[Option<f64>; 2]; 2]) -> SeedResult {
        let matrix = AccuracyMatrix { rows: rows.iter().map(|row| row.to_vec()).collect() };
        SeedResult {
            seed,
            classes: Vec::new(),
            measures: matrix.measures(&[]),
            matrix,
            zero_shot: Vec::new(),
            seen: seen.to_vec(),
            average: seen.iter().sum::<f64>() / 2.0,
            last: seen[1],
            negative_flips: 0.0,
            bytes: 0,
            seconds: 0.0,
        }
    }

    #[test]
    fn curves_have_the_spread_over_seeds_and_the_heat_map_their_mean() {
        let seeds = vec![
            seed(1, [0.8, 0.5], [[Some(0.8), None], [Some(0.4), Some(0.6)]]),
            seed(2, [0.6, 0.7], [[Some(0.6), None], [Some(0.6), Some(0.8)]]),
        ];
        let strategy = StrategyResult::new("er".into(), String::new(), seeds);
        let close = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-9, "{found} {expected}");
        let curve = curve(&strategy);
        assert_eq!((curve.name.as_str(), curve.points.len()), ("er", 2));
        for (point, (x, mean)) in curve.points.iter().zip([(1.0, 70.0), (2.0, 60.0)]) {
            close(point.x, x);
            close(point.mean, mean);
            close(point.std, 10.0);
        }
        let heat = heat(&strategy, &["a", "b"].map(String::from));
        assert_eq!((heat.columns, heat.rows), (vec!["a".into(), "b".into()], vec!["after a".into(), "after b".into()]));
        let expected = [[Some(0.7), None], [Some(0.5), Some(0.7)]];
        for (found, expected) in heat.values.iter().flatten().zip(expected.iter().flatten()) {
            assert_eq!(found.is_some(), expected.is_some(), "what has not come has no accuracy");
            close(found.unwrap_or_default(), expected.unwrap_or_default());
        }
    }
}
