//! A comparison as a page.

use super::Comparison;
use crate::report::{Body, Curves, Page, Point, Section, Series, Table};

/// Lines in one plot; more could not be told apart.
const LINES: usize = 6;

/// The page of a comparison: curves over shots, then the table.
pub(super) fn comparison_page(comparison: &Comparison) -> Page {
    let best = comparison.methods().next().and_then(<[_]>::last);
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let lead = match best {
        Some(best) => format!(
            "Best of {} at {} shots: {} with {}{}.",
            comparison.methods().count(),
            best.shots,
            best.method,
            percent(best.mean()),
            comparison.zero_shot.map_or_else(String::new, |zero| format!("; zero-shot {}", percent(zero.accuracy)))
        ),
        None => "Nothing was compared.".into(),
    };
    let series: Vec<Series> = comparison
        .methods()
        .map(|lines| Series {
            name: lines[0].method.clone(),
            points: lines
                .iter()
                .filter_map(|line| Some((line, line.accuracy?)))
                .map(|(line, accuracy)| Point {
                    x: line.shots as f64,
                    mean: 100.0 * accuracy.mean,
                    std: 100.0 * accuracy.std,
                })
                .collect(),
        })
        .collect();
    let plot = |(index, series): (usize, &[Series])| Section {
        title: match index {
            0 => "Accuracy over shots".into(),
            _ => format!("Accuracy over shots, ranks {} to {}", index * LINES + 1, index * LINES + series.len()),
        },
        text: "Mean over the seeds; the bars are one standard deviation.".into(),
        body: Body::Curves(Curves {
            x_label: "training images of each class".into(),
            y_label: "accuracy (%)".into(),
            log2_x: true,
            series: series.to_vec(),
            baselines: comparison.zero_shot.iter().map(|zero| ("zero-shot".into(), 100.0 * zero.accuracy)).collect(),
        }),
    };
    let mut sections = vec![Section {
        title: "All methods".into(),
        text: comparison.caption(),
        body: Body::Table(Table { header: comparison.header(), rows: comparison.cells() }),
    }];
    sections.extend(series.chunks(LINES).enumerate().map(plot));
    let failed: Vec<Vec<String>> = comparison
        .runs
        .iter()
        .filter_map(|run| Some((run, run.failure.clone()?)))
        .map(|(run, failure)| vec![run.method.clone(), run.shots.to_string(), run.seed.to_string(), failure])
        .collect();
    if !failed.is_empty() {
        sections.push(Section {
            title: "Runs that failed".into(),
            text: String::new(),
            body: Body::Table(Table {
                header: ["method", "shots", "seed", "why"].map(String::from).to_vec(),
                rows: failed,
            }),
        });
    }
    let facts = [
        ("backbone", format!("{} ({})", comparison.head.backbone.name, comparison.head.backbone.digest.short())),
        ("data", comparison.data.clone()),
        ("test images", comparison.test.to_string()),
        ("hyper-parameters", comparison.settings.to_string()),
        ("runs", comparison.runs.len().to_string()),
    ];
    Page {
        title: format!("Methods on {}", comparison.data),
        lead,
        facts: facts.into_iter().map(|(name, value)| (name.to_string(), value)).collect(),
        sections,
    }
}
