//! A benchmark as a page.

use inarch_core::metrics::MeanStd;
use inarch_recipes::report::{Body, Curves, Heat, Page, Point, Section, Series, Table};

use super::report::{Failure, StrategyResult, StreamReport, bytes_text, percent};

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
               minus the last. Transfer: accuracy before it was learned. Retention: that accuracy as a share of zero-shot's own. \
               Negative flips: answers that were right and became wrong; positive flips: the other way round."
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
    sections.push(all_measures(&order));
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

/// What each measure is called in `report.json`, and what it is.
const DEFINITIONS: &str = "\
    By the names of report.json, mean and standard deviation over the seeds, in percent but for bytes and \
    seconds. last: mean over experiences of the accuracy after the last one. mtil_average: mean of all entries \
    of the matrix. transfer: mean accuracy before an experience was learned, from the second on. \
    forgetting_since_learned: accuracy right after an experience was learned minus the last; \
    forgetting_best_of_all_rows: the best of any row since then minus the last; forgetting_best_of_earlier_rows: \
    the best of any row before the last, also before it was learned, minus the last. backward_transfer: the last \
    minus that right after it was learned. forward_transfer: accuracy just before it is learned minus zero-shot. worst_zero_shot_change: the \
    worst change against zero-shot of an experience that has not come yet. zero_shot_retention: accuracy on \
    experiences that have not come yet as a share of zero-shot's own. negative_flips and positive_flips: earlier \
    test images that became wrong, or right, in an experience. bytes: carried on at the end. seconds: of \
    learning. Heads that are bound to their classes cannot answer for what has not come yet, and have nothing \
    where that is asked for.";

fn all_measures(strategies: &[&StrategyResult]) -> Section {
    let names: Vec<&'static str> = strategies
        .first()
        .and_then(|strategy| strategy.seeds.first())
        .map(|seed| seed.named().into_iter().map(|(name, _)| name).collect())
        .unwrap_or_default();
    let cell = |strategy: &StrategyResult, name: &str| match strategy.measures.get(name).copied().flatten() {
        None => "–".to_string(),
        Some(value) if name == "bytes" || name == "seconds" => {
            let digits = usize::from(name == "seconds");
            let mean = format!("{:.digits$}", value.mean);
            if value.n > 1 { format!("{mean} ± {:.digits$}", value.std) } else { mean }
        }
        Some(value) => percent(value),
    };
    let row = |strategy: &&StrategyResult| -> Vec<String> {
        [strategy.name.clone()].into_iter().chain(names.iter().map(|name| cell(strategy, name))).collect()
    };
    Section {
        title: "All measures".into(),
        text: DEFINITIONS.into(),
        body: Body::Table(Table {
            header: ["strategy"].into_iter().chain(names.iter().copied()).map(String::from).collect(),
            rows: strategies.iter().map(row).collect(),
        }),
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
    use super::{Body, DEFINITIONS, StrategyResult, all_measures, curve, heat};
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
            negative_flips: 0.1 * seed as f64,
            positive_flips: 0.25,
            bytes: 1000 * seed,
            seconds: 1.5,
        }
    }

    #[test]
    fn all_measures_stand_there_by_name_with_their_spread_over_seeds() {
        let bound = StrategyResult::new(
            "er".into(),
            String::new(),
            vec![
                seed(1, [0.8, 0.5], [[Some(0.8), None], [Some(0.4), Some(0.6)]]),
                seed(2, [0.6, 0.7], [[Some(0.6), None], [Some(0.6), Some(0.8)]]),
            ],
        );
        let mut open = [0.3, 0.45].map(|ahead| seed(1, [0.8, 0.5], [[Some(0.8), Some(ahead)], [Some(0.4), Some(0.6)]]));
        for seed in &mut open {
            seed.measures = seed.matrix.measures(&[Some(0.5), Some(0.5)]);
        }
        let open = StrategyResult::new("rail".into(), String::new(), open.to_vec());
        let kept = open.zero_shot_retention.unwrap();
        assert!((kept.mean - 0.75).abs() < 1e-12 && (kept.std - 0.15).abs() < 1e-12, "{kept:?}");
        assert!(bound.zero_shot_retention.is_none());
        let section = all_measures(&[&bound, &open]);
        let Body::Table(table) = section.body else { panic!("a table") };
        let of = |row: usize, name: &str| {
            let at = table.header.iter().position(|header| header == name).unwrap_or_else(|| panic!("no {name}"));
            table.rows[row][at].clone()
        };
        for name in &table.header[1..] {
            assert!(DEFINITIONS.contains(name.as_str()), "{name} is explained");
        }
        assert_eq!(table.header.len(), 15);
        assert_eq!([of(0, "strategy"), of(1, "strategy")], ["er", "rail"]);
        assert_eq!(of(0, "forgetting_since_learned"), "20.00 ± 20.00");
        assert_eq!(of(0, "backward_transfer"), "-20.00 ± 20.00");
        assert_eq!([of(0, "negative_flips"), of(0, "positive_flips")], ["15.00 ± 5.00", "25.00 ± 0.00"]);
        assert_eq!([of(0, "zero_shot_retention"), of(0, "transfer")], ["–", "–"]);
        assert_eq!([of(1, "zero_shot_retention"), of(1, "transfer")], ["75.00 ± 15.00", "37.50 ± 7.50"]);
        assert_eq!([of(0, "bytes"), of(0, "seconds")], ["1500 ± 500", "1.5 ± 0.0"]);
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
